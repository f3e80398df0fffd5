package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// SECURITY.md claims nothing that no test shows: each row of the threat model
// names tests, and they exist.
func TestSecurityNamesItsTests(t *testing.T) {
	page, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	rows, faults := unproven(string(page), testsHere(t))
	for _, fault := range faults {
		t.Error(fault)
	}
	if rows < 30 {
		t.Errorf("the threat model has only %d rows", rows)
	}
}

// TestSecurityClaimsBite breaks each rule of the page on purpose.
func TestSecurityClaimsBite(t *testing.T) {
	const head = "| threat | what holds it | shown by |\n|---|---|---|\n"
	exist := map[string]bool{"TestLocks": true, "FuzzLocks": true}
	for _, tt := range []struct {
		why, page string
		rows      int
		fault     string
	}{
		{"all is well", head + "| theft | a lock | `TestLocks`, `FuzzLocks` |\n", 1, ""},
		{"a test that is gone", head + "| theft | a lock | `TestLocks`, `TestBolts` |\n", 1, "there is no TestBolts"},
		{"a test that is gone, in the text", "As `TestBolts` shows.\n", 0, "there is no TestBolts"},
		{"a row without tests", head + "| theft | a lock, as `TestLocks` shows | trust |\n", 1, "theft: no test shows it"},
		{"nothing holds it", head + "| theft | | `TestLocks` |\n", 1, "theft: nothing holds it"},
		{"a row that is torn", head + "| theft | `TestLocks` |\n", 0, "a row of 2 cells: | theft | `TestLocks` |"},
		{"a table of something else", "| version | fixes |\n|---|---|\n| 1 | yes |\n", 0, ""},
	} {
		t.Run(tt.why, func(t *testing.T) {
			rows, faults := unproven(tt.page, exist)
			if rows != tt.rows || strings.Join(faults, "; ") != tt.fault {
				t.Errorf("%d rows, faults %q, want %d, %q", rows, faults, tt.rows, tt.fault)
			}
		})
	}
}

var (
	testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`")
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(\w+ \*testing\.[TF]\)`)
)

// unproven returns how many threats a page has in its tables, and what is wrong
// with its claims.
func unproven(page string, exist map[string]bool) (rows int, faults []string) {
	for _, found := range testName.FindAllStringSubmatch(page, -1) {
		if !exist[found[1]] {
			faults = append(faults, "there is no "+found[1])
		}
	}
	threats := false
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		cells := strings.Split(strings.Trim(line, "|"), "|")
		switch {
		case !strings.HasPrefix(line, "|"):
			threats = false
		case strings.TrimSpace(cells[0]) == "threat":
			threats = true
		case !threats || strings.HasPrefix(line, "|---"):
		case len(cells) != 3:
			faults = append(faults, fmt.Sprintf("a row of %d cells: %s", len(cells), line))
		default:
			rows++
			threat := strings.TrimSpace(cells[0])
			if strings.TrimSpace(cells[1]) == "" {
				faults = append(faults, threat+": nothing holds it")
			}
			if !testName.MatchString(cells[2]) {
				faults = append(faults, threat+": no test shows it")
			}
		}
	}
	return rows, faults
}

// testsHere returns the names of all tests and fuzz targets.
func testsHere(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"bin", "data", "testdata"}, d.Name())):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, found := range testFunc.FindAllSubmatch(text, -1) {
			names[string(found[1])] = true
		}
		return err
	})
	if err != nil || len(names) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	return names
}

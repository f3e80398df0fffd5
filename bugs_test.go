//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// seededBugs are mistakes that tests must notice, by their names in testdata/bugs;
// those whose tests are the quickest come first.
func seededBugs() []string {
	return []string{
		"evicting-counters", "leftmost-forwarded", "no-crc", "no-stop-after-a-failed-sync", "answer-before-the-commit",
		"token-by-prefix", "end-after-the-answer", "wall-clock", "limit-without-a-place", "list-not-rebuilt",
		"no-dummy-hash", "sync-skipped",
	}
}

// Each seeded bug can still be put into the code, and says what is wrong with it and
// how that shows.
func TestSeededBugsApply(t *testing.T) {
	patches, err := filepath.Glob("testdata/bugs/*.patch")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, patch := range patches {
		names = append(names, strings.TrimSuffix(filepath.Base(patch), ".patch"))
	}
	if want := slices.Sorted(slices.Values(seededBugs())); !slices.Equal(names, want) {
		t.Errorf("there are %q, want %q", names, want)
	}
	for _, patch := range patches {
		text, err := os.ReadFile(patch)
		if err != nil {
			t.Fatal(err)
		}
		head := strings.SplitN(string(text), "\n", 5)
		for i, start := range []string{"wrong: ", "run: go test -count=1 ", "red: ", ""} {
			if !strings.HasPrefix(head[i], start) || head[i] == start && start != "" {
				t.Errorf("%s: line %d is %q, want %q and more", patch, i+1, head[i], start)
			}
		}
		if out, err := exec.CommandContext(t.Context(), "git", "apply", "--check", patch).CombinedOutput(); err != nil {
			t.Errorf("%s does not apply any more: make it anew (%v)\n%s", patch, err, out)
		}
	}
}

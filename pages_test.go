//go:build linux && !race

// What a shell and other processes do is nothing that the race detector sees.

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sessiond/internal/cli"
)

// What a page tells the reader to type works as it stands there: its sh blocks
// run, in order, against a fresh server. A curl is answered with errorCode 0, or
// with the one that a comment behind it names.
func TestPagesSayWhatWorks(t *testing.T) {
	guides, err := filepath.Glob("docs/*.md")
	if err != nil || len(guides) == 0 {
		t.Fatalf("no guides: %v", err)
	}
	shown := 0
	for _, page := range append(guides, "README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		script, want := blocks(string(text))
		if script == "" {
			continue
		}
		shown++
		t.Run(page, func(t *testing.T) {
			output, got := typeIn(t, script)
			if !slices.Equal(got, want) {
				t.Errorf("errorCodes %v, want %v\n%s", got, want, output)
			}
		})
	}
	if shown < 2 {
		t.Errorf("only %d pages show commands", shown)
	}
}

// What a page tells the operator to type beside a stopped server, whose data is in
// /var/lib/sessiond, works as it stands there, too.
func TestPagesSayWhatWorksOnAStoppedServer(t *testing.T) {
	guides, err := filepath.Glob("docs/*.md")
	if err != nil || len(guides) == 0 {
		t.Fatalf("no guides: %v", err)
	}
	h := newHome(t, services(nil))
	p := h.start(t)
	hire(t, p)
	stopped(t, p)
	bin := binFolder(t)
	shown := 0
	for _, page := range guides {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		script := ""
		for _, found := range onStopped.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(found[1], "/var/lib/sessiond") {
				script += found[1]
			}
		}
		if script == "" {
			continue
		}
		shown++
		t.Run(page, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"lib", "mnt/backups", "mnt/journal"} {
				if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for name, like := range map[string]string{
				"lib/sessiond.db": cli.DataFile, "mnt/backups/nightly.db": cli.DataFile, "lib/revocations.log": cli.JournalFile, "mnt/journal/revocations.log": cli.JournalFile,
			} {
				copyFile(t, filepath.Join(h.data, like), filepath.Join(dir, name))
			}
			script := strings.NewReplacer("/var/lib/sessiond", dir+"/lib", "/mnt/", dir+"/mnt/").Replace(script)
			cmd := exec.CommandContext(t.Context(), "sh", "-eux", "-c", script)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
			if output, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, output)
			}
		})
	}
	if shown < 2 {
		t.Errorf("only %d pages show such commands", shown)
	}
}

// binFolder is a folder with a program sessiond, which is this one.
func binFolder(t *testing.T) string {
	t.Helper()
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := fmt.Sprintf("#!/bin/sh\nexport %s=1\nexec '%s' -test.run='^TestMainProcess$' -- \"$@\"\n", childMark, self)
	if err := os.WriteFile(filepath.Join(dir, "sessiond"), []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

var (
	onStopped = regexp.MustCompile("(?s) *```bash\n(.*?) *```")
	block     = regexp.MustCompile("(?s)```sh\n(.*?)```")
	asked     = regexp.MustCompile(`curl -s `)
	answered  = regexp.MustCompile(`"?errorCode"?:? ?([0-9]+)`)
)

// blocks returns what a page has to type, and what each curl is answered with.
func blocks(page string) (script string, codes []string) {
	for _, found := range block.FindAllStringSubmatch(page, -1) {
		script += found[1] + "\n"
	}
	curls := asked.FindAllStringIndex(script, -1)
	for i, at := range curls {
		end := len(script)
		if i+1 < len(curls) {
			end = curls[i+1][0]
		}
		code := "0"
		if found := answered.FindStringSubmatch(script[at[1]:end]); found != nil {
			code = found[1]
		}
		codes = append(codes, code)
	}
	return script, codes
}

// typeIn runs a script beside a fresh server, and returns what it printed and
// the errorCode that each curl got.
func typeIn(t *testing.T, script string) (output string, codes []string) {
	t.Helper()
	p := newHome(t, services(nil)).start(t)
	dir := t.TempDir()
	if err := os.Symlink(binFolder(t), filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"data/admin-password": adminPassword + "\n", "answers": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	const noting = `curl() { command curl "$@" >answer || return; cat answer >>answers; echo >>answers; cat answer; }` + "\n"
	script = strings.ReplaceAll(script, "http://127.0.0.1:8080", p.url)
	cmd := exec.CommandContext(t.Context(), "sh", "-eu", "-c", noting+script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "URL="+p.url+"/api", "PASSWORD="+adminPassword)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	answers, err := os.ReadFile(filepath.Join(dir, "answers"))
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range answered.FindAllSubmatch(answers, -1) {
		codes = append(codes, string(found[1]))
	}
	return string(text), codes
}

// The files that proxies.md shows are those that are tested behind real proxies.
func TestProxiesPageShowsWhatIsTested(t *testing.T) {
	page, err := os.ReadFile("docs/proxies.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/proxies/*")
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "\n"+string(text)+"```\n") {
			t.Errorf("the page does not show %s", file)
		}
	}
}

// A link between pages leads somewhere.
func TestLinksLeadSomewhere(t *testing.T) {
	guides, err := filepath.Glob("docs/*.md")
	if err != nil || len(guides) == 0 {
		t.Fatalf("no guides: %v", err)
	}
	for _, page := range append(guides, "README.md", "SECURITY.md", "CHANGELOG.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), found[1])); err != nil {
				t.Errorf("%s: %s leads nowhere", page, found[1])
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

// A test that a page names is there.
func TestNamedTestsExist(t *testing.T) {
	written := ""
	for _, depth := range []string{"*_test.go", "*/*_test.go", "*/*/*_test.go"} {
		files, err := filepath.Glob(depth)
		if err != nil || len(files) == 0 {
			t.Fatalf("no tests: %v", err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			written += string(text)
		}
	}
	page, err := os.ReadFile("docs/availability.md")
	if err != nil {
		t.Fatal(err)
	}
	names := namedTest.FindAllString(string(page), -1)
	if len(names) < 10 {
		t.Errorf("the page names %d tests", len(names))
	}
	for _, name := range names {
		if !strings.Contains(written, "\nfunc "+name+"(") {
			t.Errorf("the page names %s, which there is not", name)
		}
	}
}

var namedTest = regexp.MustCompile(`\bTest[A-Z]\w+`)

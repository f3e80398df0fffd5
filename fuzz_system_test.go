//go:build linux && system

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sessiond/internal/campaign"
)

// Every fuzz target of the repository, four at a time, in ten rounds of a minute
// each. What one finds is kept by go test as a seed, in the package's testdata.
func TestSystemCampaignFuzz(t *testing.T) {
	const rounds, atOnce = 10, 4
	targets := fuzzTargets(t)
	turns := slices.Collect(slices.Chunk(targets, atOnce))
	campaign.Run(t, campaign.Plan{
		Name: "fuzzing", Trials: rounds * len(turns), Few: 1,
		About: fmt.Sprintf("a minute of four of %d targets at once", len(targets)),
		Must:  []string{"inputs that break a target"},
	}, func(r *campaign.Trial) {
		seconds := 5
		if r.Whole {
			seconds = 60
		}
		var group sync.WaitGroup
		outcomes := make([]fuzzed, atOnce)
		for i, target := range turns[r.N%len(turns)] {
			group.Go(func() { outcomes[i] = target.run(r.T, seconds) })
		}
		group.Wait()
		for _, o := range outcomes {
			r.Count("inputs that break a target", oneIf(o.broken))
			r.Count("inputs", o.inputs)
		}
	})
}

// fuzzTarget is a function of a package.
type fuzzTarget struct{ folder, name string }

type fuzzed struct {
	broken bool
	inputs int
}

var (
	fuzzFunction = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	fuzzInputs   = regexp.MustCompile(`(?:execs|gathering baseline coverage): (\d+)`) // the seeds come first

	// All that go test says where it found nothing, but its workers were still busy when
	// the time was over: it takes that for a failure.
	fuzzOver = regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w+ \([\d.]+s\)\n    context deadline exceeded\nFAIL\n`)
)

// fuzzTargets finds all, those of small packages, which are built fast, first.
func fuzzTargets(t *testing.T) (all []fuzzTarget) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, found := range fuzzFunction.FindAllStringSubmatch(string(text), -1) {
			all = append(all, fuzzTarget{filepath.Dir(path), found[1]})
		}
		return err
	})
	if err != nil || len(all) < 20 {
		t.Fatalf("found %d targets, %v", len(all), err)
	}
	slices.SortFunc(all, func(a, b fuzzTarget) int { return strings.Compare(b.folder+" "+b.name, a.folder+" "+a.name) })
	return all
}

func (f fuzzTarget) run(t *testing.T, seconds int) (o fuzzed) {
	cmd := exec.CommandContext(t.Context(), "go", "test", "-run", "^$", "-fuzz", "^"+f.name+"$", "-fuzztime", strconv.Itoa(seconds)+"s",
		"-parallel", "1", "-fuzzminimizetime", "1s", "./"+f.folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // its workers too
	out, err := cmd.CombinedOutput()
	if err != nil && (!fuzzOver.Match(out) || bytes.Contains(out, []byte("Failing input written"))) {
		o.broken = true
		t.Errorf("%s of %s: %v\n%s", f.name, f.folder, err, out)
	}
	for _, found := range fuzzInputs.FindAllSubmatch(out, -1) {
		n, err := strconv.Atoi(string(found[1]))
		if err != nil {
			t.Error(err)
		}
		o.inputs = max(o.inputs, n)
	}
	if o.inputs == 0 {
		t.Errorf("%s of %s tried nothing:\n%s", f.name, f.folder, out)
	}
	return o
}

// Package campaign runs trials by the hundreds, in slices that may be cut off and
// gone on with, and writes down what came of them. Only tests import it.
package campaign

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sessiond/internal/clock"
)

// Variables of the environment. Without Folder, Run is an ordinary test of a few
// trials.
const (
	Folder = "CAMPAIGN_DIR"   // where the counts are kept between slices
	Until  = "CAMPAIGN_UNTIL" // when the slice ends, in seconds since 1970: no trial begins after it
	Page   = "CAMPAIGN_PAGE"  // the page that gets a line for each campaign that is complete
)

// A Plan is a campaign.
type Plan struct {
	Name   string // as the page has it: "kill -9 under load"
	Trials int    // of the whole campaign
	Few    int    // of an ordinary test
	About  string // what one trial is, in a sentence without its end

	// Must are figures that any trial makes wrong by counting one of them; they stand
	// on the page even though they are 0.
	Must []string
}

// A Trial is one of many. Its methods are for the goroutine of the test.
type Trial struct {
	T *testing.T
	N int // from 0 to one below the number of trials

	// Whole is false in an ordinary test, whose trials may be smaller than those that
	// the page tells of.
	Whole bool

	counts *counts
	must   []string
}

// counts are what is kept between slices.
type counts struct {
	Done    int              `json:"done"`
	Seconds float64          `json:"seconds"`
	Sums    map[string]int64 `json:"sums,omitempty"`
	Most    map[string]int64 `json:"most,omitempty"`
	Commits []string         `json:"commits"` // of the slices
	Written bool             `json:"written"`
}

// Count adds n to a figure. Of one that must be 0 it fails the test.
func (r *Trial) Count(figure string, n int) {
	r.T.Helper()
	r.counts.Sums[figure] += int64(n)
	if n != 0 && slices.Contains(r.must, figure) {
		r.T.Errorf("trial %d: %s: %d", r.N, figure, n)
	}
}

// Most keeps the largest value of a figure.
func (r *Trial) Most(figure string, n int64) {
	r.counts.Most[figure] = max(r.counts.Most[figure], n)
}

// Run makes trials, one after the other, until there are enough of them, one fails,
// or the time of the slice is over. A trial that failed is not counted: the next
// slice begins with it.
func Run(t *testing.T, p Plan, trial func(r *Trial)) {
	t.Helper()
	dir := os.Getenv(Folder)
	if dir == "" {
		c := fresh()
		for n := range p.Few {
			if !p.one(t, &c, n, trial) {
				return
			}
		}
		t.Logf("%s: %s", p.Name, p.figures(&c))
		return
	}
	path := filepath.Join(dir, strings.NewReplacer(" ", "-", "/", "-").Replace(p.Name)+".json")
	c, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	until, err := strconv.ParseInt(os.Getenv(Until), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", Until, err)
	}
	at, system := commit(t), clock.NewSystem()
	for c.Done < p.Trials && system.Now().Unix() < until {
		began, next := system.Now(), c
		next.Sums, next.Most = maps.Clone(c.Sums), maps.Clone(c.Most) // which the trial may spoil
		if !p.one(t, &next, c.Done, trial) {
			return
		}
		c = next
		c.Done++
		c.Seconds += system.Now().Sub(began).Seconds()
		if !slices.Contains(c.Commits, at) {
			c.Commits = append(c.Commits, at)
		}
		if err := save(path, &c); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s: %d of %d: %s", p.Name, c.Done, p.Trials, p.figures(&c))
	if c.Done < p.Trials || c.Written {
		return
	}
	if err := write(os.Getenv(Page), p.line(&c, system.Now())); err != nil {
		t.Fatal(err)
	}
	c.Written = true
	if err := save(path, &c); err != nil {
		t.Fatal(err)
	}
}

// one makes a trial, and reports whether it went well.
func (p *Plan) one(t *testing.T, c *counts, n int, trial func(r *Trial)) bool {
	return t.Run("trial "+strconv.Itoa(n), func(t *testing.T) {
		for _, figure := range p.Must {
			c.Sums[figure] += 0
		}
		trial(&Trial{T: t, N: n, Whole: os.Getenv(Folder) != "", counts: c, must: p.Must})
	})
}

// figures are the counts as the page has them, the most important first.
func (p *Plan) figures(c *counts) string {
	var all []string
	for _, figure := range p.Must {
		all = append(all, fmt.Sprintf("**%d** %s", c.Sums[figure], figure))
	}
	for _, figure := range slices.Sorted(maps.Keys(c.Sums)) {
		if !slices.Contains(p.Must, figure) {
			all = append(all, fmt.Sprintf("%s %s", thousands(c.Sums[figure]), figure))
		}
	}
	for _, figure := range slices.Sorted(maps.Keys(c.Most)) {
		all = append(all, fmt.Sprintf("%s at most %s", figure, thousands(c.Most[figure])))
	}
	return strings.Join(all, "; ")
}

func (p *Plan) line(c *counts, now time.Time) string {
	took := time.Duration(c.Seconds * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("| %s | %s | %s | %s: %s | %v |\n",
		now.Format(time.DateOnly), strings.Join(c.Commits, ", "), p.Name,
		thousands(int64(c.Done))+" × "+p.About, p.figures(c), took)
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for at := len(digits) - 3; at > 0 && digits[at-1] != '-'; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

func fresh() counts { return counts{Sums: map[string]int64{}, Most: map[string]int64{}} }

func load(path string) (counts, error) {
	c := fresh()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	return c, err
}

// save replaces the counts at path at once: a slice may be cut off.
func save(path string, c *counts) error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// write appends a line to a page, if there is one.
func write(page, line string) error {
	if page == "" {
		return nil
	}
	f, err := os.OpenFile(page, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// commit names what is tested, to which the page's new lines do not belong.
func commit(t *testing.T) string {
	t.Helper()
	git := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "git", args...).Output() //nolint:gosec // words of this function
		if err != nil {
			t.Fatalf("git %s: %v", args[0], err)
		}
		return strings.TrimSpace(string(out))
	}
	at := git("rev-parse", "--short", "HEAD")
	for name := range strings.Lines(git("diff", "--name-only", "HEAD", "--", ":/")) {
		if !strings.HasSuffix(os.Getenv(Page), "/"+strings.TrimSpace(name)) {
			return at + "-dirty"
		}
	}
	return at
}

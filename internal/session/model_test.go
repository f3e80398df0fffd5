package session_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sessiond/internal/config"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/bolt"
	"sessiond/store/mem"
)

// The keeper, its table and its maintenance against a map that knows nothing of
// any of them: after each step both agree on who lives until when, on what became
// of the dead, on counts, lists and limits.
//
// -rapid.checks says how many sequences are run, -rapid.seed which, -rapid.steps how
// long they are on average.

// steps are what a sequence is made of. Those at the front are drawn more often.
func (m *model) steps() []modelStep {
	return []modelStep{
		{"issue", m.issue},
		{"use", m.use},
		{"log in", m.login},
		{"rotate", m.rotate},
		{"wait", m.wait},
		{"alter", m.alter},
		{"end some", m.endSome},
		{"log out", m.logout},
		{"maintain partly", m.maintainPartly},
		{"reauthenticate", m.reauthenticate},
		{"refresh", m.refresh},
		{"join", m.join},
		{"redeem", m.redeem},
		{"end many", m.endMany},
		{"restart", m.restart},
		{"issue", m.issue},
		{"log in", m.login},
		{"use", m.use},
		{"wait", m.wait},
		{"rotate", m.rotate},
		{"clock back", m.back},
		{"maintain", m.maintain},
		{"list", m.list},
		{"second keeper", m.secondKeeper},
		{"list client", m.listClient},
		{"remove", m.remove},
		{"activate", m.activate},
		{"join", m.join},
		{"used from", m.usedFrom},
		{"use wrongly", m.useWrongly},
	}
}

type modelStep struct {
	name string
	do   func(*rapid.T)
}

// GoString is how rapid shows a draw.
func (s modelStep) GoString() string { return s.name }

// occurrences are what has to have happened in a run: a step that never succeeds,
// or is never refused, shows nothing.
var occurrences = []string{
	"issue: ok", "issue: sessionLimitReached", "issue: sessionLimitPerIpAddress", "issue: sessionLimitPerUsername", "issue: loginFailed", "issue: conflict", "issue: repeated",
	"log in: ok", "log in: sessionLimitPerUsername", "log in: conflict", "log in: repeated",
	"reauthenticate: ok", "reauthenticate: badParam", "reauthenticate: invalidAuthToken",
	"validate: good", "validate: dead", "validate old: good", "validate old: theft", "validate old: dead key", "validate old: forgotten",
	"refresh: ok", "refresh: dead",
	"rotate: ok", "rotate: key", "rotate: same successor", "rotate: theft", "rotate: dead",
	"alter: ok", "alter: refused by the caller", "alter: another revision", "alter: dead", "alter: idle at once",
	"log out: ok", "log out: dead", "end some: ok", "end some: dead",
	"end account: some", "end account: none", "end account: spared", "end account: notFound",
	"end server: some", "end realm: some",
	"change password: ok", "change password: invalidAuthToken",
	"disable: some", "enable", "drop: some", "drop: missing", "drop: created anew",
	"died: ended", "died: revoked", "died: revoked again", "died: replaced", "died: removed", "died: expired", "died: theft", "died: idle", "died: wall", "died: purged",
	"restart: crash", "restart: behind",
	"join: ok", "join: invalidAuthToken", "list client: alone", "list client: shared", "list client: purged",
	"remove: living", "remove: ended", "remove: purged", "activate: shared",
	"asked", "redeem: loginFailed", "evicted: evictOldest", "evicted: evictLeastRecentlyUsed", "evicted: evictNextToExpire", "evicted: evictAll",
	"clock back", "shown as abandoned", "list: living", "list: all",
}

// rarities are what has to have happened in a long run.
var rarities = []string{
	"join: sessionLimitPerClient", "redeem: ok", "redeem: notFound", "evicted: ask",
	"restart: ended while it was down", "reauthenticate: sessionLimitPerIpAddress", "end realm: spared", "end server: spared",
	"end server: dry run", "end some: a pending theft", "change password: spared", "restart: a theft forgotten",
}

// longRun is how many sequences are one.
const longRun = 10_000

func TestKeeperBehavesLikeAMap(t *testing.T) {
	run(t, 1000, occurrences, func() opener {
		s := mem.New()
		return func() (store.Store, error) { return s, nil }
	})
}

// On the durable store a restart opens the file anew: by turns the one that was
// closed, and what a kill leaves of one that is not.
func TestKeeperBehavesLikeAMapOnBolt(t *testing.T) {
	dir, n := t.TempDir(), 0
	run(t, 50, nil, func() opener {
		n++
		path := filepath.Join(dir, fmt.Sprint(n))
		var open *bolt.Store
		restarts := 0
		return func() (_ store.Store, err error) {
			if restarts++; open != nil {
				var left []byte
				if left, err = os.ReadFile(path); err != nil {
					return nil, err
				}
				if err := open.Close(); err != nil {
					return nil, err
				}
				if restarts%2 == 0 {
					path += "k"
					err = os.WriteFile(path, left, 0o600)
				}
			}
			if err == nil {
				open, err = bolt.Open(t.Context(), path, bolt.Options{})
			}
			return open, err
		}
	})
}

// An opener returns a store, and each time after that the same one opened anew.
type opener func() (store.Store, error)

// run checks so many sequences, or as many as -rapid.checks says, each on a store
// of its own, and whether all happened that must.
func run(t *testing.T, sequences int, must []string, fresh func() opener) {
	defer preset(t, "rapid.checks", sequences)()
	defer preset(t, "rapid.steps", modelSteps)()
	seen := tally{}
	longest, all, done := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, fresh(), seen)
		step := rapid.SampledFrom(m.steps())
		t.Repeat(map[string]func(*rapid.T){
			"":     m.check,
			"step": func(t *rapid.T) { step.Draw(t, "step").do(t) },
		})
		done++
		all += m.taken
		longest = max(longest, m.taken)
	})
	if t.Failed() {
		return
	}
	t.Logf("%d sequences, %d steps, the longest of %d", done, all, longest)
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%7d %s", seen[what], what)
	}
	if done >= longRun {
		must = slices.Concat(must, rarities)
	}
	for _, what := range must {
		if seen[what] == 0 {
			t.Errorf("in no sequence: %s", what)
		}
	}
	if len(must) > 0 && longest < 100 {
		t.Errorf("the longest sequence is of %d steps", longest)
	}
}

// preset sets a flag that the command line leaves alone, until restore.
func preset(t *testing.T, name string, to int) (restore func()) {
	if flagged(name) {
		return func() {}
	}
	value := flag.Lookup(name).Value
	before := value.String()
	if err := value.Set(fmt.Sprint(to)); err != nil {
		t.Fatal(err)
	}
	return func() { _ = value.Set(before) }
}

func flagged(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// tally counts what happened in all sequences.
type tally map[string]int

func (s tally) saw(format string, args ...any) { s[fmt.Sprintf(format, args...)]++ }

var modelLimits = session.Limits{Total: 9, PerAddress: 3, PerAccount: 2}

const (
	modelSteps     = 90   // of a sequence, on average
	modelTolerance = 2    // seconds after the idle time in which a session still lives
	modelGrace     = 30   // seconds in which a rotated token is good
	modelRetention = 3600 // seconds for which tombstones are kept
	modelRepeats   = 600  // seconds in which a log-in can be repeated
	modelPerClient = 3    // sessions
	modelTickets   = 300  // seconds for which a ticket is good
	modelOld       = 3    // old tokens of a session that are known
)

func modelConfig(t *rapid.T) *config.Config {
	c := limited(modelLimits)
	policy := rapid.SampledFrom(policies)
	c.Defaults.OnSessionLimit = config.OnLimit{
		Total: policy.Draw(t, "at the total limit"), PerIPAddress: policy.Draw(t, "at an address's"), PerClient: policy.Draw(t, "at a client's"),
		PerUsername: rapid.SampledFrom(append([]string{config.Ask}, policies...)).Draw(t, "at an account's"),
	}
	c.Defaults.MaxSessionsPerClient = modelPerClient
	c.Defaults.RotationGraceSeconds, c.Defaults.IdleToleranceSeconds = modelGrace, modelTolerance
	c.Defaults.RetentionUnit, c.Defaults.RetentionPeriod = "hour", 1
	return c
}

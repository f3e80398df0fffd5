package event_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sessiond/internal/event"
	"sessiond/store"
	"sessiond/store/mem"
)

// What has a line, and what has none.
func TestJournalNotesRevocations(t *testing.T) {
	for _, tt := range []struct {
		event event.Event
		want  bool
	}{
		{event.Event{Kind: event.SessionEnded, Permanent: true}, true},
		{event.Event{Kind: event.SessionEnded}, false}, // no session outlives a restore
		{event.Event{Kind: event.SessionEnded, Username: `"permanentSession":true`}, false},
		{event.Event{Kind: event.SessionRotated, Permanent: true}, true},
		{event.Event{Kind: event.SessionRotated}, false},
		{event.Event{Kind: event.SessionCreated, Permanent: true}, false},
		{event.Event{Kind: event.SessionAltered, Permanent: true}, false},
		{event.Event{Kind: event.SessionExpired, Permanent: true}, false}, // computed
		{event.Event{Kind: event.AllSessionsEnded, Permanent: true}, true},
		{event.Event{Kind: event.AllSessionsEnded}, false},
		{event.Event{Kind: event.AccountSessionsEnded}, true},
		{event.Event{Kind: event.AccountAltered, Changed: []string{"metadata", "enabled"}}, true},
		{event.Event{Kind: event.AccountAltered, Changed: []string{"metadata", "accountDescription"}}, false},
		{event.Event{Kind: event.AccountDropped}, true},
		{event.Event{Kind: event.AccountCreated}, false},
		{event.Event{Kind: event.PasswordChanged}, true},
		{event.Event{Kind: event.RoleAltered, Changed: []string{"permissions"}}, true},
		{event.Event{Kind: event.RoleAltered, Changed: []string{"description"}}, false},
		{event.Event{Kind: event.RoleDropped}, true},
		{event.Event{Kind: event.StoreRestored}, true},
		{event.Event{Kind: event.LoginFailed, Username: "sessionEnded"}, false},
	} {
		s := newStory(t)
		j := s.open()
		s.happen(tt.event)
		var want []event.Kind
		if tt.want {
			want = []event.Kind{tt.event.Kind}
		}
		if got := s.noted(); !slices.Equal(got, want) {
			t.Errorf("%+v: noted %v, want %v", tt.event, got, want)
		}
		s.close(j)
	}
}

// However the file looks when a server starts, the journal is complete then. What it
// says of the file is what is to be logged.
func TestJournalIsCompletedAtTheStart(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil  func(text string) string
		logged string
		keeps  bool // the file as it was
	}{
		"as it was left":          {func(text string) string { return text }, "", false},
		"it is gone":              {func(string) string { return "" }, "", false},
		"the last line is cut":    {func(text string) string { return text[:len(text)-20] }, "cut off", false},
		"its line break is":       {func(text string) string { return text[:len(text)-1] }, "cut off", false},
		"only half a line is":     {func(text string) string { return text[:40] }, "cut off", false},
		"the last lines are gone": {func(text string) string { return strings.Join(strings.SplitAfter(text, "\n")[:2], "") }, "", false},
		"a letter is changed":     {func(text string) string { return strings.Replace(text, "sessionEnded", "sessionEndet", 1) }, "not as it was written", true},
		"a sum is changed":        {func(text string) string { return strings.Replace(text, `"sum":"`, `"sum":"0`, 1) }, "not as it was written", true},
		"a line is gone": {func(text string) string {
			return strings.Join(slices.Delete(strings.SplitAfter(text, "\n"), 2, 3), "")
		}, "not as it was written", true},
		"a line stands twice": {func(text string) string {
			lines := strings.SplitAfter(text, "\n")
			return strings.Join(slices.Insert(lines, 2, lines[1]), "")
		}, "not as it was written", true},
		"zeros":          {func(text string) string { return text[:200] + strings.Repeat("\x00", len(text)-200) }, "cut off", false},
		"a line of ours": {func(text string) string { return text + "{}\n" }, "not as it was written", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			j := s.open()
			s.end(1, 2, 3)
			s.close(j)
			s.end(4, 5) // nobody notes it
			text := s.text()
			s.write(tt.spoil(text))
			s.close(s.open())
			if got := s.handles(); !slices.Equal(got, []string{"1", "2", "3", "4", "5"}) {
				t.Errorf("the journal names %v", got)
			}
			if logged := strings.Join(s.logged, "\n"); !strings.Contains(logged, tt.logged) || (logged == "") != (tt.logged == "") {
				t.Errorf("logged %q, want %q", logged, tt.logged)
			}
			kept, err := os.ReadFile(s.path + ".damaged")
			if (err == nil) != tt.keeps || tt.keeps && string(kept) != tt.spoil(text) {
				t.Errorf("kept %q, %v", kept, err)
			}
		})
	}
}

// Nobody relies on a journal that may not know all.
func TestRevokedRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*story)
		want   string
	}{
		"none":                  {func(s *story) { s.must(os.Remove(s.path)) }, "there is none"},
		"an empty one":          {func(s *story) { s.write("") }, "is empty"},
		"one that is cut off":   {func(s *story) { s.write(s.text()[:len(s.text())-1]) }, "cut off"},
		"one that was changed":  {func(s *story) { s.write(strings.Replace(s.text(), "sh_2", "sh_9", 1)) }, "not as it was written"},
		"one of another server": {func(s *story) { s.server = "other" }, "of another server"},
		"one that began later": {func(s *story) {
			s.must(event.Purge(s.t.Context(), s.store, late, func() bool { return true }))
			s.must(os.Remove(s.path))
			s.close(s.open())
		}, "began after the backup"},
		"one of another history": {func(s *story) {
			other := newStory(s.t)
			other.end(7, 8, 9, 10)
			s.store = other.store
		}, "an older copy, or another's"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			s.end(1)
			backup := s.head()
			j := s.open()
			s.end(2, 3)
			s.close(j)
			tt.change(s)
			_, err := event.Revoked(t.Context(), s.path, s.server, s.store, backup)
			if !errors.Is(err, event.ErrJournal) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// What is noted is what happened after the backup, and no more.
func TestRevokedSince(t *testing.T) {
	s := newStory(t)
	j := s.open()
	var heads []store.Head
	for n := range 6 {
		heads = append(heads, s.head())
		s.end(n)
	}
	s.close(j)
	for n, head := range heads {
		since, err := event.Revoked(t.Context(), s.path, s.server, s.store, head)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := handlesOf(since), []string{"0", "1", "2", "3", "4", "5"}[n:]; !slices.Equal(got, want) {
			t.Errorf("since position %d it names %v, want %v", head.Seq, got, want)
		}
	}
}

// A store that knows less than its journal, or another's, is none that a server may
// start on; one that a restore made is.
func TestJournalKnowsItsStore(t *testing.T) {
	s := newStory(t)
	s.end(1, 2)
	copied := s.copy()
	j := s.open()
	s.end(3, 4)
	s.close(j)
	whole := s.store
	for name, tt := range map[string]struct {
		store  func() *mem.Store
		server string
		want   string
	}{
		"an older copy":   {func() *mem.Store { return copied }, "server", "position 4"},
		"another history": {func() *mem.Store { s.store = copied; c := s.copy(); s.store = c; s.end(8, 9, 10); return c }, "server", "position 4"},
		"another server":  {func() *mem.Store { return whole }, "other", "another server"},
		"the store":       {func() *mem.Store { return whole }, "server", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s.store, s.server = tt.store(), tt.server
			before := s.text()
			j, err := event.OpenJournal(t.Context(), s.path, s.deps())
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				s.close(j)
				return
			}
			if !errors.Is(err, event.ErrJournal) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if s.text() != before {
				t.Error("the journal was changed")
			}
		})
	}
}

// One write of the file is enough for all that became durable together, and what
// needs no line costs none.
func TestJournalWritesOnceForMany(t *testing.T) {
	s := newStory(t)
	f := &fed{Store: s.store}
	deps := s.deps()
	deps.Store = f
	j, err := event.OpenJournal(t.Context(), s.path, deps)
	if err != nil {
		t.Fatal(err)
	}
	var d *flaky
	j.On(func(inner event.Disk) event.Disk { d = &flaky{Disk: inner}; return d })
	for n, more := range []bool{true, true, false} {
		f.tell(store.Change{Entries: []store.Entry{s.entry(n, event.SessionEnded)}, More: more})
	}
	f.tell(store.Change{Entries: []store.Entry{s.entry(3, event.SessionCreated)}})
	f.tell(store.Change{Entries: []store.Entry{s.entry(1, event.SessionEnded)}}) // it was told before
	if d.calls != 2 {
		t.Errorf("%d calls for the file, want a write and a sync", d.calls)
	}
	if got := s.handles(); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("the journal names %v", got)
	}
}

// Bytes that are no journal are none, and what is made of them is complete.
func FuzzJournal(f *testing.F) {
	s := newStory(f)
	j := s.open()
	s.end(1, 2, 3)
	s.close(j)
	f.Add([]byte(s.text()))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := newStory(t)
		s.end(1, 2, 3)
		s.write(string(text))
		if _, err := event.Revoked(t.Context(), s.path, s.server, s.store, store.Head{}); err != nil && !errors.Is(err, event.ErrJournal) {
			t.Fatal(err)
		}
		j, err := event.OpenJournal(t.Context(), s.path, s.deps())
		if errors.Is(err, event.ErrJournal) {
			return // it is another's
		}
		if err != nil {
			t.Fatal(err)
		}
		s.close(j)
		if got := s.handles(); !slices.Equal(got, []string{"1", "2", "3"}) {
			t.Errorf("the journal names %v", got)
		}
	})
}

// A story is a store in memory, of which some journal is kept.
type story struct {
	t         testing.TB
	store     *mem.Store
	path      string
	server    string
	logged    []string
	leftFails bool
}

// late is after all that happens.
var late = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)

func newStory(t testing.TB) *story {
	return &story{t: t, store: mem.New(), path: filepath.Join(t.TempDir(), "revocations.log"), server: "server"}
}

func (s *story) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) deps() event.JournalDeps {
	return event.JournalDeps{
		Store: s.store, Server: s.server, Failed: func(err error) { s.logged = append(s.logged, err.Error()) },
		Left: func(_ context.Context, e *event.Event) ([]byte, error) {
			if s.leftFails {
				return nil, errors.New("not now")
			}
			if e.Kind == event.AccountAltered {
				return []byte(`{"account":{}}`), nil
			}
			return nil, nil
		},
	}
}

func (s *story) open() *event.Journal {
	s.t.Helper()
	j, err := event.OpenJournal(s.t.Context(), s.path, s.deps())
	s.must(err)
	return j
}

func (s *story) close(j *event.Journal) { s.t.Helper(); s.must(j.Close(s.t.Context())) }

func (s *story) happen(e event.Event) {
	s.t.Helper()
	e.Time = late.Add(-time.Hour)
	var tx store.Tx
	event.Append(&tx, e)
	_, err := s.store.Commit(s.t.Context(), tx)
	s.must(err)
}

// end ends keys, named by numbers.
func (s *story) end(keys ...int) {
	s.t.Helper()
	for _, n := range keys {
		s.happen(event.Event{Kind: event.SessionEnded, Permanent: true, SessionHandle: fmt.Sprint("sh_", n)})
	}
}

// entry is an event that nobody committed.
func (s *story) entry(n int, kind event.Kind) store.Entry {
	var tx store.Tx
	event.Append(&tx, event.Event{Time: late, Kind: kind, Permanent: true, SessionHandle: fmt.Sprint("sh_", n)})
	return store.Entry{Seq: uint64(n) + 1, Data: tx.Append[0]}
}

func (s *story) head() store.Head {
	s.t.Helper()
	last, err := store.ReadLogBack(s.t.Context(), s.store, 0, 1)
	s.must(err)
	if len(last) == 0 {
		return store.Head{}
	}
	return store.Head{Seq: last[0].Seq, Hash: last[0].Hash}
}

// copy is a store with the same log.
func (s *story) copy() *mem.Store {
	s.t.Helper()
	other := mem.New()
	entries, err := store.ReadLog(s.t.Context(), s.store, 0, 0)
	s.must(err)
	for i := range entries {
		_, err := other.Commit(s.t.Context(), store.Tx{Append: [][]byte{entries[i].Data}})
		s.must(err)
	}
	return other
}

func (s *story) text() string {
	s.t.Helper()
	text, err := os.ReadFile(s.path)
	s.must(err)
	return string(text)
}

func (s *story) write(text string) { s.t.Helper(); s.must(os.WriteFile(s.path, []byte(text), 0o600)) }

// revoked is all that the journal names.
func (s *story) revoked() []event.Revocation {
	s.t.Helper()
	since, err := event.Revoked(s.t.Context(), s.path, s.server, s.store, store.Head{})
	s.must(err)
	return slices.DeleteFunc(since, func(r event.Revocation) bool { return r.Event.Kind == "" })
}

func (s *story) handles() []string { s.t.Helper(); return handlesOf(s.revoked()) }

func handlesOf(since []event.Revocation) (handles []string) {
	for _, r := range since {
		if r.Event.Kind != "" {
			handles = append(handles, strings.TrimPrefix(r.Event.SessionHandle, "sh_"))
		}
	}
	return handles
}

func (s *story) noted() (kinds []event.Kind) {
	s.t.Helper()
	for _, r := range s.revoked() {
		kinds = append(kinds, r.Event.Kind)
		if left := r.Left != nil; left != (r.Event.Kind == event.AccountAltered) {
			s.t.Errorf("what is left of %v: %s", r.Event.Kind, r.Left)
		}
	}
	return kinds
}

// fed is a store whose watcher is told what a test wants.
type fed struct {
	store.Store

	tell store.Watcher
}

func (f *fed) Watch(_ store.Rev, w store.Watcher) (func(), error) {
	f.tell = w
	return func() {}, nil
}

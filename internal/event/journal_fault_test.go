package event_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"sessiond/internal/event"
	"sessiond/store"
)

// Whatever call for the file fails, and once or for good: whoever reads the journal
// after a change was answered finds it in there, or that he cannot rely on it. It is
// complete again once it can be written, and after the next start. Events without a
// line make no difference.
func TestJournalThatCannotBeWritten(t *testing.T) {
	for call := 1; ; call++ {
		for _, forGood := range []bool{false, true} {
			s := newStory(t)
			s.end(0)
			j := s.open()
			d := &flaky{fails: call, forGood: forGood}
			j.On(func(inner event.Disk) event.Disk { d.Disk = inner; return d })
			for n := 1; n <= 6; n++ {
				s.end(n)
				s.happen(event.Event{Kind: event.SessionCreated})
				_, err := event.Revoked(t.Context(), s.path, s.server, s.store, store.Head{})
				if err == nil && len(s.handles()) != n+1 {
					t.Fatalf("call %d fails: %v is all that the journal names after %d ends", call, s.handles(), n)
				}
				if err != nil && !forGood && n > call {
					t.Errorf("call %d failed, and still after the end %d: %v", call, n, err)
				}
			}
			failed := d.calls >= call
			if told := len(s.logged) > 0; told != failed {
				t.Errorf("call %d: told of a failure: %v", call, s.logged)
			}
			_ = j.Close(t.Context()) // it may fail too
			s.close(s.open())
			if got := s.handles(); !slices.Equal(got, []string{"0", "1", "2", "3", "4", "5", "6"}) {
				t.Errorf("call %d fails: after a start the journal names %v", call, got)
			}
			if !failed {
				if call < 10 {
					t.Errorf("only %d calls", call-1)
				}
				return
			}
		}
	}
}

// A journal that could not even be begun says so until it can, and what it was to
// begin with is not forgotten: that it is of this server, and of which events.
func TestJournalThatCannotBeBegun(t *testing.T) {
	for name, spoil := range map[string]func(*story){
		"the first": func(*story) {},
		"after a gap": func(s *story) {
			s.close(s.open())
			s.end(1)
			s.must(event.Purge(t.Context(), s.store, late, func() bool { return true }))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			s.end(0)
			backup := s.head()
			spoil(s)
			s.end(2)
			s.leftFails = true
			j := s.open()
			if _, err := event.Revoked(t.Context(), s.path, s.server, s.store, s.head()); !errors.Is(err, event.ErrJournal) {
				t.Errorf("not begun: %v, want ErrJournal", err)
			}
			s.leftFails = false
			s.end(3)
			s.close(j)
			_, err := event.Revoked(t.Context(), s.path, s.server, s.store, backup)
			if gap := name != "the first"; gap != errors.Is(err, event.ErrJournal) || !gap && err != nil {
				t.Errorf("begun: %v", err)
			}
			s.close(s.open())
		})
	}
}

// While the file cannot be written, the log is not read for it again and again.
func TestJournalThatWaits(t *testing.T) {
	s := newStory(t)
	s.end(0)
	reads := &reads{Store: s.store}
	deps := s.deps()
	deps.Store = reads
	j, err := event.OpenJournal(t.Context(), s.path, deps)
	s.must(err)
	d := &flaky{fails: 1, forGood: true}
	j.On(func(inner event.Disk) event.Disk { d.Disk = inner; return d })
	before := reads.n
	for range 1000 {
		s.happen(event.Event{Kind: event.SessionCreated})
	}
	s.end(1, 2, 3)
	if n := reads.n - before; n > 0 {
		t.Errorf("the log was read %d times", n)
	}
	d.fails = 0
	s.end(4)
	if got := s.handles(); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
		t.Errorf("the journal names %v", got)
	}
	s.close(j)
}

// What takes several writes does not look whole before the last of them.
func TestJournalThatIsLongBehind(t *testing.T) {
	s := newStory(t)
	s.end(0)
	s.leftFails = true
	j := s.open()
	var tx store.Tx
	for range store.MaxOps {
		event.Append(&tx, event.Event{Kind: event.AccountAltered, Username: strings.Repeat("n", 1000), Changed: []string{"enabled"}})
	}
	for range 12 {
		_, err := s.store.Commit(t.Context(), tx)
		s.must(err)
	}
	s.leftFails = false
	synced := 0
	j.On(func(inner event.Disk) event.Disk {
		return &watched{inner, func() {
			synced++
			if got, err := event.Revoked(t.Context(), s.path, s.server, s.store, store.Head{}); err == nil && len(got) < 12*store.MaxOps {
				t.Errorf("after %d syncs the journal seems to be whole with %d lines", synced, len(got))
			}
		}}
	})
	s.end(1)
	if got := len(s.revoked()); got != 12*store.MaxOps+2 || synced < 3 {
		t.Errorf("%d lines after %d syncs", got, synced)
	}
	s.close(j)
}

// A store that the journal's last lines are not of is refused, and what had been torn
// stays so: nobody may rely on what is left of it.
func TestJournalThatWasTornStaysSo(t *testing.T) {
	s := newStory(t)
	s.end(0)
	backup, older := s.head(), s.copy()
	j := s.open()
	s.end(1, 2)
	s.close(j)
	s.write(s.text()[:len(s.text())-1])
	s.store = older
	if _, err := event.OpenJournal(t.Context(), s.path, s.deps()); !errors.Is(err, event.ErrJournal) {
		t.Fatalf("an older copy: %v", err)
	}
	if _, err := event.Revoked(t.Context(), s.path, s.server, s.store, backup); !errors.Is(err, event.ErrJournal) {
		t.Errorf("what is left: %v, want ErrJournal", err)
	}
}

// A line that cannot be made for now is made later.
func TestJournalThatLacksWhatIsLeft(t *testing.T) {
	s := newStory(t)
	j := s.open()
	s.leftFails = true
	s.end(1)
	if _, err := event.Revoked(t.Context(), s.path, s.server, s.store, store.Head{}); !errors.Is(err, event.ErrJournal) {
		t.Errorf("%v, want ErrJournal", err)
	}
	s.leftFails = false
	s.happen(event.Event{Kind: event.PasswordChanged})
	if got := s.noted(); !slices.Equal(got, []event.Kind{event.SessionEnded, event.PasswordChanged}) {
		t.Errorf("noted %v", got)
	}
	s.close(j)
}

// reads counts how often a store is read.
type reads struct {
	store.Store

	n int
}

func (r *reads) List(ctx context.Context, what store.Range) ([]store.Item, error) {
	r.n++
	return r.Store.List(ctx, what)
}

// watched is a file that somebody looks at after each sync.
type watched struct {
	event.Disk

	look func()
}

func (d *watched) Sync() error {
	err := d.Disk.Sync()
	d.look()
	return err
}

// flaky is a file of which a call fails, or all from that on.
type flaky struct {
	event.Disk

	fails, calls int
	forGood      bool
}

var errDisk = errors.New("no space left")

func (d *flaky) next() error {
	if d.calls++; d.calls == d.fails || d.forGood && d.fails > 0 && d.calls > d.fails {
		return errDisk
	}
	return nil
}

func (d *flaky) WriteAt(p []byte, at int64) (int, error) {
	if err := d.next(); err != nil {
		n, _ := d.Disk.WriteAt(p[:len(p)/2], at) // as a full disk does
		return n, err
	}
	return d.Disk.WriteAt(p, at)
}

func (d *flaky) Sync() error {
	if err := d.next(); err != nil {
		return err
	}
	return d.Disk.Sync()
}

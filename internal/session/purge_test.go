package session_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// A purge begins a little after the start, every ten minutes, and at once when the
// retention was changed; and not otherwise.
func TestWhenAPurgeBegins(t *testing.T) {
	for _, tt := range []struct {
		name   string
		second int
		change string // unit of the retention from then on
		purged bool
	}{
		{"the first second", 1, "", false},
		{"soon after the start", 10, "", true},
		{"the next second", 11, "", false},
		{"ten minutes later", 610, "", true},
		{"a shorter retention", 17, "day", true},
		{"a longer retention", 17, "year", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, unlimited())
			v := w.over("ann")
			w.maintain()
			w.clock.Advance(28*24*time.Hour + time.Second)
			if tt.change != "" {
				w.clock.Advance(-24 * time.Hour)
				w.config.Defaults.RetentionUnit = tt.change
			}
			if err := w.Maintenance(t.Context(), tt.second); err != nil {
				t.Fatal(err)
			}
			if _, err := w.tombstone(v.Handle); err == nil == tt.purged {
				t.Errorf("the tombstone: %v, want it purged: %v", err, tt.purged)
			}
		})
	}
}

// However much there is to forget, it takes a turn of each second, and who died
// meanwhile has his tombstone as soon as ever. Nothing is left out when its time comes
// while it is under way, nor when the retention is changed then.
func TestAPurgeTakesTurns(t *testing.T) {
	for _, tt := range []struct {
		name   string
		first  int         // second of the purge
		period map[int]int // weeks of the retention from a second on
	}{
		{"in its time", 10, nil},
		{"its time comes meanwhile", 9, map[int]int{9: 3}},
		{"another retention meanwhile", 6, map[int]int{6: 3, 7: 2}},
	} {
		t.Run(tt.name, func(t *testing.T) { purgeInTurns(t, tt.first, tt.period) })
	}
}

func purgeInTurns(t *testing.T, first int, period map[int]int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		const old, recent = 1000, 200
		inner := mem.New()
		s := &slow{Store: inner}
		w := newWorldOn(t, unlimited(), inner, s)
		for i := range old {
			w.over(fmt.Sprint("old", i))
		}
		w.maintain()
		w.clock.Advance(29 * 24 * time.Hour)
		for i := range recent {
			w.over(fmt.Sprint("recent", i))
		}
		w.maintainBut() // nothing is forgotten by it
		s.each = 50 * time.Millisecond

		left := w.keys(session.PastKeys)
		if left != old+recent {
			t.Fatalf("%d tombstones, want %d", left, old+recent)
		}
		for second := first; ; second++ {
			if second > 60 {
				t.Fatal("the purge does not end")
			}
			if weeks, ok := period[second]; ok {
				w.config.Defaults.RetentionPeriod = int64(weeks)
			}
			v, _ := w.issued("ann", idle(60))
			w.advance(60)
			begun := time.Now()
			if err := w.Maintenance(t.Context(), second); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > 600*time.Millisecond {
				t.Fatalf("the maintenance took %v of a second", took)
			}
			if _, err := w.tombstone(v.Handle); err != nil {
				t.Fatalf("second %d: who died has no tombstone: %v", second, err)
			}
			events, err := store.ReadLog(t.Context(), inner, 0, 1)
			if err != nil {
				t.Fatal(err)
			}
			if now := w.keys(session.PastKeys); now == recent+second-first+1 && events[0].Seq > 2*old {
				if second < first+4 {
					t.Errorf("it was over in the second %d: that was no test", second)
				}
				break
			}
		}
		s.each = 0
		w.clock.Advance(29 * 24 * time.Hour)
		w.maintain()
		if n := w.keys(session.PastKeys); n != 0 {
			t.Errorf("the next purge has left %d tombstones", n)
		}
	})
}

// slow is a store whose commits take their time.
type slow struct {
	store.Store
	each time.Duration
}

func (s *slow) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	time.Sleep(s.each)
	return s.Store.Commit(ctx, tx)
}

// over returns a session that was logged out.
func (w *world) over(username string) session.View {
	w.t.Helper()
	v, _ := w.issued(username)
	if _, err := w.end(v.Handle); err != nil {
		w.t.Fatalf("end: %v", err)
	}
	return v
}

// maintainBut is what is done in a second in which no purge begins.
func (w *world) maintainBut() {
	w.t.Helper()
	if err := w.Maintenance(w.ctx(), 1); err != nil {
		w.t.Fatalf("maintain: %v", err)
	}
}

package session_test

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

// A session is dead from the second on at which its idle time or its lifetime is
// over, and not before.
func TestExpiry(t *testing.T) {
	alter := func(seconds int64) func(*session.Record) error {
		return func(r *session.Record) error { r.IdleSeconds = seconds; return nil }
	}
	type step struct {
		at    int64 // seconds after the creation
		lives bool
		touch bool
		alter func(*session.Record) error
	}
	for _, tt := range []struct {
		why       string
		idle, max int64
		permanent bool
		steps     []step
		reason    string
		died      int64
	}{
		{"idle", 60, 0, false, []step{{at: 59, lives: true}, {at: 60}, {at: 61}}, session.ReasonIdle, 60},
		{"lifetime", 0, 60, false, []step{{at: 59, lives: true}, {at: 60}, {at: 61}}, session.ReasonLifetime, 60},
		{"of one second", 1, 0, false, []step{{at: 0, lives: true}, {at: 1}}, session.ReasonIdle, 1},
		{"idle first", 60, 61, false, []step{{at: 59, lives: true}, {at: 60}}, session.ReasonIdle, 60},
		{"lifetime first", 61, 60, false, []step{{at: 59, lives: true}, {at: 60}}, session.ReasonLifetime, 60},
		{"both at once", 60, 60, false, []step{{at: 59, lives: true}, {at: 60}}, session.ReasonLifetime, 60},
		{"a touch moves the idle time", 60, 0, false, []step{{at: 59, lives: true, touch: true}, {at: 60, lives: true}, {at: 118, lives: true}, {at: 119}}, session.ReasonIdle, 119},
		{"a look does not", 60, 0, false, []step{{at: 59, lives: true}, {at: 60}}, session.ReasonIdle, 60},
		{"a touch does not move the lifetime", 60, 100, false, []step{{at: 59, lives: true, touch: true}, {at: 99, lives: true, touch: true}, {at: 100}}, session.ReasonLifetime, 100},
		{"a touch comes too late", 60, 0, false, []step{{at: 60, touch: true}, {at: 61}}, session.ReasonIdle, 60},
		{"a longer idle time", 60, 0, false, []step{{at: 59, lives: true, alter: alter(100)}, {at: 99, lives: true}, {at: 100}}, session.ReasonIdle, 100},
		{"a shorter idle time", 100, 0, false, []step{{at: 10, lives: true, alter: alter(20)}, {at: 19, lives: true}, {at: 20}}, session.ReasonIdle, 20},
		{"shorter, and longer again", 100, 0, false, []step{{at: 1, lives: true, alter: alter(20)}, {at: 2, lives: true, alter: alter(100)}, {at: 99, lives: true}, {at: 100}}, session.ReasonIdle, 100},
		{"no idle time any more, but a lifetime", 60, 100, false, []step{{at: 59, lives: true, alter: alter(0)}, {at: 99, lives: true}, {at: 100}}, session.ReasonLifetime, 100},
		{"an alteration does not move the lifetime", 60, 100, false, []step{{at: 50, lives: true, touch: true, alter: func(r *session.Record) error {
			r.MaxSeconds, r.Created, r.IdleSeconds = 0, r.Created+50, 1000
			return nil
		}}, {at: 99, lives: true}, {at: 100}}, session.ReasonLifetime, 100},
		{"an alteration comes too late", 60, 0, false, []step{{at: 60, alter: alter(1000)}, {at: 61}}, session.ReasonIdle, 60},
		{"a key with a lifetime", 0, 60, true, []step{{at: 59, lives: true, touch: true}, {at: 60}}, session.ReasonLifetime, 60},
		{"neither", 0, 0, false, []step{{at: 1_000_000_000, lives: true}}, "", 0},
	} {
		t.Run(tt.why, func(t *testing.T) {
			w := newWorld(t, unlimited())
			v, token := w.issued("ann", idle(tt.idle), lifetime(tt.max), func(n *session.NewSession) { n.Permanent = tt.permanent })
			start := w.unix()
			for _, s := range tt.steps {
				w.advance(start + s.at - w.unix())
				if s.alter != nil {
					if _, err := w.Alter(t.Context(), v.Handle, event.Actor{}, s.alter); (err == nil) != s.lives {
						t.Errorf("after %d s: altered: %v", s.at, err)
					}
				}
				live, ok := w.Authenticate(token, s.touch)
				if ok != s.lives {
					t.Errorf("after %d s: lives = %v", s.at, ok)
				}
				if now := w.unix(); ok && (live.IdleAt != 0 && live.IdleAt <= now || live.MaxAt != 0 && live.MaxAt <= now) {
					t.Errorf("after %d s: it lives until %d and %d", s.at, live.IdleAt-start, live.MaxAt-start)
				}
				if n, want := w.Count(), map[bool]int64{true: 1}[s.lives]; n != want {
					t.Errorf("after %d s: %d are counted", s.at, n)
				}
				w.recount()
			}
			w.maintain()
			if tt.reason == "" {
				return
			}
			r, err := w.tombstone(v.Handle)
			if err != nil {
				t.Fatal(err)
			}
			if want := (session.End{Status: session.Expired, At: start + tt.died, Reason: tt.reason}); r.End != want {
				t.Errorf("the tombstone says %+v, want %+v", r.End, want)
			}
		})
	}
}

// Whoever was told that a session is dead is never told otherwise, whatever the
// clock does and whether or not anybody has cleaned up.
func TestNothingRevivesWhenTheClockGoesBack(t *testing.T) {
	for _, tt := range []struct {
		why string
		do  func(w *world)
	}{
		{"it was looked at", func(*world) {}},
		{"it was counted", func(w *world) { w.Count() }},
		{"it was swept", func(w *world) { w.maintain() }},
	} {
		for name, o := range map[string]option{"idle": idle(60), "lifetime": lifetime(60)} {
			t.Run(tt.why+", "+name, func(t *testing.T) {
				w := newWorld(t, unlimited())
				v, token := w.issued("ann", o)
				w.advance(60)
				if w.lives(token) {
					t.Fatal("it lives too long")
				}
				tt.do(w)
				w.clock.Advance(-30 * time.Second)
				if _, ok := w.Authenticate(token, true); ok {
					t.Error("it lives again")
				}
				if len(w.OfAccount(v.AccountID)) != 0 || w.Count() != 0 {
					t.Error("it is listed or counted again")
				}
				if view, err := w.Get(t.Context(), v.Handle); err != nil || view.Status() != session.Expired {
					t.Errorf("its status is %v, %v", view.Status(), err)
				}
				if done, err := w.end(v.Handle); done || err != nil {
					t.Errorf("it ends once more: %v, %v", done, err)
				}
				w.maintain()
				if _, err := w.tombstone(v.Handle); err != nil {
					t.Errorf("no tombstone: %v", err)
				}
				w.recount()
			})
		}
	}
}

// The seconds in which a session dies, with many who touch it and one who ends
// it: it may have been touched in time or not, but it is not both dead for the
// sweeper and alive for readers, and no mark of an end is lost.
func TestTouchesRaceTheSweeper(t *testing.T) {
	const rounds, readers, seconds = 300, 8, 10
	for round := range rounds {
		table := session.NewTable(session.Builtin())
		table.SetRealms(realms())
		start := morning.Unix()
		a := &account.Account{ID: api.NewID(morning, [10]byte{9: 1}), Realm: "web", Username: "ann", Canonical: "ann", Rev: 1}
		h := api.NewID(morning, [10]byte{9: 2})
		table.Insert(&session.Record{
			Handle: h, Prefix: "sdses_", Secrets: make([]session.Secret, 1), AccountID: a.ID, Realm: "web",
			Created: start, Authenticated: start, LastAccess: start, IdleSeconds: 1, Revision: 1,
		}, a)
		var wg sync.WaitGroup
		begin := make(chan struct{})
		each := func(do func(now int64)) {
			wg.Go(func() {
				<-begin
				for now := start; now < start+seconds; now++ {
					do(now)
				}
			})
		}
		for i := range readers {
			random := rand.New(rand.NewPCG(uint64(round), uint64(i)))
			each(func(now int64) {
				for range random.IntN(50) {
					if table.IsBuried(h) && table.Touch(h, now) {
						t.Errorf("round %d: buried and alive", round)
					}
					table.Touch(h, now)
				}
			})
		}
		each(func(now int64) {
			for range 20 {
				table.Expire(now)
			}
		})
		if round%2 == 1 {
			each(func(now int64) {
				if now < start+int64(round%seconds) || !table.Dying(h, now) {
					return
				}
				for range 50 {
					if table.Touch(h, now) {
						t.Errorf("round %d: alive though its end is under way", round)
					}
				}
			})
		}
		close(begin)
		wg.Wait()
		table.Expire(start + seconds + 2)
		if table.Touch(h, start) || !table.IsBuried(h) {
			t.Fatalf("round %d: alive %v, buried %v", round, table.Touch(h, start), table.IsBuried(h))
		}
		if err := table.Recount(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

// The moment of a death again, tighter: a late touch, the sweeper and an end meet.
// The end's mark stays, whichever order they come in.
func TestNoMarkOfAnEndIsLost(t *testing.T) {
	const rounds = 20_000
	table := session.NewTable(session.Builtin())
	table.SetRealms(realms())
	start := morning.Unix()
	a := &account.Account{ID: api.NewID(morning, [10]byte{9: 1}), Realm: "web", Username: "ann", Canonical: "ann", Rev: 1}
	for round := range rounds {
		h := api.NewID(morning, [10]byte{5: byte(round >> 16), 8: byte(round >> 8), 9: byte(round)})
		table.Insert(&session.Record{
			Handle: h, Prefix: "sdses_", Secrets: make([]session.Secret, 1), AccountID: a.ID, Realm: "web",
			Created: start, Authenticated: start, LastAccess: start, IdleSeconds: 2, Revision: 1,
		}, a)
		var (
			wg      sync.WaitGroup
			waiting atomic.Int32
			marked  bool
		)
		together := func(do func()) {
			wg.Go(func() {
				for waiting.Add(1); waiting.Load() < 3; {
					runtime.Gosched()
				}
				do()
			})
		}
		together(func() { table.Touch(h, start+1) })
		together(func() { table.Expire(start + 2) })
		together(func() { marked = table.Dying(h, start+1) })
		wg.Wait()
		if marked && table.Touch(h, start+1) {
			t.Fatalf("round %d: it lives though its end is under way", round)
		}
	}
	if err := table.Recount(); err != nil {
		t.Error(err)
	}
}

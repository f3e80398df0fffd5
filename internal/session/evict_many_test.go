package session_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/faultstore"
	"sessiond/store/mem"
)

// A limit that was lowered by far: all who are too many go, and tell who came.
func TestALoweredLimit(t *testing.T) {
	for _, policy := range []string{config.EvictOldest, config.EvictLeastRecentlyUsed, config.EvictNextToExpire, config.EvictAll} {
		for _, fault := range []struct {
			why string
			err error
		}{{"", nil}, {"refused", store.ErrFull}, {"tried twice", store.ErrConflict}} {
			t.Run(policy+" "+fault.why, func(t *testing.T) {
				inner := mem.New()
				h := &hook{Store: inner}
				w := newWorldOn(t, unlimited(), inner, h)
				var old []session.View
				for range 100 {
					v, _ := w.issued("ann")
					old = append(old, v)
					w.advance(1)
				}
				w.config.Defaults.MaxSessionsPerUsername, w.config.Defaults.OnSessionLimit.PerUsername = 10, policy
				faults := 0
				h.before = func(tx *store.Tx) error {
					if fault.err == nil || !puts(tx, session.LiveKeys) || errors.Is(fault.err, store.ErrConflict) && faults > 0 {
						return nil
					}
					faults++
					return fault.err
				}
				v, _, err := w.issue("ann")
				if errors.Is(fault.err, store.ErrFull) {
					if !errors.Is(err, store.ErrFull) || w.Count() != 100 || w.keys(session.EndKeys) != 0 {
						t.Fatalf("%v, and %d live, %d ends: nobody came, so nobody goes", err, w.Count(), w.keys(session.EndKeys))
					}
					h.before = nil
					v, _, err = w.issue("ann")
				}
				if err != nil {
					t.Fatal(err)
				}
				gone := old[:91]
				if policy == config.EvictAll {
					gone = old
				}
				if n := w.Count(); n != int64(101-len(gone)) {
					t.Errorf("%d live", n)
				}
				for i := range gone {
					w.evicted(gone[i].Handle, config.LimitPerUsername, v.Handle)
				}
				w.recount()
				w.maintain()
				w.restart()
				w.recount()
				if n := w.Count(); n != int64(101-len(gone)) {
					t.Errorf("%d live after a restart", n)
				}
			})
		}
	}
}

// Each one who goes tells of the limit that he went for.
func TestTwoLoweredLimits(t *testing.T) {
	w := newWorld(t, unlimited())
	var old []session.View
	for range 60 {
		v, _ := w.issued("ann")
		old = append(old, v)
		w.advance(1)
	}
	d := &w.config.Defaults
	d.MaxSessions, d.MaxSessionsPerUsername = 56, 10
	d.OnSessionLimit = config.OnLimit{Total: config.EvictOldest, PerUsername: config.EvictOldest}
	v, _ := w.issued("ann")
	for i := range 51 {
		limit := config.LimitTotal
		if i >= 5 {
			limit = config.LimitPerUsername
		}
		w.evicted(old[i].Handle, limit, v.Handle)
	}
	w.recount()
}

// However many come at once where the oldest makes room, everybody gets in, the
// limit is exact at each moment, and who went has a successor.
func TestEvictionsAreExact(t *testing.T) {
	const clients = 200
	for _, tt := range []struct {
		why  string
		on   config.OnLimit
		most session.Limits
		n    int // who live in the end
	}{
		{"per user name", config.OnLimit{PerUsername: config.EvictOldest}, session.Limits{PerAccount: 10}, 10},
		{"per user name, one", config.OnLimit{PerUsername: config.EvictOldest}, session.Limits{PerAccount: 1}, 1},
		{"per user name, the least recently used", config.OnLimit{PerUsername: config.EvictLeastRecentlyUsed}, session.Limits{PerAccount: 10}, 10},
		{"per user name, the next to expire", config.OnLimit{PerUsername: config.EvictNextToExpire}, session.Limits{PerAccount: 10}, 10},
		{"per address", config.OnLimit{PerIPAddress: config.EvictOldest}, session.Limits{PerAddress: 10}, 10},
		{"total", config.OnLimit{Total: config.EvictOldest}, session.Limits{Total: 10}, 10},
		{"all of them", config.OnLimit{Total: config.EvictOldest, PerIPAddress: config.EvictOldest, PerUsername: config.EvictOldest}, session.Limits{Total: 10, PerAddress: 7, PerAccount: 5}, 5},
	} {
		for _, before := range []int{0, tt.n} {
			t.Run(fmt.Sprint(tt.why, " of ", before), func(t *testing.T) {
				inner := mem.New()
				h := &hook{Store: inner}
				w := newWorldOn(t, limited(tt.most), inner, h)
				w.config.Defaults.OnSessionLimit = tt.on
				var mu sync.Mutex
				var all []api.ID
				for range before {
					v, _ := w.issued("ann", from("192.0.2.1"))
					all = append(all, v.Handle)
				}
				got := w.crowd(clients, api.OK, func(w *world, _ int) error {
					v, _, err := w.issue("ann", from("192.0.2.1"))
					if n := w.keys(session.LiveKeys) - w.keys(session.EndKeys); n > tt.n {
						t.Errorf("%d live, the limit is %d", n, tt.n)
					}
					if err == nil {
						mu.Lock()
						defer mu.Unlock()
						all = append(all, v.Handle)
					}
					return err
				})
				if got != clients {
					t.Errorf("%d of %d got in", got, clients)
				}
				for _, restart := range []bool{false, true} {
					if restart {
						w.restart()
					}
					if n := w.Count(); n != int64(tt.n) {
						t.Errorf("%d live, want %d", n, tt.n)
					}
					w.recount()
					w.succeeded(all)
					w.maintain()
				}
			})
		}
	}
}

// succeeded says of sessions that each lives, or made room for another of them.
func (w *world) succeeded(all []api.ID) {
	w.t.Helper()
	for _, h := range all {
		v, err := w.Get(w.ctx(), h)
		if err != nil {
			w.t.Errorf("%s: %v", h, err)
			continue
		}
		if v.Live {
			continue
		}
		by, ok := session.ParseHandle(v.End.By)
		if v.Status() != session.Replaced || !strings.HasPrefix(v.End.Reason, "maxJsonApiSessions") || !ok || !slices.Contains(all, by) {
			w.t.Errorf("%s is %s for %q by %s", h, v.Status(), v.End.Reason, v.End.By)
		}
	}
}

// Nobody goes for a log-in that surely failed; where nobody knows, who went has a
// successor.
func TestEvictionsOfFailedLogins(t *testing.T) {
	for _, plan := range []faultstore.Plan{
		{Op: faultstore.Commit, Err: store.ErrFull},
		{Op: faultstore.Commit, Err: store.ErrBusy},
		{Op: faultstore.Commit, Err: store.ErrStopped},
		{Op: faultstore.Commit, Err: store.ErrConflict},
		{Op: faultstore.Commit},
		{Op: faultstore.Commit, After: true},
		{Op: faultstore.Get},
	} {
		calls := 6
		if plan.Op == faultstore.Get {
			calls = 80
		}
		for n := range calls { // some of them after the log-in
			inner := mem.New()
			w := newWorldOn(t, unlimited(), inner, inner)
			var all []api.ID
			for range 34 {
				v, _ := w.issued("ann")
				all = append(all, v.Handle)
				w.advance(1)
			}
			w.config.Defaults.MaxSessionsPerUsername, w.config.Defaults.OnSessionLimit.PerUsername = 2, config.EvictOldest
			w.Close()
			faulty := faultstore.New(inner, faultstore.Plan{})
			w.store = faulty
			w.open()
			plan.Call = faulty.Calls(plan.Op) + n + 1
			w.Close()
			w.store = faultstore.New(inner, plan)
			w.open()
			v, _, err := w.issue("ann")
			w.recount()
			switch ends := w.keys(session.EndKeys); {
			case err == nil:
				if n := len(w.OfAccount(v.AccountID)); n != 2 {
					t.Errorf("%+v: %d live", plan, n)
				}
				next, _, err := w.issue("ann") // has those make room whose end was refused
				if err != nil {
					break // the fault came now
				}
				if n := w.Count(); n != 2 {
					t.Errorf("%+v: %d live when another one has come", plan, n)
				}
				all = append(all, v.Handle, next.Handle)
			case store.NotApplied(err) && (ends != 0 || w.Count() != 34):
				t.Errorf("%+v: %v, and %d ended", plan, err, ends)
			case errors.Is(err, store.ErrUnknown) && ends != 0:
				w.recount()
				if w.keys(session.LiveKeys) != 35 {
					t.Errorf("%+v: %d ended and nobody came", plan, ends)
				}
			}
			w.store = inner
			w.restart()
			w.recount()
			if len(all) > 34 {
				w.succeeded(all)
			}
			if w.Close(); t.Failed() {
				return
			}
		}
	}
}

// Log-ins, log-outs, expiries and uses at once, under every policy.
func TestEvictionsInATurmoil(t *testing.T) {
	for _, policy := range []string{config.EvictOldest, config.EvictLeastRecentlyUsed, config.EvictNextToExpire, config.EvictAll} {
		t.Run(policy, func(t *testing.T) {
			w := newWorld(t, limited(session.Limits{Total: 30, PerAddress: 9, PerAccount: 7}))
			w.config.Defaults.MaxSessionsPerClient = 3
			w.config.Defaults.OnSessionLimit = config.OnLimit{Total: policy, PerIPAddress: policy, PerUsername: policy, PerClient: policy}
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					user, address := fmt.Sprint("user", i%3), from(fmt.Sprintf("2001:db8:0:%x::1", i%4))
					for n := range 40 {
						options := []option{address, idle(int64(3 + n%5))}
						if n%13 == 0 {
							options = append(options, permanent)
						}
						v, token, err := w.issue(user, options...)
						switch codeOf(err) {
						case api.OK:
						case api.SessionLimitReached, api.SessionLimitPerIPAddress, api.SessionLimitPerUsername:
							continue
						default:
							t.Errorf("create: %v", err)
							continue
						}
						caller, ok := w.Authenticate(token, true)
						if n%3 == 0 && ok && !v.Permanent {
							if _, _, err := w.issue(user, address, joins(&caller)); err != nil && codeOf(err) == api.Internal && !store.NotApplied(err) {
								t.Errorf("join: %v", err)
							}
						}
						if n%4 == 0 || v.Permanent {
							if _, err := w.end(v.Handle); err != nil {
								t.Errorf("end: %v", err)
							}
						}
						if n%5 == 0 {
							w.advance(1)
						}
						if n%7 == 0 {
							if err := w.Maintain(t.Context()); err != nil && !errors.Is(err, store.ErrConflict) {
								t.Errorf("maintain: %v", err)
							}
						}
					}
				})
			}
			wg.Wait()
			w.recount()
			living := w.Count()
			if living > 30 {
				t.Errorf("%d live", living)
			}
			w.maintain()
			w.restart()
			w.recount()
			if n := w.Count(); n != living {
				t.Errorf("%d live after a restart, %d before", n, living)
			}
		})
	}
}

package session_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/faultstore"
	"sessiond/store/mem"
)

// However many come at once, a limit of N lets exactly N in, and five more of
// those who may revoke.
func TestLimitsAreExact(t *testing.T) {
	const n, clients = 10, 200
	addresses := func(i int) option { return from(fmt.Sprintf("192.0.2.%d", i%250)) }
	users := func(i int) string { return fmt.Sprintf("user-%d", i) }
	for _, tt := range []struct {
		why    string
		limits session.Limits
		create func(w *world, i int) error
		want   int
		code   api.Code
	}{
		{"total", session.Limits{Total: n}, func(w *world, i int) error {
			_, _, err := w.issue(users(i), addresses(i))
			return err
		}, n, api.SessionLimitReached},
		{"total, of keys too", session.Limits{Total: n}, func(w *world, i int) error {
			_, _, err := w.issue(users(i), permanent)
			return err
		}, n, api.SessionLimitReached},
		{"per IPv4 address", session.Limits{PerAddress: n}, func(w *world, i int) error {
			_, _, err := w.issue(users(i), from([]string{"192.0.2.1", "::ffff:192.0.2.1"}[i%2]))
			return err
		}, n, api.SessionLimitPerIPAddress},
		{"per IPv6 network", session.Limits{PerAddress: n}, func(w *world, i int) error {
			_, _, err := w.issue(users(i), from(fmt.Sprintf("2001:db8:0:1:%x::%x", i, i)))
			return err
		}, n, api.SessionLimitPerIPAddress},
		{"per user name, however it is spelt", session.Limits{PerAccount: n}, func(w *world, i int) error {
			_, _, err := w.issue([]string{"ann", "Ann", "ＡＮＮ"}[i%3], addresses(i))
			return err
		}, n, api.SessionLimitPerUsername},
		{"per address, of one user whom all of them introduce", session.Limits{PerAddress: n}, func(w *world, i int) error {
			_, _, err := w.issue("ann", from("192.0.2.1"))
			return err
		}, n, api.SessionLimitPerIPAddress},
		{"all three", session.Limits{Total: n, PerAddress: n, PerAccount: n}, func(w *world, i int) error {
			_, _, err := w.issue("ann", from("192.0.2.1"))
			return err
		}, n, api.SessionLimitReached},
		{"total, of operators by their realm", session.Limits{Total: n}, func(w *world, i int) error {
			_, _, err := w.issue(users(i), in(w, "staff"))
			return err
		}, n + 5, api.SessionLimitReached},
		{"per address, of operators by their realm", session.Limits{PerAddress: n}, func(w *world, i int) error {
			_, _, err := w.issue(users(i), in(w, "staff"), from("192.0.2.1"))
			return err
		}, n + 5, api.SessionLimitPerIPAddress},
		{"per user name, of an operator by his realm", session.Limits{PerAccount: n}, func(w *world, i int) error {
			_, _, err := w.issue("ann", in(w, "staff"))
			return err
		}, n + 5, api.SessionLimitPerUsername},
		{"no limit", session.Limits{}, func(w *world, i int) error {
			_, _, err := w.issue("ann", from("192.0.2.1"))
			return err
		}, clients, api.OK},
	} {
		t.Run(tt.why, func(t *testing.T) {
			for range 20 {
				w := newWorld(t, limited(tt.limits))
				if got := w.crowd(clients, tt.code, tt.create); got != tt.want {
					t.Fatalf("%d of %d got in, want %d", got, clients, tt.want)
				}
				if n := w.Count(); n != int64(tt.want) {
					t.Fatalf("%d are counted, want %d", n, tt.want)
				}
				w.recount()
				w.restart() // after which the limit stands as it was
				if err := tt.create(w, 0); codeOf(err) != tt.code {
					t.Fatalf("after a restart, one more: %v", err)
				}
				w.Close()
			}
		})
	}
}

func TestLimitsAreExactWithPasswords(t *testing.T) {
	for _, tt := range []struct {
		role string
		want int
	}{{"admin", 15}, {"operator", 15}, {"auditor", 10}, {"gateway", 10}} {
		w := newWorld(t, limited(session.Limits{PerAccount: 10}))
		w.account("alice", tt.role)
		got := w.crowd(60, api.SessionLimitPerUsername, func(w *world, _ int) error {
			_, _, err := w.login("alice", rightPassword)
			return err
		})
		if got != tt.want {
			t.Errorf("as %s, %d got in, want %d", tt.role, got, tt.want)
		}
		w.recount()
	}
}

// crowd has many create at once and returns how many succeeded; the others have
// to get the given code.
func (w *world) crowd(clients int, code api.Code, create func(*world, int) error) (succeeded int) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		begin = make(chan struct{})
	)
	for i := range clients {
		wg.Go(func() {
			<-begin
			err := create(w, i)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				succeeded++
			} else if codeOf(err) != code {
				w.t.Errorf("refused with %v, want %d", err, code)
			}
		})
	}
	close(begin)
	wg.Wait()
	return succeeded
}

func TestWhatALimitSays(t *testing.T) {
	for _, tt := range []struct {
		limits session.Limits
		want   api.ErrorData
	}{
		{session.Limits{Total: 2}, api.ErrorData{Limit: "maxJsonApiSessions", Max: 2, Current: 2}},
		{session.Limits{PerAddress: 2}, api.ErrorData{Limit: "maxJsonApiSessionsPerIpAddress", Max: 2, Current: 2}},
		{session.Limits{PerAccount: 2}, api.ErrorData{Limit: "maxJsonApiSessionsPerUsername", Max: 2, Current: 2}},
	} {
		w := newWorld(t, limited(tt.limits))
		w.issued("ann", from("192.0.2.1"))
		w.issued("ann", from("192.0.2.1"))
		_, _, err := w.issue("ann", from("192.0.2.1"))
		if err == nil || api.FromError(err).Data != tt.want {
			t.Errorf("%+v: %v %+v", tt.limits, err, api.FromError(err).Data)
		}
	}
}

// What does not count.
func TestWhatTakesNoPlace(t *testing.T) {
	one := session.Limits{Total: 1, PerAddress: 1, PerAccount: 1}
	for _, tt := range []struct {
		why    string
		limits session.Limits
		before func(w *world)
	}{
		{"idle", one, func(w *world) {
			w.issued("ann", from("192.0.2.1"), idle(60))
			w.advance(60)
		}},
		{"past its lifetime", one, func(w *world) {
			w.issued("ann", from("192.0.2.1"), lifetime(60))
			w.advance(60)
		}},
		{"ended", one, func(w *world) {
			v, _ := w.issued("ann", from("192.0.2.1"))
			if done, err := w.end(v.Handle); !done || err != nil {
				w.t.Fatalf("end: %v, %v", done, err)
			}
		}},
		{"ended with its account's sessions", one, func(w *world) {
			w.issued("ann", from("192.0.2.1"))
			if n, err := w.EndAccount(w.ctx(), "web", "ann", false, &session.AccountChange{Reason: session.ReasonRevoked}); n != 1 || err != nil {
				w.t.Fatalf("end: %d, %v", n, err)
			}
		}},
		{"ended with its realm's sessions", one, func(w *world) {
			w.issued("ann", from("192.0.2.1"))
			w.raise(session.RealmEpoch("web"), false)
		}},
		{"ended with all sessions", one, func(w *world) {
			w.issued("ann", from("192.0.2.1"))
			w.raise(session.ServerEpoch, false)
		}},
		{"keys, per address", session.Limits{PerAddress: 1}, func(w *world) {
			w.issued("ann", from("192.0.2.1"), permanent)
			w.issued("ann", from("192.0.2.1"), permanent)
		}},
		{"issued without an address, per address", session.Limits{PerAddress: 1}, func(w *world) {
			w.issued("ann")
			w.issued("ann")
		}},
		{"from another network, per address", session.Limits{PerAddress: 1}, func(w *world) {
			w.issued("ann", from("192.0.2.2"))
			w.issued("ann", from("2001:db8::1"))
			w.issued("ann", from("2001:db8:0:1::1"))
		}},
		{"of another account, per user name", session.Limits{PerAccount: 1}, func(w *world) {
			w.issued("bob")
			w.issued("ann", in(w, "staff"))
		}},
		{"a log-in that was refused", one, func(w *world) {
			if _, _, err := w.login("nobody", otherPassword, from("192.0.2.1")); codeOf(err) != api.LoginFailed {
				w.t.Fatalf("log in: %v", err)
			}
		}},
	} {
		t.Run(tt.why, func(t *testing.T) {
			for _, restart := range []bool{false, true} {
				w := newWorld(t, limited(tt.limits))
				tt.before(w)
				if restart {
					w.restart()
				}
				if _, _, err := w.issue("ann", from("192.0.2.1")); err != nil {
					t.Errorf("after a restart %v: %v", restart, err)
				}
				w.recount()
				w.maintain()
				w.recount()
				if _, _, err := w.issue("ann", from("192.0.2.1")); tt.limits == one && codeOf(err) != api.SessionLimitReached {
					t.Errorf("after a restart %v, one more: %v", restart, err)
				}
			}
		})
	}
}

// A commit that surely failed gives its place back; one whose outcome nobody
// knows keeps it.
func TestPlacesOfFailedCommits(t *testing.T) {
	for _, tt := range []struct {
		why  string
		plan faultstore.Plan
		want api.Code // of the next one, at a limit of one
	}{
		{"full", faultstore.Plan{Op: faultstore.Commit, Call: 1, Err: store.ErrFull}, api.OK},
		{"busy", faultstore.Plan{Op: faultstore.Commit, Call: 1, Err: store.ErrBusy}, api.OK},
		{"stopped", faultstore.Plan{Op: faultstore.Commit, Call: 1, Err: store.ErrStopped}, api.OK},
		{"reading", faultstore.Plan{Op: faultstore.Get, Call: 2}, api.OK}, // the first is of loading
		{"unknown, not applied", faultstore.Plan{Op: faultstore.Commit, Call: 1}, api.SessionLimitReached},
		{"unknown, applied", faultstore.Plan{Op: faultstore.Commit, Call: 1, After: true}, api.SessionLimitReached},
	} {
		inner := mem.New()
		w := newWorldOn(t, limited(session.Limits{Total: 1}), inner, faultstore.New(inner, tt.plan))
		if _, _, err := w.issue("ann", from("192.0.2.1")); err == nil {
			t.Fatalf("%s: no fault came", tt.why)
		}
		w.recount()
		if _, _, err := w.issue("bob", from("192.0.2.1")); codeOf(err) != tt.want {
			t.Errorf("%s: the next one: %v, want %d", tt.why, err, tt.want)
		}
		w.recount()
		if n := w.Count(); n != int64(w.keys(session.LiveKeys)) {
			t.Errorf("%s: %d are counted, %d are stored", tt.why, n, w.keys(session.LiveKeys))
		}
	}
}

// A password is not checked where there is no place even for an operator.
func TestFullIsToldBeforeThePassword(t *testing.T) {
	w := newWorld(t, limited(session.Limits{Total: 1, PerAddress: 1}))
	w.account("alice", "operator")
	for i := range 6 {
		if _, _, err := w.login("alice", rightPassword, from("192.0.2.1")); err != nil {
			t.Fatalf("log-in %d: %v", i+1, err)
		}
	}
	runs := w.hasher.Runs()
	if _, _, err := w.login("alice", rightPassword, from("192.0.2.1")); codeOf(err) != api.SessionLimitReached || w.hasher.Runs() != runs {
		t.Errorf("%v after %d checks", err, w.hasher.Runs()-runs)
	}
}

// Reserve and Free undo each other, account and address included.
func TestFreedPlacesLeaveNothing(t *testing.T) {
	w := newWorld(t, unlimited())
	a, err := w.accounts.Fresh(w.ctx(), "web", "ann", nil)
	if err != nil {
		t.Fatal(err)
	}
	table := w.Table()
	h := handleOfVectors
	if err := table.ReserveFor(h, a, netip.MustParseAddr("192.0.2.1"), session.Limits{}, w.unix()); err != nil {
		t.Fatal(err)
	}
	w.recount()
	if n := w.Count(); n != 0 {
		t.Errorf("a place counts as %d sessions", n)
	}
	table.Free(h)
	table.Free(h)
	w.recount()
}

package account

import (
	"net/netip"
	"testing"
	"time"

	"sessiond/internal/api"
)

// An epoch knows of its last rises which of them ended a session.
func TestEnded(t *testing.T) {
	rises := func(all ...bool) (e Epoch) {
		for i, all := range all {
			e.Raise(all, Why{At: morning.Add(time.Duration(i) * time.Minute), Reason: string(rune('a' + i))})
		}
		return e
	}
	many := make([]bool, 20)
	old := Epoch{Temporary: 7, All: 3, Rises: []Rise{{7, 3, Why{Reason: "x"}}}}
	for _, tt := range []struct {
		why        string
		epoch      Epoch
		permanent  bool
		remembered uint64
		want       string // reason; empty: not known
		alive      bool
	}{
		{"nothing happened", rises(), false, 0, "", true},
		{"before one", rises(false), false, 0, "a", false},
		{"after one", rises(false), false, 1, "", true},
		{"a key, which it spares", rises(false), true, 0, "", true},
		{"before two", rises(false, false), false, 0, "a", false},
		{"between two", rises(false, false), false, 1, "b", false},
		{"a key, which the first of two spares", rises(false, true, true), true, 0, "b", false},
		{"a key, between those that do not", rises(true, false, true), true, 1, "c", false},
		{"before the last sixteen", rises(many...), false, 2, "e", false},
		{"before the first of the last sixteen", rises(many...), false, 4, "e", false},
		{"after the first of the last sixteen", rises(many...), false, 5, "f", false},
		{"before the only one that was kept", old, false, 0, "x", false},
		{"a key, before the only one that was kept", old, true, 2, "x", false},
		{"of another epoch altogether", old, false, 9, "", false},
	} {
		why, ended := tt.epoch.Ended(tt.permanent, tt.remembered)
		if why.Reason != tt.want || ended == tt.alive {
			t.Errorf("%s: %+v, ended: %v", tt.why, why, ended)
		}
	}
}

// Who raises the epoch of a copy leaves the other one as it is.
func TestRaisingACopy(t *testing.T) {
	var e Epoch
	for range maxRises + 3 {
		e.Raise(false, Why{Reason: "first"})
		one, other := e, e
		one.Raise(false, Why{Reason: "one"})
		other.Raise(true, Why{Reason: "other"})
		if n := len(one.Rises); one.Rises[n-1].Why.Reason != "one" || len(e.Rises) == n && n < maxRises || n > maxRises {
			t.Fatalf("after another copy: %+v", one.Rises)
		}
	}
}

// Whoever comes by the name of a dropped account goes on with its epochs: the
// sessions that it ended can still be told why.
func TestEpochsOfAName(t *testing.T) {
	h := newHouse(t)
	var dropped *Account
	h.change("Alice", rightPassword, func(a *Account) {
		a.Epoch.Raise(false, Why{At: h.clock.Now(), Reason: "leak"})
		a.Epoch.Raise(true, Why{At: h.clock.Now(), Reason: "accountDropped"})
		a.Drop()
		dropped = a
	})
	a, err := h.Fresh(t.Context(), "native", "alice", nil)
	if err != nil || a.ID == dropped.ID || a.Epoch.Temporary != dropped.Epoch.Temporary || a.Epoch.All != dropped.Epoch.All || !a.Epoch.Inherited {
		t.Fatalf("the later one is %+v, %v", a, err)
	}
	if why, ended := a.Epoch.Ended(false, 0); !ended || why.Reason != "leak" {
		t.Errorf("a session of the first ended by %+v, %v", why, ended)
	}
	if b, err := h.Fresh(t.Context(), "native", "bob", nil); err != nil || b.Epoch.Inherited || b.Epoch.Temporary != 0 {
		t.Errorf("somebody else is %+v, %v", b, err)
	}
}

// An account whose time was over does not come back with its sessions and keys.
func TestResetAdminOfOneWhoseTimeIsOver(t *testing.T) {
	h := newHouse(t)
	until := h.clock.Now().Add(time.Minute)
	h.change("Alice", rightPassword, func(a *Account) { a.DisableAt = until })
	h.clock.Advance(time.Hour)
	if _, err := h.ResetAdmin(t.Context(), "alice", api.NewSecret("another horse battery")); err != nil {
		t.Fatal(err)
	}
	a, err := h.Verify(t.Context(), "native", "alice", api.NewSecret("another horse battery"), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	for _, permanent := range []bool{false, true} {
		why, ended := a.Epoch.Ended(permanent, 0)
		if want := (Why{At: until, Reason: "accountDisabled"}); !ended || why != want {
			t.Errorf("permanent %v: ended %v by %+v, want %+v", permanent, ended, why, want)
		}
	}
}

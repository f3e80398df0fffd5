package account

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/store"
)

// An account is at home where it has logged in within 30 days, whichever address
// of the network it comes from.
func TestAFamiliarNetwork(t *testing.T) {
	day := 24 * time.Hour
	for _, tt := range []struct {
		why      string
		login    string
		later    time.Duration
		from     string
		familiar bool
	}{
		{"at once", "192.0.2.1", 0, "192.0.2.1", true},
		{"after 30 days", "192.0.2.1", 30 * day, "192.0.2.1", true},
		{"after 31 days", "192.0.2.1", 31 * day, "192.0.2.1", false},
		{"another address", "192.0.2.1", 0, "192.0.2.2", false},
		{"mapped", "192.0.2.1", 0, "::ffff:192.0.2.1", true},
		{"the same /64", "2001:db8::1", 0, "2001:db8::ffff%eth0", true},
		{"another /64", "2001:db8::1", 0, "2001:db8:0:1::1", false},
		{"from nowhere", "", 0, "", false},
		{"from nowhere, then somewhere", "", 0, "192.0.2.1", false},
		{"the clock is set back a little", "192.0.2.1", -12 * time.Hour, "192.0.2.1", true},
		{"the clock is set back far", "192.0.2.1", -60 * day, "192.0.2.1", false},
	} {
		h := newHouse(t)
		h.create("alice", rightPassword)
		parse := func(text string) netip.Addr {
			a, _ := netip.ParseAddr(text) // "" is the zero address
			return a
		}
		h.login("alice", parse(tt.login))
		h.clock.Advance(tt.later)
		who, err := h.lookup(t.Context(), "native", "ALICE", parse(tt.from))
		if err != nil || who.familiar != tt.familiar {
			t.Errorf("%s: familiar %t, %v, want %t", tt.why, who.familiar, err, tt.familiar)
		}
		if who, err := h.lookup(t.Context(), "partners", "alice", parse(tt.from)); err != nil || who.familiar {
			t.Errorf("%s: familiar to an account of another realm: %v", tt.why, err)
		}
	}
}

// A log-in from a familiar network writes once a day, and never the account's
// record.
func TestRememberingCostsOneWriteADay(t *testing.T) {
	h := newHouse(t)
	a := h.create("alice", rightPassword)
	rev, from := h.store.Rev(), netip.MustParseAddr("192.0.2.1")
	for range 3 {
		for range 10 {
			h.login("alice", from)
		}
		h.clock.Advance(24 * time.Hour)
	}
	if writes := h.store.Rev() - rev; writes != 3 {
		t.Errorf("%d writes in three days", writes)
	}
	if item, err := h.store.Get(t.Context(), a.Key()); err != nil || item.Rev != a.Rev {
		t.Errorf("the account's record is at revision %d, %v, want %d", item.Rev, err, a.Rev)
	}
}

func TestSixteenNetworksAreRemembered(t *testing.T) {
	h := newHouse(t)
	a := h.create("alice", rightPassword)
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }
	for i := range 20 {
		h.login("alice", at(i))
		h.login("alice", at(0)) // at home each day
		h.clock.Advance(24 * time.Hour)
	}
	var known string
	for i := range 20 {
		if who, err := h.lookup(t.Context(), "native", "alice", at(i)); err == nil && who.familiar {
			known += fmt.Sprint(i, " ")
		}
	}
	if want := "0 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 "; known != want {
		t.Errorf("known are %s, want %s", known, want)
	}
	item, err := h.store.Get(t.Context(), a.SourceKey())
	if err != nil || len(item.Value) > 1+16+maxSources*(4+1+16) {
		t.Errorf("%d bytes, %v", len(item.Value), err)
	}
}

// What stands under the key of the networks is no reason to refuse a log-in.
func TestUnreadableNetworksHinderNobody(t *testing.T) {
	h := newHouse(t)
	a := h.create("alice", rightPassword)
	for _, value := range []string{"", "\x01", "\x09", string(make([]byte, 40)), string(encodeSources(a.ID, nil)) + "\x00\x00\x00\x01\x10"} {
		if _, err := h.store.Commit(t.Context(), store.Tx{Put: []store.Put{{Key: a.SourceKey(), Value: []byte(value)}}}); err != nil {
			t.Fatal(err)
		}
		from := netip.MustParseAddr("192.0.2.1")
		h.login("alice", from)
		if who, err := h.lookup(t.Context(), "native", "alice", from); err != nil || !who.familiar {
			t.Errorf("%q: familiar %t, %v", value, who.familiar, err)
		}
	}
}

// The whole way: strangers guess, the user gets in from home and is told to wait
// elsewhere.
func TestVerifyAtHome(t *testing.T) {
	h := newHouse(t)
	h.create("alice", rightPassword)
	home := netip.MustParseAddr("192.0.2.1")
	h.login("alice", home)
	for i := range 100 {
		h.guess("alice", v6(uint64(i)<<16, 0))
	}
	if _, err := h.Verify(t.Context(), "native", "alice", api.NewSecret(rightPassword), home); err != nil {
		t.Errorf("at home: %v", err)
	}
	if _, err := h.Verify(t.Context(), "native", "alice", api.NewSecret(rightPassword), netip.MustParseAddr("198.51.100.1")); codeOf(err) != api.LoginThrottled {
		t.Errorf("elsewhere: %v, want %d", err, api.LoginThrottled)
	}
}

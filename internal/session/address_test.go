package session_test

import (
	"net/netip"
	"slices"
	"testing"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// usedFrom has a session used from addresses, and what is noted written.
func (w *world) usedFrom(h api.ID, addresses ...string) error {
	for _, a := range addresses {
		w.UsedFrom(h, netip.MustParseAddr(a), "")
	}
	return w.Maintain(w.ctx())
}

// sightings returns the addresses that a session was used from, in their order.
func (w *world) sightings(h api.ID) (addresses string, revision uint64) {
	w.t.Helper()
	v, err := w.Get(w.ctx(), h)
	if err != nil {
		w.t.Fatalf("get: %v", err)
	}
	for _, s := range v.Sightings {
		addresses += s.Address.String() + " "
	}
	return addresses, v.Revision
}

func TestAddressesThatASessionIsUsedFrom(t *testing.T) {
	w := newWorld(t, unlimited())
	v, _ := w.issued("alice", from("192.0.2.1"))
	for _, tt := range []struct {
		used []string
		want string
	}{
		{[]string{"192.0.2.1"}, ""},
		{[]string{"192.0.2.2", "192.0.2.1", "192.0.2.2"}, "192.0.2.1 192.0.2.2 "},
		{[]string{"192.0.2.2"}, "192.0.2.1 192.0.2.2 "},
		{[]string{"192.0.2.3", "192.0.2.4", "192.0.2.5"}, "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 "},
		{[]string{"2001:db8::1"}, "192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 2001:db8::1 "},
	} {
		if err := w.usedFrom(v.Handle, tt.used...); err != nil {
			t.Fatal(err)
		}
		if got, revision := w.sightings(v.Handle); got != tt.want || revision != 1 {
			t.Errorf("used from %v: %s, revision %d, want %s", tt.used, got, revision, tt.want)
		}
	}
	before, _ := w.sightings(v.Handle)
	w.restart()
	if after, _ := w.sightings(v.Handle); after != before {
		t.Errorf("after a restart: %s", after)
	}
	w.UsedFrom(v.Handle, netip.Addr{}, "") // not known
	if err := w.Maintain(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAddressesOfManySessionsOneOfWhichHasEnded(t *testing.T) {
	inner := mem.New()
	h := &hook{Store: inner}
	w := newWorldOn(t, unlimited(), inner, h)
	var handles []api.ID
	for range 70 {
		v, _ := w.issued("alice", from("192.0.2.1"))
		handles = append(handles, v.Handle)
		w.UsedFrom(v.Handle, netip.MustParseAddr("192.0.2.2"), "")
	}
	ended := handles[11]
	h.before = func(tx *store.Tx) error { // while the addresses are written
		if !slices.ContainsFunc(tx.Put, func(p store.Put) bool { return p.Key == session.LiveKey(ended) }) {
			return nil
		}
		h.before = nil
		_, err := w.End(t.Context(), ended, w.NewEnd(session.Ended, "", nil), event.Actor{})
		return err
	}
	if err := w.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, h := range handles {
		want := "192.0.2.1 192.0.2.2 "
		if h == ended {
			want = ""
		}
		if got, _ := w.sightings(h); got != want {
			t.Errorf("session %d: %s", i, got)
		}
	}
	if n := w.Count(); n != 69 {
		t.Errorf("%d sessions live", n)
	}
}

func TestAnAddressThatCouldNotBeWrittenIsNotedAgain(t *testing.T) {
	inner := mem.New()
	h := &hook{Store: inner}
	w := newWorldOn(t, unlimited(), inner, h)
	v, _ := w.issued("alice", from("192.0.2.1"))
	h.before = func(*store.Tx) error { return store.ErrFull }
	if err := w.usedFrom(v.Handle, "192.0.2.2"); err == nil {
		t.Error("nobody was told")
	}
	h.before = nil
	if err := w.usedFrom(v.Handle, "192.0.2.2"); err != nil {
		t.Fatal(err)
	}
	if got, _ := w.sightings(v.Handle); got != "192.0.2.1 192.0.2.2 " {
		t.Errorf("used from %s", got)
	}
}

// The last use is noted when it differs from the one before, a new address at once
// and a change back and forth once a minute.
func TestWhatASessionWasUsedWithLast(t *testing.T) {
	w := newWorld(t, unlimited())
	v, _ := w.issued("alice", from("192.0.2.1"))
	const browser, tool = "Mozilla/5.0", "curl/8.5.0"
	for _, tt := range []struct {
		later     int64
		from      string
		userAgent string
		want      string
	}{
		{0, "192.0.2.1", "", "192.0.2.1 "},
		{0, "192.0.2.1", browser, "192.0.2.1 Mozilla/5.0"},
		{0, "192.0.2.2", browser, "192.0.2.2 Mozilla/5.0"},
		{0, "192.0.2.1", tool, "192.0.2.2 Mozilla/5.0"}, // not within the minute
		{59, "192.0.2.1", tool, "192.0.2.2 Mozilla/5.0"},
		{1, "192.0.2.1", tool, "192.0.2.1 curl/8.5.0"},
		{60, "192.0.2.1", "", "192.0.2.1 "},
		{0, "192.0.2.3", tool, "192.0.2.3 curl/8.5.0"},
	} {
		w.advance(tt.later)
		w.UsedFrom(v.Handle, netip.MustParseAddr(tt.from), tt.userAgent)
		if err := w.Maintain(w.ctx()); err != nil {
			t.Fatal(err)
		}
		w.restart()
		got, err := w.Get(w.ctx(), v.Handle)
		if err != nil {
			t.Fatal(err)
		}
		if address, agent := got.LastUse(); address.String()+" "+agent != tt.want || got.Revision != 1 {
			t.Errorf("used from %s with %q: %s %q, revision %d, want %s", tt.from, tt.userAgent, address, agent, got.Revision, tt.want)
		}
	}
}

func BenchmarkUsedFrom(b *testing.B) {
	w := newWorld(b, unlimited())
	v, _ := w.issued("alice")
	address := netip.MustParseAddr("2001:db8::1")
	b.ReportAllocs()
	for b.Loop() {
		w.UsedFrom(v.Handle, address, "")
	}
}

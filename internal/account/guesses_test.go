package account

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/api"
	"sessiond/store"
	"sessiond/store/faultstore"
)

// Who has to wait before a restart has to wait after it, and nobody else. Neither
// then can anybody tell an account from an invented name.
func TestARestartForgetsNoFailure(t *testing.T) {
	h := newHouse(t).restart()
	h.create("alice", rightPassword)
	h.create("bob", rightPassword)
	from := netip.MustParseAddr("192.0.2.1")
	for range 8 {
		h.clock.Advance(time.Minute)
		h.guess("alice", from)
		h.guess("nobody", from)
	}
	want := h.waits("alice", "nobody", "bob", "somebody")
	for range 3 {
		h.flush()
		h = h.restart()
		if got := h.waits("alice", "nobody", "bob", "somebody"); !slices.Equal(got, want) {
			t.Fatalf("after a restart the waits are %v, want %v", got, want)
		}
	}
	if want[0] == 0 || want[0] != want[1] || want[2] != 0 || want[3] != 0 {
		t.Errorf("the waits are %v", want)
	}
}

// What a restart finds is what there was, whatever moved it.
func TestWhatIsKeptIsWhatThereIs(t *testing.T) {
	h := newHouse(t).restart()
	th := h.throttle
	home := v6(1, 1)
	own := user(7)
	own.policy = policy{after: 3, wait: time.Hour}
	for _, from := range []netip.Addr{{}, home, netip.MustParseAddr("192.0.2.1")} {
		for i := range 5 {
			for _, to := range []target{alice, user(i), atHome(alice), nobody, own} {
				if a, refusal := th.begin(to, from); refusal == nil {
					a.fail()
				}
			}
			h.flush()
		}
	}
	h.clock.Advance(time.Hour - 1) // nothing is forgotten yet
	begin(t, th, user(2), netip.MustParseAddr("192.0.2.1")).pass()
	begin(t, th, atHome(alice), home).pass() // which leaves nothing
	h.flush()
	after := h.restart().throttle
	for key, c := range after.accounts {
		if c.failed == 0 {
			t.Errorf("a counter is kept for nobody: %v", key)
		}
	}
	if diff := cmp.Diff(states(th), states(after)); diff != "" {
		t.Error(diff)
	}
	if len(after.accounts) < 7 || th.key != after.key {
		t.Errorf("%d counters are found", len(after.accounts))
	}
}

func TestARestartRefillsNoAllowance(t *testing.T) {
	h := newHouse(t).restart()
	from := v6(1, 1)
	for i := range networkBurst {
		begin(t, h.throttle, user(i), from).fail()
	}
	h.flush()
	h = h.restart()
	if _, refusal := h.throttle.begin(user(networkBurst), from); refusal == nil || refusal.Data.RetryAfterSeconds != 10 {
		t.Errorf("after a restart one more gets %v, want 10 s", refusal)
	}
	if n := len(states(h.throttle)) - networkBurst; n != 3 { // the /64, the /56 and the /48
		t.Errorf("%d allowances are kept, want 3", n)
	}
}

// An account that is dropped and made again inherits nothing from the other.
func TestANewAccountOfTheSameNameInheritsNothing(t *testing.T) {
	h := newHouse(t).restart()
	was := h.create("alice", rightPassword)
	from := netip.MustParseAddr("192.0.2.1")
	h.login("alice", from)
	for range freeFailures {
		h.guess("alice", netip.Addr{})
	}
	condition := was.Cond()
	was.Drop()
	put, err := was.Put()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.Commit(t.Context(), store.Tx{If: []store.Cond{condition}, Put: []store.Put{put}}); err != nil {
		t.Fatal(err)
	}
	if who, err := h.lookup(t.Context(), "native", "alice", from); err != nil || who.record != nil || who.account != (api.ID{}) || who.familiar {
		t.Errorf("dropped, it is found: %+v, %v", who, err)
	}
	h.create("alice", rightPassword)
	h.flush()
	for range 2 {
		if waits := h.waits("alice"); waits[0] != 0 {
			t.Errorf("it has to wait %d s", waits[0])
		}
		if who, err := h.lookup(t.Context(), "native", "alice", from); err != nil || who.familiar {
			t.Errorf("its networks: %+v, %v", who, err)
		}
		h = h.restart()
	}
}

// Nothing that somebody typed is written, as it may have been his password.
func TestNoBlockHoldsAName(t *testing.T) {
	h := newHouse(t).restart()
	h.create("alice", rightPassword)
	for _, name := range []string{"alice", "typed-secret", "typed secret"} {
		h.guess(name, netip.MustParseAddr("192.0.2.1"))
	}
	h.flush()
	items := h.blocks()
	if len(items) == 0 {
		t.Fatal("nothing is written")
	}
	for _, item := range items {
		if bytes.Contains(item.Value, []byte("typed")) || bytes.Contains(item.Value, []byte("alice")) {
			t.Errorf("a block holds a name: %q", item.Value)
		}
	}
}

func TestWhereNothingHappensNothingIsWritten(t *testing.T) {
	h := newHouse(t).restart()
	h.create("alice", rightPassword)
	rev := h.store.Rev()
	for range 3 {
		h.login("alice", netip.Addr{})
		h.flush()
		h.clock.Advance(2 * maxAge)
	}
	if h.store.Rev() != rev {
		t.Errorf("%d commits", h.store.Rev()-rev)
	}
}

// However long it goes on, the blocks hold what counts and little else.
func TestBlocksAreReplaced(t *testing.T) {
	h := newHouse(t).restart()
	most := 0
	for i := range 20 * maxBlocks {
		begin(t, h.throttle, user(i%700), netip.Addr{}).fail()
		h.clock.Advance(11 * time.Second)
		h.flush()
		most = max(most, len(h.blocks()))
	}
	if most > maxBlocks+2 {
		t.Errorf("there are %d blocks", most)
	}
	if diff := cmp.Diff(states(h.throttle), states(h.restart().throttle)); diff != "" {
		t.Error(diff)
	}
	h.clock.Advance(3 * maxAge)
	h.flush()
	if n := len(h.blocks()); n != 0 {
		t.Errorf("when all is forgotten there are %d blocks", n)
	}
}

func TestALargeFlushIsSeveralBlocks(t *testing.T) {
	h := newHouse(t).restart()
	for i := range 3 * blockEntries {
		begin(t, h.throttle, user(i), v6(uint64(i)<<16, 0)).fail()
	}
	h.flush()
	for _, item := range h.blocks() {
		if len(item.Value) > store.MaxValueLen/2 {
			t.Errorf("a block of %d bytes", len(item.Value))
		}
	}
	if n := len(h.restart().throttle.accounts); n != 3*blockEntries {
		t.Errorf("%d counters are found, want %d", n, 3*blockEntries)
	}
}

// Whichever call to the store fails, and whether it did its work all the same,
// the next flush makes up for it.
func TestAFlushThatFailsIsMadeUpFor(t *testing.T) {
	story := func(p faultstore.Plan) int {
		h := newHouse(t).restart()
		h.throttle.kept.since -= int64(2 * maxAge) // so that blocks are replaced
		for i := range 3 {
			begin(t, h.throttle, user(i), netip.MustParseAddr("192.0.2.1")).fail()
			h.flush()
		}
		h.throttle.kept.since -= int64(2 * maxAge)
		begin(t, h.throttle, user(3), netip.Addr{}).fail()
		faulty := faultstore.New(h.store, p)
		if err := h.throttle.flush(t.Context(), faulty); (err != nil) != (p.Call > 0) {
			t.Errorf("%+v: flush = %v", p, err)
		}
		begin(t, h.throttle, user(4), netip.Addr{}).fail()
		h.flush()
		if diff := cmp.Diff(states(h.throttle), states(h.restart().throttle)); diff != "" {
			t.Errorf("%+v: %s", p, diff)
		}
		return faulty.Calls(0)
	}
	calls := story(faultstore.Plan{})
	if calls < 2 {
		t.Fatalf("the story makes %d calls", calls)
	}
	for call := 1; call <= calls; call++ {
		for _, p := range []faultstore.Plan{{Call: call}, {Call: call, After: true}, {Call: call, Err: store.ErrFull}} {
			story(p)
		}
	}
}

// A machine may start with an earlier time than it stopped with.
func TestARestartWithAnEarlierTime(t *testing.T) {
	h := newHouse(t).restart()
	h.create("alice", rightPassword)
	h.clock.Advance(1000 * 24 * time.Hour)
	for range freeFailures {
		h.guess("alice", netip.MustParseAddr("192.0.2.1"))
		h.guess("nobody", netip.MustParseAddr("192.0.2.1"))
	}
	h.flush()
	h.clock.Advance(-1000 * 24 * time.Hour)
	h = h.restart()
	if got := h.waits("alice", "nobody"); !slices.Equal(got, []int64{1, 1}) {
		t.Errorf("the waits are %v, want a second", got)
	}
	h.guess("alice", netip.Addr{}) // still refused
	h.flush()
	h.clock.Advance(time.Second)
	for range 2 {
		h = h.restart()
		if got := h.waits("alice", "nobody"); !slices.Equal(got, []int64{0, 0}) {
			t.Errorf("a second later the waits are %v", got)
		}
	}
	h.guess("alice", netip.Addr{})
	h.flush()
	if got := h.restart().waits("alice"); got[0] != 2 {
		t.Errorf("after one more failure the wait is %v, want 2 s", got)
	}
}

func TestDamagedBlocksAreRefused(t *testing.T) {
	for _, value := range []string{"", "\x00", "\x02", "\x01\x09", "\x01\x01", "\x01\x02\x00\x00"} {
		h := newHouse(t)
		if _, err := h.store.Commit(t.Context(), store.Tx{Put: []store.Put{{Key: blockKey(0), Value: []byte(value)}}}); err != nil {
			t.Fatal(err)
		}
		if err := h.Load(t.Context()); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%q: Load = %v, want %v", value, err, store.ErrCorrupt)
		}
	}
}

// Two hundred at a time get five checks in each lane, on the store that they are
// kept in.
func TestParallelGuessesInEachLane(t *testing.T) {
	h := newHouse(t).restart()
	h.change("alice", rightPassword, func(*Account) {})
	h.change("carol", rightPassword, func(a *Account) { a.LockoutAfter = 3 })
	home, office := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	h.login("alice", home)
	h.login("alice", office)
	h.login("carol", home)
	before := h.hasher.Runs()
	var wg sync.WaitGroup
	for _, name := range []string{"alice", "nobody", "carol"} {
		for i := range 200 {
			for _, from := range []netip.Addr{home, office, v6(uint64(i)<<16, 0)} {
				wg.Go(func() { h.guess(name, from) })
			}
		}
	}
	wg.Wait()
	// alice: at home, in the office, from elsewhere; nobody once; carol at home and elsewhere.
	if got, want := h.hasher.Runs()-before, int64(3*freeFailures+freeFailures+2*3); got != want {
		t.Errorf("%d checks, want %d", got, want)
	}
}

// FuzzReplay: whatever a block holds, reading it ends, and what was read is
// written and read again as it is.
func FuzzReplay(f *testing.F) {
	th := NewThrottle(nil)
	m := newMoves()
	for _, key := range []tallyKey{{account: alice.account}, {alice.account, netip.MustParseAddr("192.0.2.1")}, {alice.account, v6(1, 0)}} {
		th.accounts[key] = &tally{counter: counter{last: 1, failed: 2, alike: 1, network: 3}, policy: policy{4, 5}}
		m.tallies[key] = struct{}{}
	}
	for _, block := range th.blocks(m) {
		f.Add(block)
	}
	f.Add([]byte("\x01\x02\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x05\x00\x05\x00\x05\x00\x05"))
	f.Add([]byte("\x01\x03\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x05"))
	f.Fuzz(func(t *testing.T, block []byte) {
		now := morning.UnixNano()
		once := NewThrottle(nil)
		if once.replay(block, now) != nil {
			return
		}
		all := newMoves()
		for key := range once.accounts {
			all.tallies[key] = struct{}{}
		}
		named := func(t *Throttle) map[uint32]counter {
			moved := map[uint32]counter{}
			for cell, c := range t.names.all() {
				if *c != (counter{}) {
					moved[cell] = *c
				}
			}
			return moved
		}
		for cell := range named(once) {
			all.names[cell] = struct{}{}
		}
		again := NewThrottle(nil)
		for _, written := range once.blocks(all) {
			if err := again.replay(written, now); err != nil {
				t.Fatal(err)
			}
		}
		if !maps.EqualFunc(once.accounts, again.accounts, func(a, b *tally) bool { return *a == *b }) || !maps.Equal(named(once), named(again)) {
			t.Error("what was read is not what was written")
		}
	})
}

// restart returns a Directory that takes up what the store keeps.
func (h house) restart() house {
	h.t.Helper()
	h.Directory = New(Deps{Store: h.store, Clock: h.clock, Hasher: h.hasher})
	if err := h.Load(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return h
}

func (h house) flush() {
	h.t.Helper()
	if err := h.FlushFailures(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

func (h house) guess(username string, from netip.Addr) {
	_, _ = h.Verify(h.t.Context(), "native", username, api.NewSecret(wrongPassword), from)
}

// login logs in as whoever creates a session does.
func (h house) login(username string, from netip.Addr) {
	h.t.Helper()
	a, err := h.Verify(h.t.Context(), "native", username, api.NewSecret(rightPassword), from)
	if err != nil {
		h.t.Fatal(err)
	}
	if puts := h.Remember(h.t.Context(), a, from); len(puts) > 0 {
		if _, err := h.store.Commit(h.t.Context(), store.Tx{If: []store.Cond{a.Cond()}, Put: puts}); err != nil {
			h.t.Fatal(err)
		}
	}
}

// waits returns how many seconds each name has to wait now, from nowhere.
func (h house) waits(names ...string) (waits []int64) {
	h.t.Helper()
	for _, name := range names {
		who, err := h.lookup(h.t.Context(), "native", name, netip.Addr{})
		if err != nil {
			h.t.Fatal(err)
		}
		a, refusal := h.throttle.begin(who.target, netip.Addr{})
		if refusal == nil {
			a.refund()
			waits = append(waits, 0)
			continue
		}
		waits = append(waits, refusal.Data.RetryAfterSeconds)
	}
	return waits
}

func (h house) blocks() []store.Item {
	h.t.Helper()
	items, err := h.store.List(h.t.Context(), store.Range{Prefix: guessPrefix})
	if err != nil {
		h.t.Fatal(err)
	}
	return items
}

// states tells what a Throttle knows.
func states(th *Throttle) map[string]string {
	all := map[string]string{}
	now := th.clock.Now().UnixNano()
	th.sweep(now)
	for key, c := range th.accounts {
		all[fmt.Sprint("account ", key)] = fmt.Sprintf("%+v", *c)
	}
	for i, cell := range th.names.all() {
		c := *cell
		if c.refresh(policy{}, now); c.failed > 0 {
			all[fmt.Sprint("name ", i)] = fmt.Sprintf("%+v", c)
		}
	}
	for i, whole := range th.networks {
		if whole > now {
			all[fmt.Sprint("network ", i)] = fmt.Sprint(whole)
		}
	}
	return all
}

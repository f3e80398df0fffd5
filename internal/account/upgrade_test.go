package account

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sessiond/internal/api"
	"sessiond/store"
	"sessiond/store/faultstore"
)

// A hash of any other cost is replaced when its owner logs in, and nothing else
// of the account changes.
func TestHashesAreUpgradedAtLogIn(t *testing.T) {
	for why, old := range map[string]Cost{
		"less memory":       {MemoryKiB: 32, Iterations: 1, Parallelism: 1},
		"more memory":       {MemoryKiB: 128, Iterations: 1, Parallelism: 1},
		"more iterations":   {MemoryKiB: 64, Iterations: 2, Parallelism: 1},
		"other parallelism": {MemoryKiB: 64, Iterations: 1, Parallelism: 2},
	} {
		t.Run(why, func(t *testing.T) {
			h, before := houseWithOldHash(t, old)
			events := len(h.events())
			if runs := h.logIn("alice"); runs != 2 {
				t.Errorf("the first log-in takes %d hashes, want 2", runs)
			}
			after, err := h.Find(t.Context(), "native", "alice")
			if err != nil {
				t.Fatal(err)
			}
			if !h.hasher.atPresentCost(after.PasswordHash) {
				t.Error("the record still has the old hash")
			}
			same := cmpopts.IgnoreFields(Account{}, "PasswordHash", "Rev")
			if diff := cmp.Diff(before, after, same); diff != "" {
				t.Error(diff)
			}
			if n := len(h.events()) - events; n != 0 {
				t.Errorf("%d events", n)
			}
			rev := h.store.Rev()
			if runs := h.logIn("alice"); runs != 1 || h.store.Rev() != rev {
				t.Errorf("the second log-in takes %d hashes and ends at revision %d; want 1 and %d", runs, h.store.Rev(), rev)
			}
		})
	}
}

// A wrong password, and a right one of who may not log in, change nothing.
func TestOnlyALogInUpgrades(t *testing.T) {
	h, _ := houseWithOldHash(t, oldCost)
	rev := h.store.Rev()
	if _, err := h.Verify(t.Context(), "native", "alice", api.NewSecret(wrongPassword), netip.Addr{}); codeOf(err) != api.LoginFailed {
		t.Errorf("a wrong password: %v", err)
	}
	h.alter("alice", func(a *Account) { a.Disabled = true })
	if _, err := h.Verify(t.Context(), "native", "alice", api.NewSecret(rightPassword), netip.Addr{}); codeOf(err) != api.LoginFailed {
		t.Errorf("a disabled account: %v", err)
	}
	if h.store.Rev() != rev+1 {
		t.Errorf("%d commits, want that of the test alone", h.store.Rev()-rev)
	}
}

// What keeps the new hash from being stored does not keep its owner out, and the
// next log-in stores it.
func TestAnUpgradeThatFailsIsTriedAgain(t *testing.T) {
	for why, plan := range map[string]faultstore.Plan{
		"conflict":                     {Err: store.ErrConflict},
		"full store":                   {Err: store.ErrFull},
		"busy store":                   {Err: store.ErrBusy},
		"unknown outcome":              {Err: store.ErrUnknown},
		"unknown outcome, it was done": {After: true},
	} {
		t.Run(why, func(t *testing.T) {
			h, before := houseWithOldHash(t, oldCost)
			plan.Op, plan.Call = faultstore.Commit, 1
			inner := h.store
			faulty := faultstore.New(inner, plan)
			h.Directory.store = faulty
			got, err := h.Verify(t.Context(), "native", "alice", api.NewSecret(rightPassword), netip.Addr{})
			if err != nil || !faulty.Fired() {
				t.Fatalf("%v; the fault came: %t", err, faulty.Fired())
			}
			if diff := cmp.Diff(before, got, cmp.Comparer(sameSecret)); diff != "" {
				t.Errorf("what it returns is not what was read: %s", diff)
			}
			h.logIn("alice")
			if runs := h.logIn("alice"); runs != 1 {
				t.Errorf("the third log-in takes %d hashes, want 1", runs)
			}
		})
	}
}

// Who changes the account between the check and the upgrade wins: his password
// is not overwritten.
func TestAnUpgradeOverwritesNothing(t *testing.T) {
	h, _ := houseWithOldHash(t, oldCost)
	changed := api.NewSecret("another horse battery")
	h.Directory.store = overtaken{h.store, func() {
		hash, err := h.hasher.Hash(t.Context(), Lane{}, changed)
		if err != nil {
			t.Error(err)
		}
		h.alter("alice", func(a *Account) { a.PasswordHash = hash })
	}}
	got, err := h.Verify(t.Context(), "native", "alice", api.NewSecret(rightPassword), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	h.Directory.store = h.store
	if _, err := h.store.Commit(t.Context(), store.Tx{If: []store.Cond{got.Cond()}}); err == nil {
		t.Error("what was returned still holds, although the password is another")
	}
	if _, err := h.Verify(t.Context(), "native", "alice", changed, netip.Addr{}); err != nil {
		t.Errorf("the new password: %v", err)
	}
}

// Log-ins of one account at one moment all get in, and leave one new hash.
func TestParallelUpgrades(t *testing.T) {
	h, _ := houseWithOldHash(t, oldCost)
	rev := h.store.Rev()
	done := make(chan error)
	for range freeFailures {
		go func() {
			_, err := h.Verify(t.Context(), "native", "alice", api.NewSecret(rightPassword), netip.Addr{})
			done <- err
		}()
	}
	for range freeFailures {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := h.store.Rev() - rev; n != 1 {
		t.Errorf("%d commits, want 1", n)
	}
}

// A queue without a place for the second hash does not fail the log-in.
func TestAnUpgradeWithoutAPlaceIsLeftOut(t *testing.T) {
	h, before := houseWithOldHash(t, oldCost)
	h.hasher.Close()
	if got := h.upgrade(t.Context(), netip.Addr{}, before, api.NewSecret(rightPassword)); got != before {
		t.Errorf("got %+v, want the account as it was", got)
	}
}

var oldCost = Cost{MemoryKiB: 32, Iterations: 1, Parallelism: 1}

// houseWithOldHash is a house in which alice has a hash of another cost.
func houseWithOldHash(t *testing.T, cost Cost) (house, *Account) {
	t.Helper()
	h := newHouse(t)
	former := NewHasherCost(1, 1, cost)
	defer former.Close()
	hash, err := former.Hash(t.Context(), Lane{}, api.NewSecret(rightPassword))
	if err != nil {
		t.Fatal(err)
	}
	h.change("alice", rightPassword, func(a *Account) { a.PasswordHash = hash })
	a, err := h.Find(t.Context(), "native", "alice")
	if err != nil {
		t.Fatal(err)
	}
	return h, a
}

// logIn logs in, checks that what it gets is what is stored, and returns how
// many hashes that took.
func (h house) logIn(username string) int64 {
	h.t.Helper()
	before := h.hasher.Runs()
	got, err := h.Verify(h.t.Context(), "native", username, api.NewSecret(rightPassword), netip.Addr{})
	if err != nil {
		h.t.Fatal(err)
	}
	runs := h.hasher.Runs() - before
	stored, err := h.Find(h.t.Context(), "native", username)
	if err != nil {
		h.t.Fatal(err)
	}
	if diff := cmp.Diff(stored, got, cmp.Comparer(sameSecret)); diff != "" {
		h.t.Errorf("the account differs from its record: %s", diff)
	}
	return runs
}

// alter changes an account that exists.
func (h house) alter(username string, alter func(*Account)) {
	h.t.Helper()
	a, err := h.Find(h.t.Context(), "native", username)
	if err != nil {
		h.t.Fatal(err)
	}
	alter(a)
	put, err := a.Put()
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.store.Commit(h.t.Context(), store.Tx{If: []store.Cond{a.Cond()}, Put: []store.Put{put}}); err != nil {
		h.t.Fatal(err)
	}
}

package session_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/faultstore"
	"sessiond/store/mem"
)

// Tombstones that an older program wrote are counted at the start; from the first
// change on the counts are stored.
func TestTombstonesWithoutCounts(t *testing.T) {
	w := newWorld(t, unlimited())
	for _, user := range []string{"ann", "bob", "cat"} {
		w.ended(user)
	}
	w.issued("dan", idle(60))
	w.advance(60)
	w.maintain()
	if _, err := w.inner.Commit(w.ctx(), store.Tx{Delete: []string{session.TombstonesKey}}); err != nil {
		t.Fatal(err)
	}
	check := func(when string, ended, expired int64) {
		t.Helper()
		if got := w.statistics().Tombstones; got != (session.Tally{session.Ended: ended, session.Expired: expired}) {
			t.Errorf("%s: %v, want %d ended and %d expired", when, got, ended, expired)
		}
	}
	w.restart()
	check("counted", 3, 1)
	if w.has(session.TombstonesKey) {
		t.Error("the counts are written before there is need")
	}
	w.ended("eve")
	w.maintain()
	check("one more", 4, 1)
	if !w.has(session.TombstonesKey) {
		t.Error("the counts are not written")
	}
	w.restart()
	check("loaded", 4, 1)
}

// A tombstone that nobody can read keeps nobody from starting.
func TestUnreadableTombstonesAreNotCounted(t *testing.T) {
	w := newWorld(t, unlimited())
	w.ended("ann")
	w.maintain()
	tx := store.Tx{Delete: []string{session.TombstonesKey}, Put: []store.Put{{Key: session.PastKey(handleOfVectors), Value: []byte("junk")}}}
	if _, err := w.inner.Commit(w.ctx(), tx); err != nil {
		t.Fatal(err)
	}
	w.restart()
	if got := w.statistics().Tombstones; got != (session.Tally{session.Ended: 1}) {
		t.Errorf("counted: %v", got)
	}
}

// Nor does one that is damaged; what comes after it is not counted.
func TestDamagedTombstonesAreNotCounted(t *testing.T) {
	inner := mem.New()
	w := newWorldOn(t, unlimited(), inner, inner)
	w.ended("ann")
	w.maintain()
	if _, err := inner.Commit(w.ctx(), store.Tx{Delete: []string{session.TombstonesKey}}); err != nil {
		t.Fatal(err)
	}
	w.store = &lists{inner, func(prefix string) error {
		if prefix == session.PastKeys {
			return fmt.Errorf("the test's damage: %w", store.ErrCorrupt)
		}
		return nil
	}}
	w.restart()
	if got := w.statistics().Tombstones; got != (session.Tally{}) {
		t.Errorf("counted: %v", got)
	}
}

// Whoever rewrites a tombstone beside the maintenance takes part in the counting:
// whichever of them comes first, nothing is counted twice or not at all.
func TestTombstonesChangeUnderTheMaintenance(t *testing.T) {
	for name, before := range map[string]func(*world){
		"fold":  func(w *world) { w.ended("bob") },
		"bury":  func(w *world) { w.issued("bob", idle(1)); w.advance(1) },
		"purge": func(w *world) { w.clock.Advance(29 * 24 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			between := &hook{}
			inner := mem.New()
			between.Store = inner
			w := newWorldOn(t, unlimited(), inner, between)
			h := w.ended("ann")
			w.ended("cat")
			w.maintain()
			before(w)
			between.before = func(tx *store.Tx) error {
				if puts(tx, "server/") {
					between.before = nil
					w.removeTombstone(h)
				}
				return nil
			}
			w.maintain()
			w.checkStatistics("at first")
			w.maintain()
			w.advance(1)
			w.checkStatistics("later")
			if name == "purge" && w.keys(session.PastKeys) != 0 {
				t.Error("what was changed under a purge is never purged")
			}
			w.restart()
			w.checkStatistics("after a restart")
		})
	}
}

// A purge that has read a tombstone leaves it if it was changed before the commit.
func TestTombstonesChangeBehindAPurge(t *testing.T) {
	inner := mem.New()
	after := &lists{inner, func(string) error { return nil }}
	w := newWorldOn(t, unlimited(), inner, after)
	h := w.ended("ann")
	w.ended("bob")
	w.maintain()
	w.clock.Advance(29 * 24 * time.Hour)
	changed := false
	after.then = func(prefix string) error {
		if prefix == session.PastKeys && !changed {
			changed = true
			w.removeTombstone(h)
		}
		return nil
	}
	w.maintain()
	w.checkStatistics("at first")
	w.maintain()
	w.checkStatistics("later")
	if n := w.keys(session.PastKeys); n != 0 || !changed {
		t.Errorf("%d tombstones are left; changed: %v", n, changed)
	}
}

// Whatever call of the maintenance fails, and whether its work was done, the counts
// stay right.
func TestTombstonesSurviveFaults(t *testing.T) {
	story := func(plan faultstore.Plan) (calls int) {
		inner := mem.New()
		first := newWorldOn(t, unlimited(), inner, inner)
		for range 40 {
			first.ended("ann")
			first.issued("bob", idle(60))
		}
		first.maintain()
		first.clock.Advance(14 * 24 * time.Hour)
		for range 40 {
			first.ended("ann")
			first.issued("bob", idle(60))
		}
		first.advance(60)
		first.Close()
		faults := faultstore.New(inner, plan)
		w := newWorldOn(t, unlimited(), inner, inner)
		w.Close()
		w.store = faults
		w.clock.Advance(first.clock.Now().Sub(w.clock.Now()))
		w.open()
		failed := 0
		for _, what := range []string{"a fold and a sweep", "again", "a purge", "again"} {
			if what == "a purge" {
				w.clock.Advance(15 * 24 * time.Hour)
			}
			if err := w.Maintain(w.ctx()); err != nil {
				failed++
			}
			w.checkStatistics(fmt.Sprint(plan, " ", what))
		}
		if conflict := errors.Is(plan.Err, store.ErrConflict); failed > 1 || failed == 0 && plan.Call > 0 && !conflict {
			t.Errorf("%v: %d times it failed", plan, failed)
		}
		w.restart()
		w.checkStatistics(fmt.Sprint(plan, " and a restart"))
		return faults.Calls(faultstore.Commit)
	}
	calls := story(faultstore.Plan{})
	if calls < 6 {
		t.Fatalf("%d commits", calls)
	}
	for call := 1; call <= calls; call++ {
		for _, after := range []bool{false, true} {
			story(faultstore.Plan{Call: call, Op: faultstore.Commit, After: after})
		}
		story(faultstore.Plan{Call: call, Op: faultstore.Commit, Err: store.ErrConflict})
	}
}

// removeTombstone makes an ended session a removed one.
func (w *world) removeTombstone(h api.ID) {
	w.t.Helper()
	item, err := w.inner.Get(w.ctx(), session.PastKey(h))
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	r, err := session.DecodeRecord(h, item.Value)
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	r.End.Status = session.Removed
	tx := store.Tx{If: []store.Cond{{Key: item.Key, Rev: item.Rev}}, Put: []store.Put{{Key: item.Key, Value: r.Encode()}}}
	w.CountTombstones(&tx, session.Tally{session.Ended: -1, session.Removed: 1})
	if _, err := w.inner.Commit(w.ctx(), tx); err != nil {
		w.t.Fatalf("remove: %v", err)
	}
}

// lists is a store that does something after each page that it reads.
type lists struct {
	store.Store
	then func(prefix string) error
}

func (l *lists) List(ctx context.Context, r store.Range) ([]store.Item, error) {
	items, err := l.Store.List(ctx, r)
	if then := l.then(r.Prefix); err == nil {
		err = then
	}
	return items, err
}

package session_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/bolt"
	"sessiond/store/faultstore"
	"sessiond/store/mem"
)

// A browser has three sessions, of ann, bob and ann again, that joined in this order
// a second apart.
type browser struct {
	*world
	ann, bob, ann2 session.View
	tokens         map[api.ID]string
}

func newBrowser(t *testing.T, w *world) *browser {
	t.Helper()
	b := &browser{world: w, tokens: map[api.ID]string{}}
	b.ann = b.come("ann")
	b.bob = b.come("bob", joins(b.as(b.ann.Handle)))
	b.ann2 = b.come("ann", joins(b.as(b.bob.Handle)))
	return b
}

func (b *browser) come(user string, options ...option) session.View {
	b.t.Helper()
	v, token := b.issued(user, options...)
	b.tokens[v.Handle] = token
	b.advance(1)
	return v
}

// as is the caller with a living session.
func (b *browser) as(h api.ID) *session.Caller {
	b.t.Helper()
	c, ok := b.Present(h)
	if !ok {
		b.t.Fatalf("%s is dead", h)
	}
	return &c
}

func (b *browser) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("%v", err)
	}
}

func (b *browser) logout(h api.ID) {
	b.t.Helper()
	if done, err := b.end(h); !done || err != nil {
		b.t.Fatalf("end %s: %v, %v", h, done, err)
	}
}

// on returns the sessions of the browser of a session, and the one in use there.
func (b *browser) on(h api.ID) (handles []api.ID, active api.ID) {
	b.t.Helper()
	c, err := b.ClientOf(b.ctx(), h)
	b.must(err)
	for i := range c.Sessions {
		handles = append(handles, c.Sessions[i].Handle)
	}
	return handles, c.Active
}

// holds says what is on the browser of each of some sessions, and what is in use.
func (b *browser) holds(active api.ID, want ...api.ID) {
	b.t.Helper()
	for _, h := range want {
		got, inUse := b.on(h)
		if !slices.Equal(got, want) || inUse != active {
			b.t.Errorf("on the browser of %s are %v, in use %s; want %v, %s", h, got, inUse, want, active)
		}
		for _, other := range want {
			if _, lives := b.Living(session.Reach{All: true}, h); !lives {
				continue
			}
			if shares, err := b.Shares(b.ctx(), h, other); !shares || err != nil {
				b.t.Errorf("%s and %s are on one browser: %v, %v", h, other, shares, err)
			}
		}
	}
}

func TestWhatABrowserHolds(t *testing.T) {
	b := newBrowser(t, newWorld(t, unlimited()))
	alone := b.come("ann")
	for range 2 {
		b.holds(b.ann2.Handle, b.ann.Handle, b.bob.Handle, b.ann2.Handle)
		b.holds(alone.Handle, alone.Handle)
		if shares, err := b.Shares(b.ctx(), alone.Handle, b.ann.Handle); shares || err != nil {
			t.Errorf("another browser: %v, %v", shares, err)
		}
		if shares, err := b.Shares(b.ctx(), b.ann.Handle, alone.Handle); shares || err != nil {
			t.Errorf("another browser: %v, %v", shares, err)
		}
		b.restart()
	}
	b.logout(b.ann.Handle) // after which the browser is named all the same
	b.logout(alone.Handle)
	for range 3 {
		b.holds(b.ann2.Handle, b.ann.Handle, b.bob.Handle, b.ann2.Handle)
		b.holds(api.ID{}, alone.Handle)
		b.maintain()
		b.restart()
	}
	late := b.come("carol", joins(b.as(b.bob.Handle)))
	b.holds(late.Handle, b.ann.Handle, b.bob.Handle, b.ann2.Handle, late.Handle)
	if b.keys(session.ClientKeys) != 1 {
		t.Errorf("%d browsers are stored", b.keys(session.ClientKeys))
	}
}

// The session in use is the one that was activated or joined last; once that is dead,
// the one that was used last.
func TestWhichSessionIsInUse(t *testing.T) {
	b := newBrowser(t, newWorld(t, unlimited()))
	all := []api.ID{b.ann.Handle, b.bob.Handle, b.ann2.Handle}
	b.advance(10)
	b.must(b.Activate(b.ctx(), b.ann.Handle))
	b.holds(b.ann.Handle, all...)
	if live, _ := b.Living(session.Reach{All: true}, b.ann.Handle); live.LastAccess != b.unix() {
		t.Error("to activate it is no use of it")
	}
	b.advance(1)
	b.Authenticate(b.tokens[b.bob.Handle], true)
	b.holds(b.ann.Handle, all...)
	b.logout(b.ann.Handle)
	b.holds(b.bob.Handle, all...)
	b.advance(1)
	b.Authenticate(b.tokens[b.ann2.Handle], true)
	b.holds(b.ann2.Handle, all...)
	if err := b.Activate(b.ctx(), b.ann.Handle); err == nil {
		b.holds(b.ann2.Handle, all...)
	}
	b.logout(b.ann2.Handle)
	b.logout(b.bob.Handle)
	b.holds(api.ID{}, all...)
}

// What was confirmed is there after a kill.
func TestABrowserAfterAKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	st, err := bolt.Open(t.Context(), path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	b := newBrowser(t, newWorldOn(t, unlimited(), st, st))
	b.must(b.Activate(b.ctx(), b.ann.Handle))
	if _, err := b.Remove(b.ctx(), b.bob.Handle, b.as(b.ann2.Handle)); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(path)
	b.must(err)
	b.must(os.WriteFile(path+"2", image, 0o600))
	killed, err := bolt.Open(t.Context(), path+"2", bolt.Options{})
	b.must(err)
	defer func() { _ = killed.Close() }()
	b.Close()
	b.inner, b.store = killed, killed
	b.open()
	b.holds(b.ann.Handle, b.ann.Handle, b.ann2.Handle)
	if v, err := b.Get(b.ctx(), b.bob.Handle); err != nil || v.Status() != session.Removed {
		t.Errorf("the removed one: %v, %v", v.Status(), err)
	}
}

// A session is taken off its browser however it stands, once, and what is counted of
// tombstones stays right.
func TestRemove(t *testing.T) {
	for _, tt := range []struct {
		why  string
		die  func(b *browser)
		was  session.Status
		ends bool // its removal is its end
	}{
		{"it lives", func(*browser) {}, session.Active, true},
		{"logged out", func(b *browser) { b.logout(b.bob.Handle) }, session.Ended, false},
		{"logged out, and folded", func(b *browser) { b.logout(b.bob.Handle); b.maintain() }, session.Ended, false},
		{"expired", func(b *browser) { b.advance(100) }, session.Expired, false},
		{"expired, and swept", func(b *browser) { b.advance(100); b.maintain() }, session.Expired, false},
		{"ended with its account's", func(b *browser) {
			_, err := b.EndAccount(b.ctx(), "web", "bob", false, &session.AccountChange{Reason: session.ReasonRevoked})
			b.must(err)
		}, session.Revoked, false},
	} {
		t.Run(tt.why, func(t *testing.T) {
			b := &browser{world: newWorld(t, unlimited()), tokens: map[api.ID]string{}}
			b.ann = b.come("ann")
			b.bob = b.come("bob", joins(b.as(b.ann.Handle)), idle(100))
			tt.die(b)
			h, reason := b.bob.Handle, session.ReasonLogout
			if v, err := b.Get(b.ctx(), h); err != nil || v.Status() != tt.was {
				t.Fatalf("%v, %v", v.Status(), err)
			} else if !tt.ends {
				reason = v.End.Reason
			}
			if got := b.crowd(8, api.OK, func(*world, int) error { _, err := b.Remove(b.ctx(), h, b.as(b.ann.Handle)); return err }); got != 8 {
				t.Errorf("%d of 8 removals succeeded", got)
			}
			for range 2 {
				v, err := b.Get(b.ctx(), h)
				if err != nil || v.Status() != session.Removed || v.End.Reason != reason {
					t.Errorf("it is %s for %q, %v; want it removed for %q", v.Status(), v.End.Reason, err, reason)
				}
				b.holds(b.ann.Handle, b.ann.Handle)
				if shares, err := b.Shares(b.ctx(), b.ann.Handle, h); shares || err != nil {
					t.Errorf("it is on the browser still: %v, %v", shares, err)
				}
				if b.lives(b.tokens[h]) {
					t.Error("its token lives")
				}
				b.recount()
				b.maintain()
				b.restart()
			}
			removals := 0
			for _, e := range b.events(h) {
				if e.Status == "removed" {
					removals++
				}
			}
			if removals != 1 {
				t.Errorf("%d events tell of its removal", removals)
			}
			st, err := b.Statistics(b.ctx())
			b.must(err)
			if n := st.Tombstones[session.Removed]; n != 1 {
				t.Errorf("%d removed ones are counted", n)
			}
		})
	}
}

// The purge takes what is forgotten off its browser, and the browser with its last
// session; a purge that breaks off anywhere leaves nothing behind for good.
func TestPurgedBrowsers(t *testing.T) {
	for _, plan := range []faultstore.Plan{{}, {Err: store.ErrFull}, {After: true}, {Op: faultstore.Get}, {Err: store.ErrConflict}} {
		plan.Op = max(plan.Op, faultstore.Commit)
		if plan.Op == faultstore.Commit && plan == (faultstore.Plan{Op: faultstore.Commit}) {
			plan.Op = faultstore.Get
		}
		for call := range 6 {
			inner := mem.New()
			b := newBrowser(t, newWorldOn(t, unlimited(), inner, inner))
			b.logout(b.bob.Handle)
			b.maintain()
			b.clock.Advance(20 * 24 * time.Hour)
			_, err := b.Remove(b.ctx(), b.ann.Handle, b.as(b.ann2.Handle))
			b.must(err)
			b.maintain()
			b.clock.Advance(9 * 24 * time.Hour)
			b.Close()
			faulty := faultstore.New(inner, faultstore.Plan{})
			b.store = faulty
			b.open()
			plan.Call = faulty.Calls(plan.Op) + call + 1
			b.Close()
			b.store = faultstore.New(inner, plan)
			b.open()
			_ = b.Maintain(b.ctx()) // it is repeated
			b.store = inner
			b.restart()
			b.maintain()
			b.holds(b.ann2.Handle, b.ann2.Handle)
			if stored, err := b.StoredMembers(b.ctx(), b.ann2.Handle); err != nil || len(stored) != 2 {
				t.Errorf("%+v: %d are stored, %v", plan, len(stored), err)
			}
			b.logout(b.ann2.Handle)
			b.maintain()
			b.clock.Advance(29 * 24 * time.Hour)
			b.maintain()
			if n := b.keys(session.ClientKeys) + b.keys(session.PastKeys); n != 0 {
				t.Errorf("%+v: %d keys are left", plan, n)
			}
			b.Close()
		}
	}
}

// However many have come and gone, a browser lists 256, and all that live.
func TestABrowserIsBounded(t *testing.T) {
	b := newBrowser(t, newWorld(t, unlimited()))
	var last []api.ID
	for i := range 300 {
		v, _ := b.issued("carol", joins(b.as(b.ann.Handle)))
		if i%100 == 0 {
			_, err := b.Remove(b.ctx(), v.Handle, b.as(b.ann.Handle))
			b.must(err)
			continue
		}
		b.logout(v.Handle)
		last = append(last, v.Handle)
	}
	want := append([]api.ID{b.ann.Handle, b.bob.Handle, b.ann2.Handle}, last[len(last)-253:]...)
	got, _ := b.on(b.ann.Handle)
	if stored, err := b.StoredMembers(b.ctx(), b.ann.Handle); err != nil || len(stored) != 256 {
		t.Errorf("%d are stored, %v", len(stored), err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d are listed, want the last %d", len(got), len(want))
	}
}

// A session that reauthenticates stays where it was, whoever joins meanwhile.
func TestAReauthenticatedSessionStays(t *testing.T) {
	w := newWorld(t, unlimited())
	w.account("alice")
	again := func(b *browser, h api.ID) session.View {
		t.Helper()
		c := b.as(h)
		v, token, err := b.login("alice", rightPassword, func(n *session.NewSession) {
			n.Instead, n.Inherit = c, func(old *session.Record) error { n.Client = old.ClientID(); return nil }
		})
		b.must(err)
		b.tokens[v.Handle] = token
		b.advance(1)
		return v
	}
	b := &browser{world: w, tokens: map[api.ID]string{}}
	first, _, err := w.login("alice", rightPassword)
	b.must(err)
	second := again(b, first.Handle)
	if second.ClientID() != first.ClientID() {
		t.Error("it is on another browser")
	}
	b.holds(second.Handle, second.Handle)
	bob := b.come("bob", joins(b.as(second.Handle)))
	third := again(b, second.Handle)
	b.holds(third.Handle, second.Handle, bob.Handle, third.Handle)
	if bob.ClientID() != first.ClientID() || third.ClientID() != first.ClientID() {
		t.Error("they are on different browsers")
	}
	b.restart()
	b.holds(third.Handle, second.Handle, bob.Handle, third.Handle)
	b.logout(third.Handle)
	b.logout(bob.Handle)
	b.maintain()
	b.clock.Advance(29 * 24 * time.Hour)
	b.maintain()
	if n := b.keys(session.ClientKeys); n != 0 {
		t.Errorf("%d browsers are left", n)
	}
}

// A session is joined while it lives: one that dies while the log-in waits for its
// commit is joined no more, and the log-in does not happen.
func TestJoiningADyingSession(t *testing.T) {
	for _, tt := range []struct {
		why string
		die func(b *browser)
	}{
		{"logged out", func(b *browser) { b.logout(b.ann.Handle) }},
		{"logged out, and folded", func(b *browser) { b.logout(b.ann.Handle); b.must(b.FoldEnds(b.ctx())) }},
		{"removed", func(b *browser) {
			_, err := b.Remove(b.ctx(), b.ann.Handle, b.as(b.ann.Handle))
			b.must(err)
		}},
	} {
		t.Run(tt.why, func(t *testing.T) {
			inner := mem.New()
			h := &hook{Store: inner}
			b := &browser{world: newWorldOn(t, unlimited(), inner, h), tokens: map[api.ID]string{}}
			b.ann = b.come("ann")
			waiting := newGate(session.ClientKeys)
			h.before = waiting.hold
			caller := b.as(b.ann.Handle)
			var wg sync.WaitGroup
			var err error
			wg.Go(func() { _, _, err = b.issue("bob", joins(caller)) })
			<-waiting.arrived
			tt.die(b)
			close(waiting.opened)
			wg.Wait()
			if codeOf(err) != api.InvalidAuthToken || b.Count() != 0 || b.keys(session.ClientKeys) != 0 {
				t.Errorf("%v, %d live, %d browsers", err, b.Count(), b.keys(session.ClientKeys))
			}
			if _, _, err := b.issue("bob", joins(caller)); codeOf(err) != api.InvalidAuthToken {
				t.Errorf("later: %v", err)
			}
			b.recount()
		})
	}
}

// An end that is under way is joined no more, though it may yet be refused.
func TestJoiningAnEndThatWasRefused(t *testing.T) {
	inner := mem.New()
	h := &hook{Store: inner}
	b := newBrowser(t, newWorldOn(t, unlimited(), inner, h))
	caller := b.as(b.bob.Handle)
	h.before = refuse(session.EndKeys, store.ErrFull)
	if _, err := b.end(b.bob.Handle); !errors.Is(err, store.ErrFull) {
		t.Fatal(err)
	}
	if _, _, err := b.issue("carol", joins(caller)); codeOf(err) != api.InvalidAuthToken {
		t.Errorf("join: %v", err)
	}
	b.holds(b.ann2.Handle, b.ann.Handle, b.bob.Handle, b.ann2.Handle)
	b.recount()
}

// However many join at once, the limit of a browser is exact, and all who were let in
// are listed.
func TestTheLimitOfABrowserIsExact(t *testing.T) {
	for _, tt := range []struct {
		policy string
		most   int64
		got    int
		live   int64
	}{
		{"", 5, 4, 5},
		{config.Deny, 5, 4, 5},
		{config.EvictOldest, 5, 40, 5},
		{config.EvictLeastRecentlyUsed, 5, 40, 5},
		{config.EvictAll, 5, 40, 5},
		{config.Deny, 0, 40, 41},
	} {
		t.Run(fmt.Sprint(tt.policy, tt.most), func(t *testing.T) {
			for range 10 {
				w := newWorld(t, unlimited())
				w.config.Defaults.MaxSessionsPerClient, w.config.Defaults.OnSessionLimit.PerClient = tt.most, tt.policy
				b := &browser{world: w, tokens: map[api.ID]string{}}
				b.ann = b.come("ann")
				caller := b.as(b.ann.Handle)
				var mu sync.Mutex
				all := []api.ID{b.ann.Handle}
				code := api.SessionLimitPerClient
				got := w.crowd(40, code, func(*world, int) error {
					v, _, err := b.issue("bob", joins(caller))
					if err == nil {
						mu.Lock()
						defer mu.Unlock()
						all = append(all, v.Handle)
					}
					return err
				})
				if got != tt.got {
					t.Errorf("%d got in, want %d", got, tt.got)
				}
				listed, _ := b.on(b.ann.Handle)
				slices.SortFunc(listed, func(a, b api.ID) int { return slices.Compare(a[:], b[:]) })
				slices.SortFunc(all, func(a, b api.ID) int { return slices.Compare(a[:], b[:]) })
				if !slices.Equal(listed, all) {
					t.Errorf("%d are listed of %d", len(listed), len(all))
				}
				if n := b.Count(); n > tt.live || tt.policy != config.EvictAll && n != tt.live {
					t.Errorf("%d live", n)
				}
				b.succeeded(all)
				b.recount()
			}
		})
	}
}

// Who has ended learns nothing more of its browser than that it was there.
func TestABrowserAfterItsCallersEnd(t *testing.T) {
	b := newBrowser(t, newWorld(t, unlimited()))
	b.logout(b.ann.Handle)
	b.maintain()
	if _, err := b.Shares(b.ctx(), b.ann.Handle, b.bob.Handle); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Shares: %v", err)
	}
	if err := b.Activate(b.ctx(), b.ann.Handle); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Activate: %v", err)
	}
	none := api.ID{1}
	if shares, err := b.Shares(b.ctx(), b.bob.Handle, none); shares || err != nil {
		t.Errorf("with none: %v, %v", shares, err)
	}
	if _, err := b.ClientOf(b.ctx(), none); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of none: %v", err)
	}
	if _, err := b.Remove(b.ctx(), none, b.as(b.bob.Handle)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Remove none: %v", err)
	}
	b.clock.Advance(29 * 24 * time.Hour)
	b.maintain()
	if shares, err := b.Shares(b.ctx(), b.bob.Handle, b.ann.Handle); shares || err != nil {
		t.Errorf("with one that is forgotten: %v, %v", shares, err)
	}
	b.holds(b.ann2.Handle, b.bob.Handle, b.ann2.Handle)
}

// Who is joined makes no room, whatever the policy and the limit: if nobody else may,
// the log-in is refused.
func TestTheJoinedSessionStays(t *testing.T) {
	for _, limit := range []string{config.LimitTotal, config.LimitPerIPAddress, config.LimitPerUsername, config.LimitPerClient} {
		for _, policy := range []string{config.EvictOldest, config.EvictLeastRecentlyUsed, config.EvictNextToExpire, config.EvictAll} {
			t.Run(limit+" "+policy, func(t *testing.T) {
				b := &browser{world: newWorld(t, unlimited()), tokens: map[api.ID]string{}}
				here := from("192.0.2.1")
				b.ann = b.come("ann", here, lifetime(100))
				caller := b.as(b.ann.Handle)
				s := &scene{world: b.world}
				s.limit(limit, 2, policy)
				other := b.come("ann", here, joins(caller))
				third := b.come("ann", here, joins(caller))
				b.evicted(other.Handle, limit, third.Handle)
				s.limit(limit, 1, policy)
				fourth, _, err := b.issue("ann", here, joins(caller))
				if err == nil || !b.lives(b.tokens[b.ann.Handle]) || !b.lives(b.tokens[third.Handle]) {
					t.Errorf("%s got in, the joined one lives: %v, %v", fourth.Handle, b.lives(b.tokens[b.ann.Handle]), err)
				}
				b.recount()
			})
		}
	}
}

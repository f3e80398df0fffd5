package session_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// A log-in whose password was checked, but whose commit waits, while the account
// or something above it changes.
func TestALoginThatIsOvertaken(t *testing.T) {
	disable := func(w *world) error {
		a, err := w.accounts.Find(w.ctx(), "native", "alice")
		if err != nil {
			return err
		}
		a.Disabled = true
		put, err := a.Put()
		if err != nil {
			return err
		}
		_, err = w.inner.Commit(w.ctx(), store.Tx{If: []store.Cond{a.Cond()}, Put: []store.Put{put}})
		return err
	}
	drop := func(w *world) error {
		_, err := w.inner.Commit(w.ctx(), store.Tx{Delete: []string{account.Key("native", "alice")}})
		return err
	}
	endAll := func(permanent bool) func(*world) error {
		return func(w *world) error {
			_, err := w.EndAccount(w.ctx(), "native", "alice", permanent, &session.AccountChange{Reason: session.ReasonRevoked})
			return err
		}
	}
	for _, tt := range []struct {
		why       string
		permanent bool
		meanwhile func(w *world) error
		want      api.Code
	}{
		{"nothing happens", false, func(*world) error { return nil }, api.OK},
		{"a new password", false, (*world).newPassword, api.LoginFailed},
		{"a new password, for a key", true, (*world).newPassword, api.LoginFailed},
		{"disabled", false, disable, api.LoginFailed},
		{"dropped", false, drop, api.LoginFailed},
		{"its sessions are ended", false, endAll(false), api.OK},
		{"its sessions and keys are ended", true, endAll(true), api.OK},
		{"the realm's sessions are ended", false, func(w *world) error { w.raise(session.RealmEpoch("native"), false); return nil }, api.OK},
		{"the realm's keys are ended", true, func(w *world) error { w.raise(session.RealmEpoch("native"), true); return nil }, api.OK},
		{"all sessions are ended", false, func(w *world) error { w.raise(session.ServerEpoch, false); return nil }, api.OK},
		{"all keys are ended", true, func(w *world) error { w.raise(session.ServerEpoch, true); return nil }, api.OK},
	} {
		t.Run(tt.why, func(t *testing.T) {
			inner := mem.New()
			waiting := newGate(session.LiveKeys)
			w := newWorldOn(t, unlimited(), inner, &hook{Store: inner, before: waiting.hold})
			a := w.account("alice")
			var (
				wg    sync.WaitGroup
				v     session.View
				token string
				err   error
			)
			wg.Go(func() {
				v, token, err = w.login("alice", rightPassword, func(n *session.NewSession) { n.Permanent = tt.permanent })
			})
			<-waiting.arrived
			meanwhile := tt.meanwhile(w)
			close(waiting.opened)
			wg.Wait()
			if meanwhile != nil {
				t.Fatal(meanwhile)
			}
			if codeOf(err) != tt.want {
				t.Fatalf("the log-in: %v, want %d", err, tt.want)
			}
			if err != nil {
				if n := len(w.OfAccount(a.ID)); n != 0 || w.Count() != 0 {
					t.Errorf("%d sessions live", n)
				}
			} else if !w.lives(token) || !w.isOfPresentEpochs(v.Handle) {
				t.Errorf("it lives: %v, of the present epochs: %v", w.lives(token), w.isOfPresentEpochs(v.Handle))
			}
			w.recount()
		})
	}
}

func (w *world) newPassword() error {
	_, err := w.ChangePassword(w.ctx(), session.PasswordChange{Realm: "native", Username: "alice", Password: api.NewSecret(otherPassword)})
	return err
}

// isOfPresentEpochs compares a session's record with the store.
func (w *world) isOfPresentEpochs(h api.ID) bool {
	item, err := w.inner.Get(w.ctx(), session.LiveKey(h))
	if err != nil {
		w.t.Fatalf("read: %v", err)
	}
	r, err := session.DecodeRecord(h, item.Value)
	if err != nil {
		w.t.Fatalf("decode: %v", err)
	}
	a, err := w.accounts.Find(w.ctx(), r.Realm, r.Username)
	if err != nil {
		w.t.Fatalf("find: %v", err)
	}
	want := session.Epochs{Account: a.Epoch.For(r.Permanent)}
	for key, epoch := range map[string]*uint64{session.ServerEpoch: &want.Server, session.RealmEpoch(r.Realm): &want.Realm} {
		item, err := w.inner.Get(w.ctx(), key)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		g, err := session.DecodeGeneration(item)
		if err != nil {
			w.t.Fatalf("decode: %v", err)
		}
		if *epoch = g.Temporary; r.Permanent {
			*epoch = g.All
		}
	}
	return r.Epochs == want
}

// Log-ins race whatever ends them, in any order: who knows only the old password
// is out, and every session that lives is of the epochs in force.
func TestLoginsRaceWhatEndsThem(t *testing.T) {
	const rounds = 500
	for round := range rounds {
		random := rand.New(rand.NewPCG(1, uint64(round)))
		w := newWorld(t, unlimited())
		a := w.account("alice")
		var (
			wg     sync.WaitGroup
			begin  = make(chan struct{})
			mu     sync.Mutex
			tokens []string
		)
		for range 1 + random.IntN(3) {
			wg.Go(func() {
				<-begin
				_, token, err := w.login("alice", rightPassword)
				if code := codeOf(err); code != api.OK && code != api.LoginFailed {
					t.Errorf("round %d: log in: %v", round, err)
				}
				mu.Lock()
				defer mu.Unlock()
				tokens = append(tokens, token)
			})
		}
		changes := []func(){
			func() {
				if err := w.newPassword(); err != nil {
					t.Errorf("round %d: change the password: %v", round, err)
				}
			},
			func() { w.raise(session.ServerEpoch, false) },
			func() { w.raise(session.RealmEpoch("native"), false) },
			func() {
				if _, err := w.EndAccount(w.ctx(), "native", "alice", false, &session.AccountChange{Reason: session.ReasonRevoked}); err != nil {
					t.Errorf("round %d: end: %v", round, err)
				}
			},
		}
		which := random.IntN(len(changes))
		wg.Go(func() {
			<-begin
			changes[which]()
		})
		close(begin)
		wg.Wait()
		for _, token := range tokens {
			if which == 0 && w.lives(token) {
				t.Errorf("round %d: in with the old password", round)
			}
		}
		for _, live := range w.OfAccount(a.ID) {
			if !w.isOfPresentEpochs(live.Handle) {
				t.Errorf("round %d: a session of a past epoch lives", round)
			}
		}
		w.recount()
		w.Close()
	}
}

// Of many ends of one session one did it, and each answer comes when it is dead.
func TestOneOfManyEndsDidIt(t *testing.T) {
	for range 200 {
		w := newWorld(t, unlimited())
		v, token := w.issued("ann")
		w.issued("ann") // so that the account stays known
		var (
			wg    sync.WaitGroup
			did   atomic.Int32
			begin = make(chan struct{})
		)
		for range 4 {
			wg.Go(func() {
				<-begin
				done, err := w.end(v.Handle)
				if err != nil || w.lives(token) {
					t.Errorf("%v, and it lives: %v", err, w.lives(token))
				}
				if done {
					did.Add(1)
				}
			})
		}
		close(begin)
		wg.Wait()
		if did.Load() != 1 {
			t.Fatalf("%d ends did it", did.Load())
		}
		if n := len(w.events(v.Handle)); n != 2 {
			t.Fatalf("%d events, want its creation and one end", n)
		}
		w.Close()
	}
}

// An end and alterations of one session: the end wins whatever the order, and an
// alteration that was confirmed is in the tombstone.
func TestEndsRaceAlterations(t *testing.T) {
	for round := range 200 {
		w := newWorld(t, unlimited())
		v, token := w.issued("ann", idle(1000))
		w.issued("ann") // so that the account stays known
		var (
			wg      sync.WaitGroup
			altered atomic.Int32
			begin   = make(chan struct{})
		)
		for range 3 {
			wg.Go(func() {
				<-begin
				_, err := w.Alter(t.Context(), v.Handle, event.Actor{}, func(r *session.Record) error { r.IdleSeconds++; return nil })
				switch {
				case err == nil:
					altered.Add(1)
				case !errors.Is(err, store.ErrNotFound):
					t.Errorf("round %d: alter: %v", round, err)
				}
			})
		}
		wg.Go(func() {
			<-begin
			if done, err := w.end(v.Handle); !done || err != nil {
				t.Errorf("round %d: end: %v, %v", round, done, err)
			}
		})
		close(begin)
		wg.Wait()
		if w.lives(token) {
			t.Fatalf("round %d: it lives", round)
		}
		w.maintain()
		r, err := w.tombstone(v.Handle)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		// One that committed before the end, but was answered after it, was told
		// that the session is gone: more may stand there than was confirmed.
		if n := int64(altered.Load()); r.IdleSeconds < 1000+n || r.End.Status != session.Ended {
			t.Fatalf("round %d: %d alterations were confirmed, the tombstone has %d and %+v", round, n, r.IdleSeconds-1000, r.End)
		}
		w.Close()
	}
}

// An end that comes between an alteration's reading and its commit.
func TestAnAlterationIsOvertakenByAnEnd(t *testing.T) {
	inner := mem.New()
	h := &hook{Store: inner}
	w := newWorldOn(t, unlimited(), inner, h)
	v, token := w.issued("ann")
	w.issued("ann") // so that the account stays known
	h.before = func(*store.Tx) error {
		h.before = nil
		if done, err := w.end(v.Handle); !done || err != nil {
			t.Errorf("end: %v, %v", done, err)
		}
		return nil
	}
	if _, err := w.Alter(t.Context(), v.Handle, event.Actor{}, func(r *session.Record) error { r.Description = "altered"; return nil }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("altered: %v", err)
	}
	if w.lives(token) {
		t.Error("it lives again")
	}
	w.recount()
	w.maintain()
	if r, err := w.tombstone(v.Handle); err != nil || r.Description != "" || r.End.Status != session.Ended {
		t.Errorf("its tombstone: %+v, %v", r, err)
	}
}

// An end is in force from the call on, and stays in force when its commit fails.
// Until a restart: what was not written is not known then.
func TestAnEndIsInForceBeforeItsCommit(t *testing.T) {
	for _, failure := range []error{nil, store.ErrUnknown, store.ErrFull, store.ErrBusy, store.ErrStopped} {
		inner := mem.New()
		h := &hook{Store: inner}
		w := newWorldOn(t, unlimited(), inner, h)
		v, token := w.issued("ann")
		during := true
		h.before = func(*store.Tx) error {
			during = w.lives(token)
			return failure
		}
		done, err := w.end(v.Handle)
		if done != (failure == nil) || !errors.Is(err, failure) || during {
			t.Fatalf("%v: done %v, %v; alive during the commit: %v", failure, done, err, during)
		}
		if w.lives(token) {
			t.Fatalf("%v: alive after it", failure)
		}
		if view, err := w.Get(t.Context(), v.Handle); err != nil || view.Live || view.Status() != session.Ended {
			t.Errorf("%v: it is shown as %v, %v", failure, view.Status(), err)
		}
		w.recount()
		if failure == nil {
			continue
		}
		h.before = nil
		w.maintain() // which is no reason for it to live or to vanish
		if w.lives(token) || w.keys(session.LiveKeys) != 1 {
			t.Errorf("%v: after maintenance alive %v, %d records", failure, w.lives(token), w.keys(session.LiveKeys))
		}
		if done, err := w.end(v.Handle); !done || err != nil {
			t.Errorf("%v: repeated: %v, %v", failure, done, err)
		}
		w.restart()
		if w.lives(token) {
			t.Errorf("%v: alive after an end that was confirmed", failure)
		}
	}
}

// An end whose answer was lost is repeated, and both times the session is dead.
func TestAnEndWhoseAnswerWasLost(t *testing.T) {
	inner := mem.New()
	lost := &lossy{Store: inner}
	w := newWorldOn(t, unlimited(), inner, lost)
	v, token := w.issued("ann")
	lost.now = true
	if done, err := w.end(v.Handle); done || !errors.Is(err, store.ErrUnknown) || w.lives(token) {
		t.Fatalf("%v, %v, alive %v", done, err, w.lives(token))
	}
	lost.now = false
	if done, err := w.end(v.Handle); done || err != nil {
		t.Errorf("repeated: %v, %v", done, err)
	}
	w.restart()
	if w.lives(token) {
		t.Error("alive after a restart")
	}
}

// lossy commits and loses the answer.
type lossy struct {
	store.Store
	now bool
}

func (l *lossy) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	rev, err := l.Store.Commit(ctx, tx)
	if l.now && err == nil {
		return 0, store.ErrUnknown
	}
	return rev, err
}

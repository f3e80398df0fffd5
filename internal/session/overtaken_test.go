package session_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// Changes that were right when they were begun, and are overtaken by others.

// Who knows the old password does not undo an administrator's reset.
func TestAnOldPasswordDoesNotUndoAReset(t *testing.T) {
	w := newWorld(t, unlimited())
	w.account("alice")
	checked, err := w.accounts.Verify(t.Context(), "native", "alice", api.NewSecret(rightPassword), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	reset := session.PasswordChange{Realm: "native", Username: "alice", Password: api.NewSecret(otherPassword)}
	if _, err := w.ChangePassword(t.Context(), reset); err != nil {
		t.Fatal(err)
	}
	late := reset
	late.Password, late.Checked = api.NewSecret("the thief's own, long enough"), checked
	if _, err := w.ChangePassword(t.Context(), late); codeOf(err) != api.LoginFailed {
		t.Errorf("the change that comes too late: %v", err)
	}
	if _, _, err := w.login("alice", otherPassword); err != nil {
		t.Errorf("the password of the reset: %v", err)
	}
}

// Nor does a session that has ended meanwhile.
func TestAnEndedSessionChangesNoPassword(t *testing.T) {
	w := newWorld(t, unlimited())
	w.account("alice")
	v, token, err := w.login("alice", rightPassword)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := w.Authenticate(token, false)
	if _, err := w.End(t.Context(), v.Handle, w.NewEnd(session.Revoked, session.ReasonRevoked, nil), event.Actor{}); err != nil {
		t.Fatal(err)
	}
	change := session.PasswordChange{Realm: "native", Username: "alice", Password: api.NewSecret(otherPassword), Spare: &c}
	if _, err := w.ChangePassword(t.Context(), change); codeOf(err) != api.InvalidAuthToken {
		t.Errorf("the change: %v", err)
	}
	if _, _, err := w.login("alice", rightPassword); err != nil {
		t.Errorf("the old password: %v", err)
	}
}

// A session that is spared stays alive, also where somebody hears of the
// account's new record before the table does.
func TestASparedSessionOutlivesALogin(t *testing.T) {
	inner := mem.New()
	early := &herald{Store: inner}
	w := newWorldOn(t, unlimited(), inner, early)
	w.account("alice")
	v, token, err := w.login("alice", rightPassword)
	if err != nil {
		t.Fatal(err)
	}
	early.before = func(c store.Change) {
		for _, item := range c.Put {
			if a, err := account.Decode(item); err == nil {
				h := api.NewID(morning, [10]byte{9})
				if err := w.Table().ReserveFor(h, a, netip.Addr{}, session.Limits{}, w.unix()); err != nil {
					t.Error(err)
				}
				w.Table().Free(h)
			}
		}
	}
	c, _ := w.Authenticate(token, false)
	if _, err := w.EndAccount(t.Context(), "native", "alice", false, &session.AccountChange{Spare: &c, Reason: session.ReasonRevoked}); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"at once", "after maintenance", "after a restart"} {
		if !w.lives(token) {
			t.Errorf("%s the spared session is dead", when)
		}
		if err := w.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if when != "at once" {
			early.before = nil
			w.restart()
		}
	}
	if got, err := w.Get(t.Context(), v.Handle); err != nil || !got.Live {
		t.Errorf("it is %v, %v", got.Status(), err)
	}
}

// A session that expires while it is being altered is not revived by that.
func TestAnAlterationRevivesNothing(t *testing.T) {
	inner := mem.New()
	h := &hook{Store: inner}
	w := newWorldOn(t, unlimited(), inner, h)
	w.account("alice")
	v, token, err := w.login("alice", rightPassword, func(n *session.NewSession) { n.Idle = 60 })
	if err != nil {
		t.Fatal(err)
	}
	h.before = func(tx *store.Tx) error {
		if puts(tx, session.LiveKeys) {
			w.advance(60)
			if w.lives(token) {
				t.Error("it lives at its deadline")
			}
		}
		return nil
	}
	_, err = w.Alter(t.Context(), v.Handle, event.Actor{}, func(r *session.Record) error {
		r.IdleSeconds = 3600
		return nil
	})
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Alter: %v", err)
	}
	h.before = nil
	for _, when := range []string{"at once", "after a restart"} {
		if w.lives(token) {
			t.Errorf("%s it lives again", when)
		}
		w.restart()
	}
	if err := w.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Get(t.Context(), v.Handle); err != nil || got.Status() != session.Expired {
		t.Errorf("it is %v, %v", got.Status(), err)
	}
}

// A herald tells somebody else of a change before the watcher.
type herald struct {
	store.Store
	before func(store.Change)
}

func (h *herald) Watch(after store.Rev, w store.Watcher) (func(), error) {
	return h.Store.Watch(after, func(c store.Change) {
		if h.before != nil {
			h.before(c)
		}
		w(c)
	})
}

// A change that was done is answered as done, though the session is ended before the
// answer.
func TestAnEndOvertakesTheAnswerOfAChange(t *testing.T) {
	changes := map[string]func(*world, api.ID, string) (session.View, error){
		"alter": func(w *world, h api.ID, _ string) (session.View, error) {
			return w.Alter(w.ctx(), h, event.Actor{}, func(r *session.Record) error {
				r.Description = "altered"
				return nil
			})
		},
		"rotate": func(w *world, _ api.ID, token string) (session.View, error) {
			v, _, err := w.Rotate(w.ctx(), api.NewSecret(token), event.Actor{})
			return v, err
		},
	}
	ends := map[string]func(*world, api.ID) error{
		"a log-out": func(w *world, h api.ID) error {
			_, err := w.end(h)
			return err
		},
		"its account": func(w *world, _ api.ID) error {
			_, err := w.EndAccount(w.ctx(), "web", "ann", true, &session.AccountChange{})
			return err
		},
	}
	for what, change := range changes {
		for by, end := range ends {
			inner := mem.New()
			late := &afterwards{Store: inner}
			w := newWorldOn(t, unlimited(), inner, late)
			v, token := w.issued("ann")
			late.do = func() error { return end(w, v.Handle) }
			got, err := change(w, v.Handle, token)
			if err != nil || !got.Live || got.Revision != 2 || len(got.RealmRoles) != 1 {
				t.Errorf("%s, ended by %s: %+v, %v", what, by, got, err)
			}
			if w.lives(token) {
				t.Errorf("%s, ended by %s: it lives", what, by)
			}
		}
	}
}

// afterwards is a store that does something, once, after a commit and before its
// answer.
type afterwards struct {
	store.Store
	do func() error
}

func (a *afterwards) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	rev, err := a.Store.Commit(ctx, tx)
	if do := a.do; do != nil && err == nil {
		a.do = nil
		err = do()
	}
	return rev, err
}

// Who chooses a session that has expired meanwhile goes on, and leaves its end alone.
func TestAChosenSessionStaysExpired(t *testing.T) {
	c := limited(session.Limits{PerAccount: 2})
	c.Defaults.OnSessionLimit.PerUsername = config.Ask
	w := newWorld(t, c)
	w.account("alice")
	v, _ := w.in("alice", idle(60))
	w.in("alice", idle(0))
	_, _, err := w.login("alice", rightPassword)
	refusal, ok := errors.AsType[*session.ChoiceError](err)
	if !ok {
		t.Fatal(err)
	}
	w.advance(60)
	if _, _, err := w.login("alice", "", func(n *session.NewSession) { n.Ticket, n.Choice = refusal.Ticket, v.Handle }); err != nil {
		t.Fatal(err)
	}
	w.maintain()
	if got, err := w.Get(t.Context(), v.Handle); err != nil || got.Status() != session.Expired || got.End.At != v.IdleAt {
		t.Errorf("it ended as %+v, %v", got.End, err)
	}
}

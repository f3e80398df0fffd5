package session_test

import (
	"context"
	"testing"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// Here one change overtakes another between its decision and its commit.

// reading calls once before a key is read.
type reading struct {
	hook

	key    string
	before func()
}

func (r *reading) Get(ctx context.Context, key string) (store.Item, error) {
	if before := r.before; key == r.key && before != nil {
		r.before = nil
		before()
	}
	return r.hook.Get(ctx, key)
}

// Of two who throw everybody out but themselves the first one wins: his logout has
// ended the other, who is not brought back by his own.
func TestWhoWasThrownOutSparesHimselfNoMore(t *testing.T) {
	inner := mem.New()
	h := &reading{hook: hook{Store: inner}, key: session.ServerEpoch}
	w := newWorldOn(t, unlimited(), inner, h)
	w.account("ada", "operator")
	w.account("bea", "operator")
	_, first := w.in("ada")
	_, second := w.in("bea")
	ada, bea := w.caller(first), w.caller(second)
	h.before = func() {
		if _, _, err := w.EndEverywhere(w.ctx(), session.EndEverywhere{Spare: ada, By: w.Actor(ada)}); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := w.EndEverywhere(w.ctx(), session.EndEverywhere{Spare: bea, By: w.Actor(bea)})
	if codeOf(err) != api.InvalidAuthToken || !w.lives(first) || w.lives(second) {
		t.Errorf("the second logout: %v; the first caller lives: %v, the second: %v", err, w.lives(first), w.lives(second))
	}
}

// A new password that is refused by the store leaves nothing in the table.
func TestALoginBesideOneThatFails(t *testing.T) {
	inner := mem.New()
	h := &hook{Store: inner}
	w := newWorldOn(t, unlimited(), inner, h)
	w.account("alice")
	begun, end := make(chan struct{}), make(chan struct{})
	h.before = func(tx *store.Tx) error {
		if puts(tx, account.KeyPrefix) {
			close(begun)
			<-end
			return store.ErrBusy
		}
		return nil
	}
	failed := make(chan error)
	go func() {
		_, _, err := w.login("alice", rightPassword, func(n *session.NewSession) { n.NewPassword = api.NewSecret(otherPassword) })
		failed <- err
	}()
	<-begun
	_, token := w.in("alice")
	close(end)
	if err := <-failed; err == nil || !w.lives(token) {
		t.Errorf("the other one: %v; the session lives: %v", err, w.lives(token))
	}
}

// Whoever is made an administrator in the step that lowers the last one must still
// be there when it is made.
func TestAWitnessAmongThoseWhoChange(t *testing.T) {
	inner := mem.New()
	h := &hook{Store: inner}
	w := newWorldOn(t, unlimited(), inner, h)
	w.account("ada", "admin")
	w.account("bea", "admin")
	h.before = func(tx *store.Tx) error {
		if h.before = nil; !puts(tx, account.KeyPrefix) {
			t.Error("something else is written")
		}
		_, _, _, err := w.DropAccounts(w.ctx(), "native", []string{"bea"}, &session.AccountChange{Change: func(*account.Account) error { return nil }})
		return err
	}
	grant := func(name string) []account.RoleGrant {
		return []account.RoleGrant{{Realm: "native", Usernames: []string{name}, Roles: []string{"admin"}}}
	}
	_, err := w.accounts.AssignRoles(w.ctx(), event.Actor{}, account.Assignment{
		Add: grant("bea"), Remove: grant("ada"), Allow: func(*account.Role, *account.Account, bool) error { return nil },
	})
	ada, found := w.accounts.Find(t.Context(), "native", "ada")
	if found != nil || len(ada.Roles) != 1 || codeOf(err) != api.NotFound {
		t.Errorf("%v; ada has %v, %v", err, ada.Roles, found)
	}
}

// A time that has come is not moved away any more.
func TestATimeThatHasComeStays(t *testing.T) {
	inner := mem.New()
	h := &hook{Store: inner}
	w := newWorldOn(t, unlimited(), inner, h)
	w.account("alice")
	_, token := w.in("alice")
	w.alter("alice", func(a *account.Account) { a.DisableAt = w.clock.Now().Add(10 * time.Second) })
	w.advance(9)
	h.before = func(*store.Tx) error {
		w.advance(5)
		return nil
	}
	w.alter("alice", func(a *account.Account) { a.DisableAt = time.Time{} })
	if w.lives(token) {
		t.Error("a session lives again")
	}
}

// A caller who was thrown out, or lost what allowed him to ask, changes nothing any
// more, however long ago his rights were looked at.
func TestAuthority(t *testing.T) {
	allow := func(*account.Role, *account.Account, bool) error { return nil }
	for _, tt := range []struct {
		why  string
		lose func(w *world, c *session.Caller)
		want api.Code
	}{
		{"nothing", func(*world, *session.Caller) {}, api.OK},
		{"he alters his session", func(w *world, c *session.Caller) {
			if _, err := w.Alter(w.ctx(), c.Handle, event.Actor{}, func(r *session.Record) error { r.Description = "x"; return nil }); err != nil {
				w.t.Fatalf("alter: %v", err)
			}
		}, api.OK},
		{"he logs out", func(w *world, c *session.Caller) {
			if _, err := w.End(w.ctx(), c.Handle, w.NewEnd(session.Ended, session.ReasonLogout, nil), event.Actor{}); err != nil {
				w.t.Fatalf("end: %v", err)
			}
		}, api.InvalidAuthToken},
		{"everybody is thrown out", func(w *world, _ *session.Caller) {
			if _, _, err := w.EndEverywhere(w.ctx(), session.EndEverywhere{}); err != nil {
				w.t.Fatalf("end everywhere: %v", err)
			}
		}, api.InvalidAuthToken},
		{"his realm is thrown out", func(w *world, _ *session.Caller) {
			if _, _, err := w.EndEverywhere(w.ctx(), session.EndEverywhere{Realm: "native"}); err != nil {
				w.t.Fatalf("end everywhere: %v", err)
			}
		}, api.InvalidAuthToken},
		{"his account is disabled", func(w *world, _ *session.Caller) {
			w.alter("ada", func(a *account.Account) { a.Disabled = true })
		}, api.InvalidAuthToken},
		{"his role is taken", func(w *world, _ *session.Caller) {
			w.alter("ada", func(a *account.Account) { a.Roles = nil })
		}, api.Conflict},
		{"his role allows less", func(w *world, _ *session.Caller) {
			none := []string{}
			if _, err := w.accounts.AlterRole(w.ctx(), event.Actor{}, "clerk", account.RoleChange{Permissions: &none, Allow: func(*account.Role) error { return nil }}); err != nil {
				w.t.Fatalf("alter role: %v", err)
			}
		}, api.Conflict},
	} {
		for _, inCommit := range []bool{false, true} {
			inner := mem.New()
			h := &hook{Store: inner}
			w := newWorldOn(t, unlimited(), inner, h)
			w.account("ada")
			w.account("bea")
			w.createRole("sessiond.*")
			w.give("clerk", "ada")
			_, token := w.in("ada")
			caller := w.caller(token)
			may := w.Authority(caller)
			if inCommit {
				h.before = func(*store.Tx) error {
					h.before = nil
					tt.lose(w, caller)
					return nil
				}
			} else {
				tt.lose(w, caller)
			}
			_, err := w.accounts.AssignRoles(w.ctx(), event.Actor{}, account.Assignment{
				Add: []account.RoleGrant{{Realm: "native", Usernames: []string{"bea"}, Roles: []string{"operator"}}}, Allow: allow, May: may,
			})
			bea, found := w.accounts.Find(t.Context(), "native", "bea")
			if codeOf(err) != tt.want || found != nil || (len(bea.Roles) == 0) != (tt.want != api.OK) {
				t.Errorf("%s, at the commit %v: %v, %v", tt.why, inCommit, err, bea.Roles)
			}
		}
	}
}

// Sessions that an issuer asked for before he was thrown out are not made after it.
func TestAnIssuerWhoIsThrownOutIssuesNoMore(t *testing.T) {
	inner := mem.New()
	h := &hook{Store: inner}
	w := newWorldOn(t, unlimited(), inner, h)
	w.account("gate", "issuer")
	_, token := w.in("gate")
	gate := w.caller(token)
	h.before = func(*store.Tx) error {
		h.before = nil
		_, _, err := w.EndEverywhere(w.ctx(), session.EndEverywhere{Permanent: true})
		return err
	}
	_, _, err := w.issue("ann", func(n *session.NewSession) { n.Issuer = gate })
	if codeOf(err) != api.InvalidAuthToken || w.Count() != 0 {
		t.Errorf("%v, %d live", err, w.Count())
	}
}

package account

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

func TestResetAdmin(t *testing.T) {
	const another = "another horse battery"
	for name, tt := range map[string]struct {
		before      func(*Account) // nil: there is no account
		wantCreated bool
		wantRoles   []string
		wantEvent   event.Event
	}{
		"one who forgot the password": {
			before: func(a *Account) { a.Roles = []RoleRef{{Name: "admin"}} }, wantRoles: []string{"admin"},
			wantEvent: event.Event{Kind: event.PasswordChanged, Reason: "resetAdmin"},
		},
		"one without the role, disabled": {
			before: func(a *Account) { a.Roles, a.Disabled = []RoleRef{{Name: "auditor"}}, true }, wantRoles: []string{"admin", "auditor"},
			wantEvent: event.Event{Kind: event.PasswordChanged, Reason: "resetAdmin"},
		},
		"one that is gone": {
			wantCreated: true, wantRoles: []string{"admin"},
			wantEvent: event.Event{Kind: event.AccountCreated},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			var before Epoch
			if tt.before != nil {
				h.change("Alice", rightPassword, func(a *Account) {
					a.Epoch.Raise(true, Why{})
					before = a.Epoch
					tt.before(a)
				})
			}
			h.clock.Advance(time.Hour)
			rev := h.store.Rev()
			created, err := h.ResetAdmin(t.Context(), "ALICE", api.NewSecret(another))
			if err != nil || created != tt.wantCreated {
				t.Fatalf("created %v, error %v", created, err)
			}
			if got := h.store.Rev(); got != rev+1 {
				t.Errorf("it took %d commits", got-rev)
			}
			a, err := h.Verify(t.Context(), "native", "alice", api.NewSecret(another), netip.Addr{})
			if err != nil {
				t.Fatalf("the new password: %v", err)
			}
			if diff := cmp.Diff(tt.wantRoles, Names(h.Roles().Held(a.Roles))); diff != "" || a.Disabled || !a.PasswordChanged.Equal(h.clock.Now()) {
				t.Errorf("the account is %+v %s", a, diff)
			}
			if tt.before != nil && (a.Epoch.For(false) == before.For(false) || a.Epoch.For(true) != before.For(true)) {
				t.Errorf("epochs go from %+v to %+v: temporary sessions are to end, keys to stay", before, a.Epoch)
			}
			want := tt.wantEvent
			want.Time, want.AccountID, want.Realm, want.Username = h.clock.Now(), a.ID.String(), "native", a.Username
			events := h.events()
			if diff := cmp.Diff(want, events[len(events)-1]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestResetAdminRefuses(t *testing.T) {
	h := newHouse(t)
	h.create("alice", rightPassword)
	rev := h.store.Rev()
	for name, tt := range map[string]struct {
		username, password string
		want               api.Code
	}{
		"a short password":              {"alice", "short", api.PasswordPolicy},
		"a short password, nobody":      {"bob", "short", api.PasswordPolicy},
		"what is no name":               {"a b", rightPassword, api.BadParam},
		"a password that is no text":    {"alice", "\xff" + rightPassword, api.PasswordPolicy},
		"a password with control bytes": {"alice", "\x00" + rightPassword, api.PasswordPolicy},
	} {
		if _, err := h.ResetAdmin(t.Context(), tt.username, api.NewSecret(tt.password)); codeOf(err) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if h.store.Rev() != rev {
		t.Error("a refusal has changed something")
	}
	for _, cause := range []error{store.ErrConflict, store.ErrFull, store.ErrUnknown} {
		d := New(Deps{Store: refusing{h.store, cause}, Clock: h.clock, Hasher: h.hasher})
		if _, err := d.ResetAdmin(t.Context(), "alice", api.NewSecret(rightPassword)); !errors.Is(err, cause) {
			t.Errorf("%v becomes %v", cause, err)
		}
	}
}

func TestResetAdminDoesNotUndoAnotherChange(t *testing.T) {
	h := newHouse(t)
	a := h.create("alice", rightPassword)
	meanwhile := overtaken{h.store, func() {
		a.Description = "changed meanwhile"
		put, err := a.Put()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.store.Commit(t.Context(), store.Tx{Put: []store.Put{put}}); err != nil {
			t.Fatal(err)
		}
	}}
	d := New(Deps{Store: meanwhile, Clock: h.clock, Hasher: h.hasher})
	if _, err := d.ResetAdmin(t.Context(), "alice", api.NewSecret(rightPassword)); codeOf(err) != api.Conflict {
		t.Errorf("got %v", err)
	}
	if found, err := h.Find(t.Context(), "native", "alice"); err != nil || found.Description != "changed meanwhile" {
		t.Errorf("the account is %+v, %v", found, err)
	}
}

// overtaken is a store in which another commit comes first.
type overtaken struct {
	store.Store
	other func()
}

func (o overtaken) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	o.other()
	return o.Store.Commit(ctx, tx)
}

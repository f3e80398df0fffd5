package account

import (
	"context"
	"strings"
	"sync"

	"sessiond/internal/api"
	"sessiond/store"
)

// administrators are the accounts that can repair everything: those of the realm
// native that hold the role admin and may log in, today and at any time. At least one must be
// left, so whoever takes that from one of them names another as his witness, and
// commits on the condition that the witness has not changed either: of two who
// take it from each other, one loses.
type administrators struct {
	mu   sync.Mutex
	keys map[string]bool // of their records: a projection, see note
}

// isAdministrator reports whether a is one of them.
func (a *Account) isAdministrator() bool {
	for _, ref := range a.Roles {
		if ref.Name == adminRole && ref.ID.IsZero() {
			return a.Realm == realmNative && !a.Dropped && !a.Disabled && a.EnableAt.IsZero() && a.DisableAt.IsZero() &&
				a.LoginWithinMinutes == 0 && !a.PasswordHash.IsZero() && a.OneTimeUntil.IsZero()
		}
	}
	return false
}

// note takes over an account's record.
func (s *administrators) note(a *Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.isAdministrator() {
		s.keys[a.Key()] = true
	} else {
		delete(s.keys, a.Key())
	}
}

func (s *administrators) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for key := range s.keys {
		list = append(list, key)
	}
	return list
}

// KeepsAdministrator returns the condition under which accounts may change to
// what is given without leaving the server without an administrator; none where
// that is no question. before are the records as they are. The refusal has code
// Conflict.
func (d *Directory) KeepsAdministrator(ctx context.Context, before, after []*Account) ([]store.Cond, error) {
	changed, lost := map[string]bool{}, false
	for i, a := range after {
		changed[a.Key()] = true
		if a.isAdministrator() {
			return []store.Cond{a.Cond()}, nil
		}
		lost = lost || before[i].isAdministrator()
	}
	if !lost {
		return nil, nil
	}
	for _, key := range d.admins.all() {
		if changed[key] {
			continue
		}
		witness, err := d.at(ctx, key)
		if err != nil {
			return nil, err
		}
		if witness != nil && witness.isAdministrator() {
			return []store.Cond{witness.Cond()}, nil
		}
	}
	return nil, api.Errorf(api.Conflict, "this would leave no administrator: first give the role admin to another account of the realm native that has a password and may log in at any time")
}

// LacksAdministrator reports whether no account of a store is one that may repair
// everything.
func LacksAdministrator(ctx context.Context, s store.Store) (bool, error) {
	r := store.Range{Prefix: Key(realmNative, ""), Limit: 1000}
	for {
		items, err := s.List(ctx, r)
		if err != nil {
			return false, err
		}
		for i := range items {
			a, err := Decode(items[i])
			if err != nil {
				return false, err
			}
			if a.isAdministrator() {
				return false, nil
			}
			r.After = items[i].Key
		}
		if len(items) < r.Limit {
			return true, nil
		}
	}
}

// Note takes over an account that was read while everything is loaded.
func (d *Directory) Note(a *Account) { d.admins.note(a) }

// Apply takes over what a commit changed: it is called in commit order. It
// reports whether a role changed. What it cannot read, it returns.
func (d *Directory) Apply(c store.Change) (rolesChanged bool, err error) {
	rolesChanged, err = d.roles.apply(c)
	for i := range c.Put {
		if !strings.HasPrefix(c.Put[i].Key, KeyPrefix) {
			continue
		}
		a, e := Decode(c.Put[i])
		if e != nil {
			err = e
			continue
		}
		d.admins.note(a)
	}
	return rolesChanged, err
}

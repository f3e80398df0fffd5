package account

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

const (
	realmNative = "native"
	reasonReset = "resetAdmin"

	// as internal/session has them
	reasonNewPassword = "passwordChanged"
	reasonLapsed      = "accountDisabled"
	reasonDropped     = "accountDropped"
	reasonRestored    = "restored"
)

// ResetAdmin lets somebody in again who has nothing but access to the data: it
// sets the password of an account of the realm native without asking for the
// present one, enables it for every address, gives it the role admin and ends its
// temporary sessions, in one commit with its event. An account that does not exist is
// created, which it reports. Errors: PasswordPolicy, BadParam for the user name,
// Conflict.
func (d *Directory) ResetAdmin(ctx context.Context, username string, password api.Secret) (created bool, err error) {
	a, err := d.Find(ctx, realmNative, username)
	if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.NotFound {
		_, err := d.Create(ctx, event.Actor{}, NewAccount{Realm: realmNative, Username: username, Roles: []string{adminRole}, Password: password})
		return err == nil, err
	}
	if err != nil {
		return false, err
	}
	hash, err := d.NewHash(ctx, realmNative, username, password)
	if err != nil {
		return false, err
	}
	now := d.clock.Now()
	a.SetPassword(hash, now, time.Time{})
	if a.Lapsed(now) { // what died then does not live again with the account
		a.Epoch.Raise(true, Why{At: a.DisableAt, Reason: reasonLapsed})
	} else {
		a.Epoch.Raise(false, Why{At: now, Reason: reasonNewPassword})
	}
	a.Disabled, a.EnableAt, a.DisableAt = false, time.Time{}, time.Time{}
	a.AllowedAddresses, a.LastLogin = nil, now
	a.Roles = uniq(append(a.Roles, RoleRef{Name: adminRole}))
	put, err := a.Put()
	if err != nil {
		return false, err
	}
	tx := store.Tx{If: []store.Cond{a.Cond()}, Put: []store.Put{put}, Urgent: true}
	event.Append(&tx, event.Event{
		Time: now, Kind: event.PasswordChanged, AccountID: a.ID.String(), Realm: a.Realm, Username: a.Username, Reason: reasonReset,
	})
	_, err = d.store.Commit(ctx, tx)
	if errors.Is(err, store.ErrConflict) {
		return false, api.Errorf(api.Conflict, "the account changed meanwhile: try again").Because(err)
	}
	if err != nil {
		return false, fmt.Errorf("account: reset: %w", err)
	}
	return false, nil
}

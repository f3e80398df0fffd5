package session

import (
	"context"
	"errors"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

// Alter changes a living session's record and returns it as it is then. change
// may be called more than once; what it refuses leaves everything as it was, and
// the lifetime stays whatever it does: nobody can move that wall. An error wraps
// store.ErrNotFound for a session that does not live.
func (k *Keeper) Alter(ctx context.Context, h api.ID, by event.Actor, change func(*Record) error) (View, error) {
	var v View
	err := store.Retry(func() (err error) {
		v, err = k.alter(ctx, h, by, change)
		return err
	})
	if err != nil {
		return View{}, err
	}
	return k.altered(ctx, v)
}

// AlterAll is Alter for many sessions. It tells of each, in their order, whether it
// was altered: it is not if it lives no longer. The first error is returned, with
// what was done.
func (k *Keeper) AlterAll(ctx context.Context, handles []api.ID, by event.Actor, change func(*Record) error) ([]bool, error) {
	return atOnce(handles, func(h api.ID) (bool, error) {
		_, err := k.Alter(ctx, h, by, change)
		if errors.Is(err, store.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	})
}

func (k *Keeper) alter(ctx context.Context, h api.ID, by event.Actor, change func(*Record) error) (View, error) {
	live, _, ok := k.table.look(proof{handle: h, now: k.now()}, nil)
	if !ok {
		return View{}, store.ErrNotFound
	}
	r, rev, err := k.read(ctx, h)
	if err != nil {
		return View{}, err
	}
	created, lifetime := r.Created, r.MaxSeconds
	if err := change(r); err != nil {
		return View{}, err
	}
	r.Created, r.MaxSeconds = created, lifetime
	return k.renew(ctx, r, rev, live.LastAccess, event.SessionAltered, by)
}

// renew commits a living session's record, as a change of it left it; rev is of the
// record that was changed. It returns the session as the commit left it: it was
// done, even if somebody ends the session before that is answered.
func (k *Keeper) renew(ctx context.Context, r *Record, rev store.Rev, lastAccess int64, kind event.Kind, by event.Actor) (View, error) {
	r.Revision++
	r.LastAccess = lastAccess
	v := View{Record: r, Live: true, IdleAt: r.idleAt(), MaxAt: int64(r.wall())}
	if holds, ok := k.table.rights(r.Handle); ok {
		v.Roles, v.RealmRoles = holds.list()
	}
	tx := store.Tx{
		If:  []store.Cond{{Key: liveKey(r.Handle), Rev: rev}, {Key: endKey(r.Handle)}},
		Put: []store.Put{{Key: liveKey(r.Handle), Value: r.encode()}},
	}
	event.Append(&tx, event.Event{
		Time: k.clock.Now(), Kind: kind, SessionHandle: HandleText(r.Handle), AccountID: r.AccountID.String(),
		Realm: r.Realm, Username: r.Username, Permanent: r.Permanent, By: by,
	})
	_, err := k.store.Commit(ctx, tx)
	return v, err
}

// altered returns a session as its alteration left it: expired, perhaps, if the
// idle time asked for was over already. One that had expired before its life could
// be lengthened is dead; its end is written, so that it is after a restart too.
func (k *Keeper) altered(ctx context.Context, as View) (View, error) {
	r := as.Record
	if v, ok := k.complete(r); ok {
		return v, nil
	}
	if r.End = r.expiry(k.now()); r.End != (End{}) {
		return k.ended(r), nil
	}
	if !k.table.isBuried(r.Handle) || k.table.outdated(r.Handle, k.now()) { // somebody is ending it, with a reason of his own
		return as, nil
	}
	if _, err := k.End(ctx, r.Handle, k.NewEnd(Expired, ReasonIdle, nil), event.Actor{}); err != nil {
		return View{}, err
	}
	return View{}, store.ErrNotFound
}

// A PasswordChange says whose password is replaced, and on whose word.
type PasswordChange struct {
	Realm, Username string
	Password        api.Secret
	By              event.Actor
	Checked         *account.Account // as it was when its present password was checked; nil: an administrator's word stands for it
	May             account.Authority
	Spare           *Caller                      // the account's own session that lives on, and must be alive
	Allow           func(*account.Account) error // refuses an administrator's word; nil: none is needed
}

// ChangePassword replaces an account's password, which ends its other temporary
// sessions in the same commit, and returns how many. A password that was checked
// and has been replaced by others since then changes nothing: LoginFailed.
func (k *Keeper) ChangePassword(ctx context.Context, c PasswordChange) (int, error) {
	hashed, err := k.accounts.NewHash(ctx, c.Realm, c.Username, c.Password)
	if err != nil {
		return 0, err
	}
	_, ended, err := k.AlterAccount(ctx, c.Realm, c.Username, &AccountChange{
		Spare: c.Spare, May: c.May, Reason: ReasonPasswordChanged, By: c.By, Event: event.Event{Kind: event.PasswordChanged},
		Change: func(a *account.Account) error {
			if c.Checked != nil && (a.ID != c.Checked.ID || a.PasswordSerial != c.Checked.PasswordSerial) {
				return account.LoginFailed()
			}
			if c.Allow != nil {
				if err := c.Allow(a); err != nil {
					return err
				}
			}
			a.SetPassword(hashed, k.clock.Now(), time.Time{})
			return nil
		},
	})
	return ended, err
}

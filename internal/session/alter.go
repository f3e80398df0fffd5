package session

import (
	"context"
	"errors"

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
	for range attempts {
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
		r.Revision++
		r.LastAccess = live.LastAccess
		tx := store.Tx{
			If:  []store.Cond{{Key: liveKey(h), Rev: rev}, {Key: endKey(h)}},
			Put: []store.Put{{Key: liveKey(h), Value: r.encode()}},
		}
		err = event.Append(&tx, event.Event{
			Time: k.clock.Now(), Kind: event.SessionAltered, SessionHandle: HandleText(h), AccountID: r.AccountID.String(),
			Realm: r.Realm, Username: r.Username, Permanent: r.Permanent, By: by,
		})
		if err != nil {
			return View{}, err
		}
		_, err = k.store.Commit(ctx, tx)
		if err == nil {
			return k.altered(r)
		}
		if !errors.Is(err, store.ErrConflict) {
			return View{}, err
		}
	}
	return View{}, api.Errorf(api.Conflict, "the session is being changed by others at this moment: try again")
}

// altered returns a session as its alteration left it: expired, perhaps, if the
// idle time asked for was over already.
func (k *Keeper) altered(r *Record) (View, error) {
	v, ok, err := k.complete(r)
	if ok || err != nil {
		return v, err
	}
	if r.End = r.expiry(k.now()); r.End == (End{}) {
		return View{}, store.ErrNotFound // it died while this was on its way
	}
	return View{Record: r}, nil
}

// ChangePassword replaces an account's password, which ends its other temporary
// sessions in the same commit. Unless the caller may write accounts, the current
// password is checked first. It returns how many sessions that ended.
func (k *Keeper) ChangePassword(ctx context.Context, realm, username string, password api.Secret, by event.Actor, spare *Caller) (int, error) {
	prepared, refusal := account.CheckPassword(username, password)
	if refusal != nil {
		return 0, refusal
	}
	hashed, err := k.accounts.Hash(ctx, prepared)
	if err != nil {
		return 0, err
	}
	return k.EndAccount(ctx, realm, username, EndAccount{
		Spare: spare, Reason: ReasonPasswordChanged, By: by, Event: event.Event{Kind: event.PasswordChanged},
		Change: func(a *account.Account) error {
			a.PasswordHash, a.PasswordChanged = hashed, k.clock.Now()
			return nil
		},
	})
}

package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

// Reasons of ends, as the wire has them. They are append-only.
const (
	ReasonLogout          = "logout"
	ReasonRevoked         = "revoked"
	ReasonIdle            = "idleTimeout"
	ReasonLifetime        = "sessionTimeout"
	ReasonPasswordChanged = "passwordChanged"
	ReasonMassLogout      = "massLogout"
	ReasonAccountDisabled = "accountDisabled"
)

// End ends a session. It is dead from the call on, whatever becomes of the
// commit, and done is true once this end is durable; it is false, without an
// error, for a session that has ended already or never was.
func (k *Keeper) End(ctx context.Context, h api.ID, end End, by event.Actor) (done bool, err error) {
	if !k.table.dying(h, k.now()) {
		return false, nil
	}
	err = retry(func() error {
		done, err = k.end(ctx, h, end, by)
		return err
	})
	return done, notWritten(err)
}

func (k *Keeper) end(ctx context.Context, h api.ID, end End, by event.Actor) (done bool, err error) {
	r, rev, err := k.read(ctx, h)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if _, err := k.store.Get(ctx, endKey(h)); err == nil {
		return false, nil // somebody else ended it, durably
	} else if !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	end.LastUse = max(r.LastAccess, k.table.lastUse(h))
	tx := store.Tx{
		If:     []store.Cond{{Key: liveKey(h), Rev: rev}, {Key: endKey(h)}},
		Put:    []store.Put{{Key: endKey(h), Value: end.encode()}},
		Urgent: true,
	}
	event.Append(&tx, k.endEvent(r, end, by))
	_, err = k.store.Commit(ctx, tx)
	return err == nil, err
}

// attempts is how often a change is tried that loses its races.
const attempts = 16

// retry makes a change again as long as others change the same thing meanwhile.
func retry(change func() error) error {
	for range attempts {
		if err := change(); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return store.ErrConflict
}

// endEvent tells of an end that is committed now; the session may have died
// earlier.
func (k *Keeper) endEvent(r *Record, end End, by event.Actor) event.Event {
	return event.Event{
		Time: k.clock.Now(), Kind: event.SessionEnded, SessionHandle: HandleText(r.Handle), AccountID: r.AccountID.String(),
		Realm: r.Realm, Username: r.Username, Permanent: r.Permanent, Status: end.Status.String(), Reason: end.Reason,
		ClientIPAddress: addressText(r.Address), By: by,
	}
}

// parallelEnds is how many ends of one request wait for their commits at once.
const parallelEnds = 64

// EndAll ends many sessions and tells of each, in their order, whether it ended
// now. The first error that is no outcome of a single session is returned, with
// what was done until then.
func (k *Keeper) EndAll(ctx context.Context, handles []api.ID, end End, by event.Actor) ([]bool, error) {
	done := make([]bool, len(handles))
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards first and fault
		first error
		fault any
		next  = make(chan int, len(handles))
	)
	for i := range handles {
		next <- i
	}
	close(next)
	for range min(parallelEnds, len(handles)) {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					mu.Lock()
					defer mu.Unlock()
					fault = p
				}
			}()
			for i := range next {
				ok, err := k.End(ctx, handles[i], end, by)
				if done[i] = ok; err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if fault != nil {
		panic(fault) // where the request can be answered
	}
	return done, first
}

// NewEnd returns an end of the present moment.
func (k *Keeper) NewEnd(status Status, reason string, by *Caller) End {
	end := End{Status: status, At: k.now(), Reason: reason}
	if by != nil {
		end.By = HandleText(by.Handle)
	}
	return end
}

// EndAccount ends an account's sessions in one commit, by raising its epoch: the
// temporary ones, or with permanent all. A caller of that account whom spare
// names lives on. change may alter the account in the same commit. It returns
// how many living sessions that ended.
func (k *Keeper) EndAccount(ctx context.Context, realm, username string, how EndAccount) (ended int, err error) {
	err = retry(func() error {
		a, err := k.accounts.Find(ctx, realm, username)
		if err == nil {
			ended, err = k.endAccount(ctx, a, &how)
		}
		return err
	})
	return ended, err
}

// EndAccount is how an account's sessions are to be ended.
type EndAccount struct {
	Permanent bool
	Spare     *Caller // nil: none
	Reason    string
	By        event.Actor
	Change    func(*account.Account) error // nil: none
	Event     event.Event                  // what is logged; who it is about is filled in
}

func (k *Keeper) endAccount(ctx context.Context, a *account.Account, how *EndAccount) (int, error) {
	tx := store.Tx{If: []store.Cond{a.Cond()}, Urgent: true}
	if how.Change != nil {
		if err := how.Change(a); err != nil {
			return 0, err
		}
	}
	before := a.Epoch
	if how.Permanent {
		a.Epoch.EndAll()
	} else {
		a.Epoch.EndTemporary()
	}
	a.Epoch.Why = account.Why{At: time.Unix(k.now(), 0).UTC(), Reason: how.Reason, By: how.By.SessionHandle}
	put, err := a.Put()
	if err != nil {
		return 0, err
	}
	tx.Put = append(tx.Put, put)
	ended, spared, marked := 0, false, false
	for _, live := range k.table.ofAccount(a.ID, true, k.now()) {
		if before.For(live.Permanent) == a.Epoch.For(live.Permanent) {
			continue
		}
		if how.Spare == nil || live.Handle != how.Spare.Handle {
			ended++
			if how.Change == nil && HandleText(live.Handle) != how.By.SessionHandle { // who asked may ask again, should it be refused
				marked = k.table.dying(live.Handle, k.now()) || marked
			}
			continue
		}
		r, rev, err := k.read(ctx, live.Handle)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		r.Epochs.Account = a.Epoch.For(r.Permanent)
		r.LastAccess = live.LastAccess
		tx.If = append(tx.If, store.Cond{Key: liveKey(r.Handle), Rev: rev}, store.Cond{Key: endKey(r.Handle)})
		tx.Put = append(tx.Put, store.Put{Key: liveKey(r.Handle), Value: r.encode()})
		spared = true
	}
	if how.Change != nil && how.Spare != nil && !spared {
		return 0, api.Errorf(api.InvalidAuthToken, "the authToken belongs to no live session any more: nothing was changed")
	}
	e := how.Event
	e.Time, e.AccountID, e.Realm, e.Username, e.Reason, e.By, e.Count = k.clock.Now(), a.ID.String(), a.Realm, a.Username, how.Reason, how.By, int64(ended)
	event.Append(&tx, e)
	if _, err = k.store.Commit(ctx, tx); marked {
		err = notWritten(err)
	}
	return ended, err
}

// ErrNotWritten is wrapped by an error of an end that could not be written: until
// a restart the session is dead here all the same.
var ErrNotWritten = errors.New("session: the end is in force, but was not written")

func notWritten(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNotWritten, err)
}

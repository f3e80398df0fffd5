package session

import (
	"context"
	"errors"
	"fmt"
	"sync"

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
	ReasonAccountDropped  = "accountDropped"
	ReasonReauthenticated = "reauthenticated"
	ReasonTokenTheft      = "tokenTheft"
	ReasonSalvaged        = "salvaged" // it was not known to live, of a damaged store
	ReasonRestored        = "restored" // a backup took the place of the store
	ReasonClockAccepted   = "clockAccepted"
)

// End ends a session. It is dead from the call on, whatever becomes of the
// commit, and done is true once this end is durable; it is false, without an
// error, for a session that has ended already or never was.
func (k *Keeper) End(ctx context.Context, h api.ID, end End, by event.Actor) (done bool, err error) {
	if !k.table.dying(h, k.now()) {
		return false, nil
	}
	err = store.Retry(func() error {
		done, err = k.end(ctx, h, end, by)
		return err
	})
	return done, notWritten(err)
}

func (k *Keeper) end(ctx context.Context, h api.ID, end End, by event.Actor) (done bool, err error) {
	r, rev, err := k.unended(ctx, h)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil // somebody else ended it
	}
	if err != nil {
		return false, err
	}
	tx := store.Tx{Urgent: true}
	k.endIn(&tx, r, rev, end, by)
	_, err = k.store.Commit(ctx, tx)
	return err == nil, err
}

// unended returns the record of a session that has not ended durably, or
// store.ErrNotFound.
func (k *Keeper) unended(ctx context.Context, h api.ID) (*Record, store.Rev, error) {
	r, rev, err := k.read(ctx, h)
	if err != nil {
		return nil, 0, err
	}
	if _, err = k.store.Get(ctx, endKey(h)); err == nil {
		return nil, 0, store.ErrNotFound
	}
	if !errors.Is(err, store.ErrNotFound) {
		return nil, 0, err
	}
	return r, rev, nil
}

// endIn has a session end with a commit, if nothing changes it before.
func (k *Keeper) endIn(tx *store.Tx, r *Record, rev store.Rev, end End, by event.Actor) {
	end.LastUse = max(r.LastAccess, k.table.lastUse(r.Handle))
	tx.If = append(tx.If, store.Cond{Key: liveKey(r.Handle), Rev: rev}, store.Cond{Key: endKey(r.Handle)})
	tx.Put = append(tx.Put, store.Put{Key: endKey(r.Handle), Value: end.encode()})
	event.Append(tx, k.endEvent(r, end, by))
}

// endEvent tells of an end that is committed now; the session may have died
// earlier. It is the one place that says of which kind an end is.
func (k *Keeper) endEvent(r *Record, end End, by event.Actor) event.Event {
	kind := event.SessionEnded
	switch {
	case end.Status == Expired:
		kind = event.SessionExpired
	case end.Status == Replaced && end.Reason != ReasonReauthenticated:
		kind = event.SessionEvicted
	}
	return event.Event{
		Time: k.clock.Now(), Kind: kind, SessionHandle: HandleText(r.Handle), AccountID: r.AccountID.String(),
		Realm: r.Realm, Username: r.Username, Permanent: r.Permanent, Status: end.Status.String(), Reason: end.Reason,
		ClientIPAddress: addressText(r.Address), By: by,
	}
}

// EndAll ends many sessions and tells of each, in their order, whether it ended
// now. The first error that is no outcome of a single session is returned, with
// what was done until then.
func (k *Keeper) EndAll(ctx context.Context, handles []api.ID, end End, by event.Actor) ([]bool, error) {
	return atOnce(handles, func(h api.ID) (bool, error) { return k.End(ctx, h, end, by) })
}

// parallelChanges is how many changes of one request wait for their commits at once.
const parallelChanges = 64

// atOnce changes many sessions and tells of each, in their order, whether it was
// changed. The first error is returned when all were tried.
func atOnce(handles []api.ID, change func(api.ID) (bool, error)) ([]bool, error) {
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
	for range min(parallelChanges, len(handles)) {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					mu.Lock()
					defer mu.Unlock()
					fault = p
				}
			}()
			for i := range next {
				ok, err := change(handles[i])
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

// ErrNotWritten is wrapped by an error of an end that could not be written: until
// a restart the session is dead here all the same.
var ErrNotWritten = errors.New("session: the end is in force, but was not written")

func notWritten(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNotWritten, err)
}

package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/store"
)

// A backup is of the past: what ended since lives in it. So no session outlives a
// restore, and no API key does of which it is not known that it still lived.

// Keys says what becomes of the API keys of a backup.
type Keys string

// What may become of them.
const (
	KeysFromJournal Keys = "journal"  // those live that the journal of revocations does not name
	KeysEnded       Keys = "ended"    // all end
	KeysAccepted    Keys = "accepted" // all live, those too that were revoked since
)

// A Restoration makes of a backup a store that may take the place of the one that it
// was taken from.
type Restoration struct {
	Store   store.Store // the copy, which nobody else uses
	Now     time.Time   // the latest that is known of
	Realms  []config.Realm
	Keys    Keys
	Journal []event.Revocation // since the backup, of KeysFromJournal
}

// Restored is what a restoration has done.
type Restored struct {
	Sessions    int64 // that lived in the backup; all were ended
	Keys        int64 // that lived in the backup
	KeysEnded   int64
	KeysRotated int64 // of those ended: their tokens had been replaced
	account.Recalled
	NoAdministrator bool // nobody is left who may repair everything
}

// Restore ends the sessions of the copy, and those of its keys that must not live on,
// and takes away what accounts and roles have lost since. The first event it leaves is
// of kind StoreRestored.
func Restore(ctx context.Context, w Restoration) (done Restored, err error) {
	now := w.Now
	living, keys, err := w.count(ctx, now)
	if err != nil {
		return done, err
	}
	done.Sessions, done.Keys = living-keys, keys
	if err := w.endAll(ctx, now, done); err != nil {
		return done, err
	}
	for i := range w.Journal {
		e := &w.Journal[i].Event
		switch {
		case e.Kind == event.SessionEnded, e.Kind == event.SessionRotated:
			ended, err := w.endKey(ctx, now, e)
			if err != nil {
				return done, err
			}
			if ended && e.Kind == event.SessionRotated {
				done.KeysRotated++
			}
		case e.Kind == event.AllSessionsEnded && e.Realm != "":
			again := event.Event{Time: now, Kind: e.Kind, Realm: e.Realm, Permanent: true, Reason: e.Reason}
			if err := w.raise(ctx, realmEpoch(e.Realm), account.Why{At: e.Time, Reason: e.Reason, By: e.By.SessionHandle}, again); err != nil {
				return done, err
			}
		}
	}
	if done.Recalled, err = account.Recall(ctx, w.Store, now, w.Journal); err != nil {
		return done, err
	}
	_, left, err := w.count(ctx, now)
	if err != nil {
		return done, err
	}
	done.KeysEnded = keys - left
	done.NoAdministrator, err = account.LacksAdministrator(ctx, w.Store)
	return done, err
}

// endAll ends every session, and all keys where that is what becomes of them, or where
// they were all ended since.
func (w *Restoration) endAll(ctx context.Context, now time.Time, found Restored) error {
	ended := found.Sessions
	all := w.Keys == KeysEnded
	for i := range w.Journal {
		if e := &w.Journal[i].Event; e.Kind == event.AllSessionsEnded && e.Realm == "" {
			all = true
		}
	}
	if all {
		ended += found.Keys
	}
	return w.raise(ctx, serverEpoch, account.Why{At: now, Reason: ReasonRestored},
		event.Event{Time: now, Kind: event.StoreRestored, Permanent: all, Reason: string(w.Keys), Count: ended})
}

// raise raises an epoch: that of the API keys too if the event says so.
func (w *Restoration) raise(ctx context.Context, key string, why account.Why, e event.Event) error {
	item, err := w.Store.Get(ctx, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	g := Generation{}
	if item.Rev != 0 {
		if g, err = decodeGeneration(item); err != nil {
			return err
		}
	}
	g.Raise(e.Permanent, why)
	tx := store.Tx{If: []store.Cond{{Key: key, Rev: item.Rev}}, Put: []store.Put{{Key: key, Value: g.encode()}}}
	event.Append(&tx, e)
	_, err = w.Store.Commit(ctx, tx)
	return err
}

// endKey ends a key that the journal says was ended, or got another token, and reports
// whether it was there to be ended.
func (w *Restoration) endKey(ctx context.Context, now time.Time, e *event.Event) (bool, error) {
	h, ok := ParseHandle(e.SessionHandle)
	if !ok {
		return false, fmt.Errorf("%w: an event of no session", event.ErrJournal)
	}
	item, err := w.Store.Get(ctx, liveKey(h))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if _, err := w.Store.Get(ctx, endKey(h)); !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	r, err := decodeRecord(h, item.Value)
	if err != nil {
		return false, err
	}
	end := End{Status: Revoked, At: now.Unix(), Reason: ReasonRestored, LastUse: r.LastAccess}
	if e.Kind == event.SessionEnded {
		end.At, end.Reason, end.By = e.Time.Unix(), e.Reason, e.By.SessionHandle
		if status := statusOf(e.Status); status != 0 {
			end.Status = status
		}
	}
	tx := store.Tx{
		If:  []store.Cond{{Key: liveKey(h), Rev: item.Rev}, {Key: endKey(h)}},
		Put: []store.Put{{Key: endKey(h), Value: end.encode()}},
	}
	event.Append(&tx, event.Event{
		Time: now, Kind: event.SessionEnded, SessionHandle: e.SessionHandle, AccountID: r.AccountID.String(),
		Realm: r.Realm, Username: r.Username, Permanent: r.Permanent, Status: end.Status.String(), Reason: end.Reason,
	})
	_, err = w.Store.Commit(ctx, tx)
	return err == nil, err
}

// statusOf returns the status of a name on the wire, 0 for none that an end may have.
func statusOf(name string) Status {
	for s, known := range statusNames {
		if Status(s) > Active && known == name {
			return Status(s)
		}
	}
	return 0
}

// count returns how many sessions live, and how many of them are API keys.
func (w *Restoration) count(ctx context.Context, now time.Time) (living, keys int64, err error) {
	t := NewTable(account.NewRoles())
	t.now = now.Unix
	t.SetRealms(w.Realms)
	if err := t.Load(ctx, w.Store, nil, nil); err != nil {
		return 0, 0, err
	}
	living, keys = t.kinds("", now.Unix())
	return living, keys, nil
}

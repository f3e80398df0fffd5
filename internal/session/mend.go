package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

// A salvaged store may lack the end of a session that it still has, or have a record
// of before its end. Of such a session the log of changes may know: if it is whole,
// and has the session's creation, it has the end too, and whatever else the record may
// be of before. What cannot be decided so is ended.

// A Mending ends what a salvaged store must not keep alive.
type Mending struct {
	Store    store.Store // which nobody else uses
	Now      time.Time
	Lost     func(key string) bool  // there may have been a value under a key that is not there
	Touched  func(kind string) bool // of a kind, something is lost or in doubt
	Doubtful func(key string) bool  // a value may have been replaced or deleted
	LogWhole bool
}

// Mended is what a mending has done.
type Mended struct {
	Ended    int64    // sessions and keys
	Disabled []string // accounts that may have been dropped, disabled or changed since, by their names
	Roles    int64    // dropped, which may have been changed since
}

// Mend ends the sessions of which it cannot be said that they live, disables the
// accounts that may be of the past, and drops such roles.
func Mend(ctx context.Context, w Mending) (done Mended, err error) {
	var tx store.Tx
	event.Append(&tx, event.Event{Time: w.Now, Kind: event.StoreSalvaged})
	if _, err := w.Store.Commit(ctx, tx); err != nil {
		return done, fmt.Errorf("mend: %w", err)
	}
	suspects := map[api.ID]bool{} // accounts
	if err := w.accounts(ctx, suspects, &done); err != nil {
		return done, err
	}
	if err := w.roles(ctx, &done); err != nil {
		return done, err
	}
	all := w.Touched("epoch") || !w.LogWhole && w.Touched("acct")
	open := map[api.ID]*Record{}
	var gone []string
	err = walk(ctx, w.Store, liveKeys, func(item *store.Item) error {
		h, ok := handleOf(liveKeys, item.Key)
		if !ok {
			return ErrRecord
		}
		r, err := decodeRecord(h, item.Value)
		if err != nil {
			return err
		}
		if !all && !suspects[r.AccountID] && !w.Doubtful(item.Key) && !w.Lost(endKey(h)) {
			return nil
		}
		if _, err := w.Store.Get(ctx, endKey(h)); err == nil {
			return nil
		}
		if _, err := w.Store.Get(ctx, pastKey(h)); err == nil {
			gone = append(gone, item.Key)
			return nil
		}
		r.Revision = uint64(item.Rev) // of the store, which is all that is asked of it below
		open[h] = r
		return nil
	})
	if err != nil {
		return done, fmt.Errorf("mend sessions: %w", err)
	}
	if !all && w.LogWhole {
		if err := w.decide(ctx, open, suspects); err != nil {
			return done, err
		}
	}
	return done, errors.Join(w.end(ctx, open, &done), w.drop(ctx, gone))
}

// decide takes out of the open sessions those of which the log shows that they live.
func (w *Mending) decide(ctx context.Context, open map[api.ID]*Record, suspects map[api.ID]bool) error {
	born, dead := map[api.ID]bool{}, map[api.ID]bool{}
	for after := uint64(0); ; {
		entries, err := store.ReadLog(ctx, w.Store, after, 0)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			break
		}
		for _, entry := range entries {
			after = entry.Seq
			e, err := event.Decode(entry)
			if err != nil {
				return err
			}
			h, ok := ParseHandle(e.SessionHandle)
			if !ok || open[h] == nil {
				continue
			}
			switch e.Kind { //nolint:exhaustive // of births, deaths and what takes something away
			case event.SessionCreated:
				born[h] = true
			case event.SessionEnded, event.SessionExpired, event.SessionEvicted:
				dead[h] = true
			case event.SessionRotated, event.SessionAltered: // a record of before would have the old token be good
				dead[h] = dead[h] || w.Doubtful(liveKey(h))
			}
		}
	}
	for h, r := range open {
		if born[h] && !dead[h] && !suspects[r.AccountID] {
			delete(open, h)
		}
	}
	return nil
}

// end ends sessions, each with its event.
func (w *Mending) end(ctx context.Context, open map[api.ID]*Record, done *Mended) error {
	end := End{Status: Revoked, At: w.Now.Unix(), Reason: ReasonSalvaged}
	for some := range slices.Chunk(slices.Collect(maps.Keys(open)), store.MaxOps/2) { // two conditions each
		var tx store.Tx
		for _, h := range some {
			r := open[h]
			tx.If = append(tx.If, store.Cond{Key: liveKey(h), Rev: store.Rev(r.Revision)}, store.Cond{Key: endKey(h)})
			tx.Put = append(tx.Put, store.Put{Key: endKey(h), Value: end.encode()})
			event.Append(&tx, event.Event{
				Time: w.Now, Kind: event.SessionEnded, SessionHandle: HandleText(h), AccountID: r.AccountID.String(),
				Realm: r.Realm, Username: r.Username, Permanent: r.Permanent, Status: end.Status.String(), Reason: end.Reason,
			})
		}
		if _, err := w.Store.Commit(ctx, tx); err != nil {
			return fmt.Errorf("mend sessions: %w", err)
		}
		done.Ended += int64(len(some))
	}
	return nil
}

// accounts disables those that are in doubt, and notes them.
func (w *Mending) accounts(ctx context.Context, suspects map[api.ID]bool, done *Mended) error {
	if !w.Touched("acct") {
		return nil
	}
	err := walk(ctx, w.Store, account.KeyPrefix, func(item *store.Item) error {
		if !w.Doubtful(item.Key) {
			return nil
		}
		a, err := account.Decode(*item)
		if err != nil {
			return err
		}
		suspects[a.ID] = true
		a.Disabled = true
		put, err := a.Put()
		if err != nil {
			return err
		}
		tx := store.Tx{If: []store.Cond{a.Cond()}, Put: []store.Put{put}}
		event.Append(&tx, event.Event{
			Time: w.Now, Kind: event.AccountAltered, AccountID: a.ID.String(), Realm: a.Realm, Username: a.Username,
			Reason: ReasonSalvaged, Changed: []string{"enabled"},
		})
		done.Disabled = append(done.Disabled, a.Realm+"/"+a.Username)
		_, err = w.Store.Commit(ctx, tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("mend accounts: %w", err)
	}
	return nil
}

// roles drops those that are in doubt: an older one may have given more.
func (w *Mending) roles(ctx context.Context, done *Mended) error {
	var doubtful []string
	err := walk(ctx, w.Store, "role/", func(item *store.Item) error {
		if w.Doubtful(item.Key) {
			doubtful = append(doubtful, item.Key)
		}
		return nil
	})
	done.Roles = int64(len(doubtful))
	return errors.Join(err, w.drop(ctx, doubtful))
}

// drop deletes keys.
func (w *Mending) drop(ctx context.Context, keys []string) error {
	for some := range slices.Chunk(keys, store.MaxOps) {
		if _, err := w.Store.Commit(ctx, store.Tx{Delete: some}); err != nil {
			return fmt.Errorf("mend: %w", err)
		}
	}
	return nil
}

package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

// What is older than the retention is forgotten in turns of purgeBatch at a time,
// a fraction of each second, so that however much of it there is, sweeps and
// everybody's commits get theirs.

const (
	purgeEvery = 600 // seconds between two purges
	purgeFirst = 10  // seconds from the start to the first
)

// purging is how far the purge under way has come. It belongs to whoever
// maintains.
type purging struct {
	due       bool          // there is one under way
	retention time.Duration // that was in force last
	before    time.Time     // what is older is forgotten; zero: nothing has been yet
	after     string        // key of the tombstone that was looked at last
	kept      int64         // the earliest end, Unix seconds, of those that were kept
}

// purgeIsDue reports whether there is something to forget in the n-th second: a purge is
// under way, its time has come, or the retention is another one now.
func (k *Keeper) purgeIsDue(n int) bool {
	p, retention := &k.purging, k.retention()
	if retention != p.retention || !p.due && n%purgeEvery == purgeFirst {
		k.newPurge(purging{due: true, retention: retention})
	}
	return p.due
}

// newPurge gives up the purge under way for another one.
func (k *Keeper) newPurge(p purging) {
	if k.purging.after != "" {
		k.oldestEnd.Store(0) // beyond there it is not known
	}
	k.purging = p
}

func (k *Keeper) retention() time.Duration { return k.config.Get().Defaults.Retention() }

// purge goes on forgetting what is older than the retention, as long as more says
// so. What fails ends it until the next one.
func (k *Keeper) purge(ctx context.Context, more func() bool) error {
	p := &k.purging
	if p.retention == 0 {
		p.due = false
		return nil
	}
	if p.before.IsZero() {
		p.before = k.clock.Now().Add(-p.retention)
	}
	err := errors.Join(k.purgeAccounts(ctx, p.before, more), k.purgePast(ctx, p.before, more))
	if err == nil {
		err = event.Purge(ctx, k.store, p.before, more)
	}
	if more() || err != nil {
		k.newPurge(purging{retention: p.retention})
	}
	return err
}

// purgeAtOnce is a purge from its beginning to its end.
func (k *Keeper) purgeAtOnce(ctx context.Context, more func() bool) error {
	k.newPurge(purging{retention: k.retention()})
	return k.purge(ctx, more)
}

// purgeAccounts forgets accounts that were dropped before a moment: their sessions
// have their tombstones, and a session whose account nobody knows is dead.
func (k *Keeper) purgeAccounts(ctx context.Context, before time.Time, more func() bool) error {
	for more() {
		items, err := k.store.List(ctx, store.Range{Prefix: goneKeys, Limit: purgeBatch / 3})
		if err != nil {
			return fmt.Errorf("purge accounts: %w", err)
		}
		var tx store.Tx
		for i := range items {
			if items[i].Key >= goneKey(before, api.ID{}) {
				break
			}
			if err := k.forgetAccount(ctx, &tx, &items[i]); err != nil {
				return fmt.Errorf("purge accounts: %w", err)
			}
		}
		if len(tx.Delete) == 0 {
			return nil
		}
		if _, err := k.store.Commit(ctx, tx); err != nil && !errors.Is(err, store.ErrConflict) { // created anew at this moment: the next look sees it
			return fmt.Errorf("purge accounts: %w", err)
		}
	}
	return nil
}

// forgetAccount removes what remains of a dropped account, unless another one has
// its name by now.
func (k *Keeper) forgetAccount(ctx context.Context, tx *store.Tx, gone *store.Item) error {
	tx.Delete = append(tx.Delete, gone.Key)
	item, err := k.store.Get(ctx, string(gone.Value))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	a, err := account.Decode(item)
	if err == nil && gone.Key[len(gone.Key)-len(a.ID):] == string(a.ID[:]) {
		tx.If = append(tx.If, a.Cond())
		tx.Delete = append(tx.Delete, a.Key(), a.SourceKey())
	}
	return err
}

// purgePast forgets tombstones of before a moment.
func (k *Keeper) purgePast(ctx context.Context, before time.Time, more func() bool) error {
	p := &k.purging
	if p.after == "" { // the first turn
		if oldest := k.oldestEnd.Load(); oldest != 0 && oldest >= before.Unix() {
			return nil
		}
		p.kept = k.now()
		k.oldestEnd.Store(p.kept) // from here on, of what is buried while this goes on
	}
	for more() {
		items, err := k.store.List(ctx, store.Range{Prefix: pastKeys, After: p.after, Limit: purgeBatch})
		if err == nil {
			err = k.purgePage(ctx, items, before.Unix())
		}
		if err != nil {
			p.after = ""
			k.oldestEnd.Store(0)
			return fmt.Errorf("purge tombstones: %w", err)
		}
		if len(items) < purgeBatch {
			p.after = ""
			k.oldestEnd.Store(min(p.kept, k.oldestEnd.Load()))
			return nil
		}
		p.after = items[len(items)-1].Key
	}
	return nil
}

// purgePage forgets those of some tombstones that are of before a moment.
func (k *Keeper) purgePage(ctx context.Context, items []store.Item, before int64) error {
	var tx store.Tx
	var gone Tally
	onClients := map[api.ID][]api.ID{}
	for i := range items {
		end, client, err := endOf(items[i].Value)
		if err != nil {
			return err
		}
		if end.At >= before {
			k.purging.kept = min(k.purging.kept, end.At)
			continue
		}
		tx.If = append(tx.If, store.Cond{Key: items[i].Key, Rev: items[i].Rev})
		tx.Delete = append(tx.Delete, items[i].Key)
		gone[end.Status]--
		if h, ok := handleOf(pastKeys, items[i].Key); ok && !client.IsZero() {
			onClients[client] = append(onClients[client], h)
		}
	}
	if len(tx.Delete) == 0 {
		return nil
	}
	for client, members := range onClients { // first: without its tombstone nobody would know that one is on a client
		if err := k.forgetMembers(ctx, client, members); err != nil {
			return err
		}
	}
	k.countTombstones(&tx, gone)
	_, err := k.store.Commit(ctx, tx)
	if errors.Is(err, store.ErrConflict) { // somebody changes one of them: the next time
		k.purging.kept = min(k.purging.kept, before-1)
		return nil
	}
	return err
}

// endOf reads the end and the client alone out of a tombstone.
func endOf(record []byte) (end End, client api.ID, err error) {
	err = fields(record, func(f protowire.Number, _ uint64, b []byte) (err error) {
		switch f {
		case fEnd:
			end, err = decodeEnd(b)
		case fClient:
			client, err = decodeID(b)
		default:
		}
		return err
	})
	return end, client, err
}

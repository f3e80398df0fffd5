package session

import (
	"context"
	"fmt"
	"sync"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/store"
)

// Load is the table's first door: it reads all that lives out of a store that
// nobody writes to meanwhile. progress, if not nil, is told how many sessions
// were read; known of each account.
func (t *Table) Load(ctx context.Context, s store.Store, known func(*account.Account), progress func(n int)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	each := func(prefix string, do func(*store.Item) error) error {
		if err := walk(ctx, s, prefix, do); err != nil {
			return fmt.Errorf("load %s: %w", prefix, err)
		}
		return nil
	}
	err := each(epochKeys, func(item *store.Item) error {
		a, err := t.aboveIn([]store.Item{*item})
		t.raise(a)
		for _, r := range a.generations {
			t.noteRise(r.to.LastRise())
		}
		return err
	})
	if err != nil {
		return err
	}
	touched := map[api.ID]uint32{}
	err = each(touchKeys, func(item *store.Item) error {
		t.blocks.Add(1)
		return readTouches(item.Value, func(u lastUse) { touched[u.handle] = max(touched[u.handle], u.at) })
	})
	if err != nil {
		return err
	}
	ended := map[api.ID]bool{}
	err = each(endKeys, func(item *store.Item) error {
		h, ok := handleOf(endKeys, item.Key)
		ended[h] = true
		return malformed(ok)
	})
	if err != nil {
		return err
	}
	t.unfolded = int64(len(ended))
	if t.tombstones, err = loadTombstones(ctx, s); err != nil {
		return fmt.Errorf("load %s: %w", tombstonesKey, err)
	}
	n := 0
	err = walkRecords(ctx, s, ended, touched, func(r *stored) {
		t.upsert(&r.Record, r.form, r.touched, above{})
		if n++; progress != nil && n%10_000 == 0 {
			progress(n)
		}
	})
	if err != nil {
		return fmt.Errorf("load %s: %w", liveKeys, err)
	}
	err = each(account.KeyPrefix, func(item *store.Item) error {
		a, err := account.Decode(*item)
		if err == nil {
			t.noteRise(a.Epoch.LastRise())
		}
		if err == nil && known != nil {
			known(a)
		}
		if err == nil && t.byAccount[a.ID] != 0 {
			t.learn(t.byAccount[a.ID], a)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, n := range t.byAccount {
		t.settleDead(t.account(n))
	}
	t.stale = stale{}
	return nil
}

func malformed(ok bool) error {
	if !ok {
		return ErrRecord
	}
	return nil
}

// walk calls do for every item of a kind, in order. The next page is read while do
// is at work on one.
func walk(ctx context.Context, s store.Store, prefix string, do func(*store.Item) error) error {
	type page struct {
		items []store.Item
		err   error
	}
	reading, cancel := context.WithCancel(ctx)
	pages := make(chan page, 2)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel()
	reader.Go(func() {
		defer close(pages)
		r := store.Range{Prefix: prefix, Limit: 1000}
		for {
			items, err := s.List(reading, r)
			select {
			case pages <- page{items, err}:
			case <-reading.Done():
				return
			}
			if err != nil || len(items) < r.Limit {
				return
			}
			r.After = items[len(items)-1].Key
		}
	})
	for p := range pages {
		if p.err != nil {
			return p.err
		}
		for i := range p.items {
			if err := do(&p.items[i]); err != nil {
				return err
			}
		}
	}
	return ctx.Err() // the reader leaves without a word when it ends
}

// stored is a session as it is in a store.
type stored struct {
	Record

	form    []byte // of its settings, see reader
	touched uint32
}

// walkRecords calls do for every session that has not ended, in order. What do gets lasts
// until it returns: the next ones are read and decoded while it is at work.
func walkRecords(ctx context.Context, s store.Store, ended map[api.ID]bool, touched map[api.ID]uint32, do func(*stored)) error {
	const batches, size = 3, 1000
	ctx, cancel := context.WithCancel(ctx)
	full, spare := make(chan []stored, batches), make(chan []stored, batches)
	for range batches {
		spare <- make([]stored, size)
	}
	var failed error // the decoder's until full is closed
	var decoder sync.WaitGroup
	defer decoder.Wait()
	defer cancel()
	decoder.Go(func() {
		defer close(full)
		var read reader
		batch, n := <-spare, 0
		failed = walk(ctx, s, liveKeys, func(item *store.Item) error {
			h, ok := handleOf(liveKeys, item.Key)
			if !ok || ended[h] {
				return malformed(ok)
			}
			r := &batch[n]
			if err := read.into(&r.Record, h, item.Value); err != nil {
				return err
			}
			r.form, r.touched = read.form, touched[h]
			if n++; n == size {
				full <- batch
				batch, n = <-spare, 0
			}
			return nil
		})
		full <- batch[:n]
	})
	for batch := range full {
		for i := range batch {
			do(&batch[i])
		}
		spare <- batch[:size]
	}
	return failed
}

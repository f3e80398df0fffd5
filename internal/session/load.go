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
	err = each(liveKeys, func(item *store.Item) error {
		h, ok := handleOf(liveKeys, item.Key)
		if !ok {
			return ErrRecord
		}
		if ended[h] {
			return nil
		}
		r, err := t.reader.record(h, item.Value)
		if err != nil {
			return err
		}
		t.upsert(r, t.reader.form, touched[h], above{})
		if n++; progress != nil && n%10_000 == 0 {
			progress(n)
		}
		return nil
	})
	if err != nil {
		return err
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

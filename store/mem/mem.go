// Package mem is the store that forgets: it keeps everything in memory, for
// tests and for trying things out. It promises what store.Store promises but
// for durability, and remembers no changes: Watch takes the present revision
// only.
package mem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sessiond/store"
)

// Store is a store in memory. Make one with New.
type Store struct {
	feed store.Feed
	turn chan struct{} // held by the commit under way, until its watchers have returned; guards head and closed

	head   store.Head
	closed bool

	mu    sync.RWMutex // guards what Get and List read
	items map[string]store.Item
	keys  []string // of items, sorted
}

// New returns an empty store.
func New() *Store {
	return &Store{turn: make(chan struct{}, 1), items: make(map[string]store.Item)}
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Item, error) {
	if err := ctx.Err(); err != nil {
		return store.Item{}, err
	}
	if store.Kind(key) == "" {
		return store.Item{}, fmt.Errorf("%w: not a key", store.ErrInvalid)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	item, ok := s.items[key]
	if !ok {
		return store.Item{}, store.ErrNotFound
	}
	return clone(item), nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, r store.Range) ([]store.Item, error) {
	if err := errors.Join(ctx.Err(), r.Check()); err != nil {
		return nil, err
	}
	limit := r.Limit
	if limit == 0 {
		limit = 1000
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	from, _ := slices.BinarySearch(s.keys, r.Prefix)
	n := 0
	for from+n < len(s.keys) && strings.HasPrefix(s.keys[from+n], r.Prefix) {
		n++
	}
	keys := s.keys[from : from+n]
	if r.After != "" {
		at, found := slices.BinarySearch(keys, r.After)
		switch {
		case r.Reverse:
			keys = keys[:at]
		case found:
			keys = keys[at+1:]
		default:
			keys = keys[at:]
		}
	}
	items := make([]store.Item, 0, min(limit, len(keys)))
	for i := range min(limit, len(keys)) {
		if r.Reverse {
			i = len(keys) - 1 - i
		}
		items = append(items, clone(s.items[keys[i]]))
	}
	return items, nil
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	if err := tx.Check(); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("%w: %w", store.ErrBusy, err)
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", store.ErrBusy, ctx.Err())
	}
	if s.closed {
		return 0, store.ErrStopped
	}
	change, err := s.apply(tx)
	if err != nil {
		return 0, err
	}
	if tell := s.feed.Advance(change.Rev); tell != nil {
		tell(change)
	}
	return change.Rev, nil
}

// apply is called by whoever has the turn.
func (s *Store) apply(tx store.Tx) (store.Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range tx.If {
		if s.items[c.Key].Rev != c.Rev {
			return store.Change{}, store.ErrConflict
		}
	}
	change := store.Change{Rev: s.feed.Rev() + 1}
	for _, key := range tx.Delete {
		if _, ok := s.items[key]; ok {
			s.remove(key)
			change.Delete = append(change.Delete, key)
		}
	}
	for _, p := range tx.Put {
		item := clone(store.Item{Key: p.Key, Value: p.Value, Rev: change.Rev})
		s.set(item)
		change.Put = append(change.Put, clone(item))
	}
	for _, data := range tx.Append {
		s.head = s.head.Next(data)
		s.set(store.Item{Key: store.LogKey(s.head.Seq), Value: store.AppendEntry(nil, s.head.Hash, data), Rev: change.Rev})
		change.Entries = append(change.Entries, store.Entry{Seq: s.head.Seq, Hash: s.head.Hash, Data: bytes.Clone(data)})
	}
	return change, nil
}

func (s *Store) set(item store.Item) {
	if _, ok := s.items[item.Key]; !ok {
		at, _ := slices.BinarySearch(s.keys, item.Key)
		s.keys = slices.Insert(s.keys, at, item.Key)
	}
	s.items[item.Key] = item
}

func (s *Store) remove(key string) {
	at, _ := slices.BinarySearch(s.keys, key)
	s.keys = slices.Delete(s.keys, at, at+1)
	delete(s.items, key)
}

// Watch implements store.Store.
func (s *Store) Watch(after store.Rev, w store.Watcher) (stop func(), err error) {
	return s.feed.Watch(after, w)
}

// Rev implements store.Store.
func (s *Store) Rev() store.Rev { return s.feed.Rev() }

// Close implements store.Store. What was stored can still be read.
func (s *Store) Close() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.closed = true
	return nil
}

// clone gives the caller bytes of its own, never nil: an empty value exists.
func clone(i store.Item) store.Item {
	i.Value = append(make([]byte, 0, len(i.Value)), i.Value...)
	return i
}

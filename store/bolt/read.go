package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (item store.Item, err error) {
	if err := ctx.Err(); err != nil {
		return store.Item{}, err
	}
	kind := store.Kind(key)
	if kind == "" {
		return store.Item{}, fmt.Errorf("%w: not a key", store.ErrInvalid)
	}
	err = s.read(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(kind))
		if b == nil || kind == metaKind {
			return store.ErrNotFound
		}
		name := []byte(key[len(kind):])
		v := b.Get(name)
		if v == nil {
			return store.ErrNotFound
		}
		rev, payload, err := unseal(kind, name, v)
		item = store.Item{Key: key, Value: own(payload), Rev: rev}
		return err
	})
	if err != nil {
		return store.Item{}, err
	}
	return item, nil
}

// List implements store.Store. The values of a page share memory: who keeps one
// of many copies it.
func (s *Store) List(ctx context.Context, r store.Range) ([]store.Item, error) {
	if err := errors.Join(ctx.Err(), r.Check()); err != nil {
		return nil, err
	}
	limit := r.Limit
	if limit == 0 {
		limit = 1000
	}
	kind, items := store.Kind(r.Prefix), []store.Item{}
	err := s.read(func(tx *bbolt.Tx) (err error) {
		b := tx.Bucket([]byte(kind))
		if b == nil || kind == metaKind {
			return nil
		}
		items, err = collect(walk(b.Cursor(), kind, r), kind, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return items, nil
}

// pair is a name and a value in bbolt's memory.
type pair struct{ name, value []byte }

// walk goes over the names of a range, in its direction.
func walk(c *bbolt.Cursor, kind string, r store.Range) func(yield func(pair) bool) {
	prefix := []byte(r.Prefix[len(kind):])
	var after []byte
	if r.After != "" {
		after = []byte(r.After[len(kind):])
	}
	return func(yield func(pair) bool) {
		k, v := start(c, prefix, after, r.Reverse)
		for k != nil && bytes.HasPrefix(k, prefix) && yield(pair{k, v}) {
			if r.Reverse {
				k, v = c.Prev()
			} else {
				k, v = c.Next()
			}
		}
	}
}

// start puts c on the first name of a range.
func start(c *bbolt.Cursor, prefix, after []byte, reverse bool) (k, v []byte) {
	if !reverse {
		if bytes.Compare(after, prefix) < 0 {
			return c.Seek(prefix)
		}
		if k, v = c.Seek(after); bytes.Equal(k, after) {
			return c.Next()
		}
		return k, v
	}
	end := successor(prefix)
	if after != nil && bytes.Compare(after, end) < 0 {
		end = after
	}
	if k, _ = c.Seek(end); k == nil {
		return c.Last()
	}
	return c.Prev()
}

// successor returns the least name beyond all that begin with prefix. There is
// one, as a name begins with a slash.
func successor(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	end[len(end)-1]++
	return end
}

// collect copies pairs out of bbolt's memory, with few allocations.
func collect(pairs func(func(pair) bool), kind string, limit int) ([]store.Item, error) {
	var found []pair
	names, values := 0, 0
	for p := range pairs {
		found = append(found, p)
		names += len(kind) + len(p.name)
		values += len(p.value)
		if len(found) == limit {
			break
		}
	}
	keys := make([]byte, 0, names)
	for _, p := range found {
		keys = append(append(keys, kind...), p.name...)
	}
	all, mem := string(keys), make([]byte, 0, values)
	items := make([]store.Item, len(found))
	for i, p := range found {
		rev, payload, err := unseal(kind, p.name, p.value)
		if err != nil {
			return nil, err
		}
		from := len(mem)
		mem = append(mem, payload...)
		n := len(kind) + len(p.name)
		items[i] = store.Item{Key: all[:n], Value: mem[from:len(mem):len(mem)], Rev: rev}
		all = all[n:]
	}
	return items, nil
}

// own copies v, never into nil: an empty value exists.
func own(v []byte) []byte { return append(make([]byte, 0, len(v)), v...) }

// read runs fn in a transaction. A page that is damaged beyond bbolt's grasp, or
// cannot be read from the disk, is store.ErrCorrupt.
func (s *Store) read(fn func(*bbolt.Tx) error) error {
	if s.closed.Load() {
		return store.ErrStopped
	}
	return guard(func() error {
		tx, err := s.begin()
		if err != nil {
			return fmt.Errorf("%w: %w", store.ErrStopped, err)
		}
		defer func() { _ = tx.Rollback() }() // of a read: cannot fail
		return fn(tx)
	})
}

// begin begins to read, in the file that has taken the place of another if it just
// has.
func (s *Store) begin() (*bbolt.Tx, error) {
	for {
		db := s.db.Load()
		tx, err := db.Begin(false)
		if err == nil || s.db.Load() == db {
			return tx, err
		}
	}
}

// guard turns a crash of fn, be it a panic or a fault of mapped memory, into an
// error that wraps store.ErrCorrupt. Goroutines that fn starts are not covered.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", store.ErrCorrupt, p)
		}
	}()
	return fn()
}

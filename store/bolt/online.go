package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

// CopyOptions say how a running store is copied. The zero value is as fast as it
// can be, and silent.
type CopyOptions struct {
	Rate   int64    // bytes of keys and values that are copied in a second at the most; 0 means no limit
	Report Progress // of the bytes that are copied; nil: nobody is told. Their total is a guess
}

const (
	pageBytes  = 128 << 10 // of values that one transaction reads: readers keep the writer from growing its map
	mostBehind = 256 << 20 // bytes of changes that wait in memory for their place in the copy
	fewBehind  = 256 << 10 // bytes of changes for which the writer may be made to wait
)

// NoRoomError is a disk that has too little space left for what was asked for. It
// wraps store.ErrFull.
type NoRoomError struct {
	Missing int64 // bytes
}

func (e *NoRoomError) Error() string {
	return fmt.Sprintf("bolt: there is no room for a copy: %d bytes are missing", e.Missing)
}

func (e *NoRoomError) Unwrap() error { return store.ErrFull }

// copier copies a running store: first all values, a page at a time, then what has
// changed meanwhile. It reads in transactions of a moment each: one as long as the
// copying would keep bbolt from using any page again that is freed meanwhile, and
// the file would grow by all that is written.
type copier struct {
	from  *Store
	to    *builder
	pace  *pace
	tell  Progress
	done  int64  // bytes of keys and values
	total int64  // a guess
	leave func() // ends that changes are noted

	mu      sync.Mutex // guards what follows
	changes []change
	behind  int   // bytes of changes
	lost    error // why changes are no longer noted
}

// change is a value that was put, or deleted, by a commit.
type change struct {
	key   string
	value []byte // nil: deleted
	rev   store.Rev
}

// newCopier makes a copier, which follows the store from now on, into a new file at
// path, if there is room for it.
func newCopier(ctx context.Context, s *Store, path string, o CopyOptions) (*copier, error) {
	file, free := s.Size()
	c := &copier{from: s, tell: o.Report, total: file - free}
	if err := s.errand(ctx, func(*writer) (err error) {
		c.leave, err = s.feed.Watch(s.feed.Rev(), c.note) // the writer is here, so this is the last
		return err
	}); err != nil {
		return nil, err
	}
	err := c.room(path, reserve)
	if err == nil {
		c.to, err = newBuilder(path, s.options)
	}
	if err != nil {
		c.leave()
		return nil, err
	}
	c.pace = newPace(o.Rate)
	return c, nil
}

// copy copies all values, and brings the copy to where the store stands at one moment
// during the call, durably; see settle.
func (c *copier) copy(ctx context.Context, last bool) (st state, err error) {
	err = c.guard(ctx, func() error {
		err := c.values(ctx)
		if err == nil {
			st, err = c.settle(ctx, last)
		}
		return err
	})
	return st, err
}

// verify checks the copy. That it is damaged says nothing of the store, each value of
// which was looked at.
func (c *copier) verify(ctx context.Context) error {
	err := c.from.options.Check(ctx, c.to.file, nil)
	if errors.Is(err, store.ErrCorrupt) {
		return fmt.Errorf("bolt: the copy is not what it should be: %s", err.Error())
	}
	return because(ctx, err)
}

// guard does some of the work. A crash in it is the copy's, whose disk may fail or go
// away: page fears nothing that the store holds.
func (c *copier) guard(ctx context.Context, work func() error) (err error) {
	if crash := guard(func() error {
		err = work()
		return nil
	}); crash != nil {
		return fmt.Errorf("bolt: the copy cannot be read back: %s", crash.Error())
	}
	return because(ctx, err)
}

// because is err, or why ctx has ended.
func because(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return context.Cause(ctx)
}

// room reports a NoRoomError if what is still to be copied to path would not leave so
// many bytes.
func (c *copier) room(path string, left int64) error {
	return room(filepath.Dir(path), max(0, c.total-c.done)+left)
}

// close ends what newCopier has begun. It leaves the copy to its owner.
func (c *copier) close() {
	c.leave()
	c.pace.stop()
}

// note is the watcher. Its caller is the writer, who must not wait.
func (c *copier) note(ch store.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != nil {
		return
	}
	for _, p := range ch.Put {
		c.add(change{p.Key, own(p.Value), ch.Rev})
	}
	for _, key := range ch.Delete {
		c.add(change{key: key, rev: ch.Rev})
	}
	for _, e := range ch.Entries {
		c.add(change{store.LogKey(e.Seq), store.AppendEntry(nil, e.Hash, e.Data), ch.Rev})
	}
	if c.behind > mostBehind {
		c.changes, c.lost = nil, fmt.Errorf("%w: more is written than a copy can follow: try again when there is less to do", store.ErrBusy)
	}
}

func (c *copier) add(ch change) {
	c.changes = append(c.changes, ch)
	c.behind += len(ch.key) + len(ch.value)
}

// taken returns the changes that have been noted, which are no longer kept.
func (c *copier) taken() ([]change, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.changes
	c.changes, c.behind = nil, 0
	return all, c.lost
}

// values copies every value, and the changes as they come.
func (c *copier) values(ctx context.Context) error {
	var at place
	for {
		pairs, next, err := c.from.page(at)
		if err != nil {
			return err
		}
		n := 0
		for _, p := range pairs {
			if _, _, err := unseal(p.kind, p.name, p.value); err != nil {
				return err
			}
			if err := c.to.add(p.kind, p.name, p.value); err != nil {
				return err
			}
			n += len(p.kind) + len(p.name) + len(p.value)
		}
		if err := c.catchUp(); err != nil {
			return err
		}
		c.done += int64(n)
		if c.tell != nil {
			c.tell(uint64(c.done), uint64(max(c.done, c.total))) //nolint:gosec // sizes
		}
		// Others fill the disk, too, and the last of it is not for copies: on a full
		// one it is there for ends.
		if err := c.room(c.to.file.Name(), reserve/2); err != nil {
			return err
		}
		if at = next; at.kind == "" {
			return nil
		}
		if err := c.pace.spend(ctx, n); err != nil {
			return err
		}
	}
}

// catchUp brings the copy up to the commits that the watcher has been told of.
func (c *copier) catchUp() error {
	changes, err := c.taken()
	if err != nil {
		return err
	}
	return c.apply(changes)
}

func (c *copier) apply(changes []change) error {
	var sealed []byte
	for _, ch := range changes {
		kind := store.Kind(ch.key)
		name := []byte(ch.key[len(kind):])
		// A page that was read later knows of later changes.
		has, err := c.to.rev(kind, name)
		switch {
		case err != nil:
			return err
		case has >= ch.rev:
			continue
		case ch.value == nil:
			err = c.to.remove(kind, name)
		default:
			sealed = append(append(sealed[:0], make([]byte, valueHead)...), ch.value...)
			sealed = seal(sealed, 0, kind, name, ch.rev)
			err = c.to.add(kind, name, sealed)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// near brings the copy so close to the store that the writer may be made to wait for
// the rest.
func (c *copier) near(ctx context.Context) error {
	for {
		c.mu.Lock()
		behind := c.behind
		c.mu.Unlock()
		if behind <= fewBehind {
			return ctx.Err()
		}
		if err := errors.Join(ctx.Err(), c.catchUp()); err != nil {
			return err
		}
	}
}

// settle brings the copy to where the store stands at one moment during the call,
// durably, and returns the state of then. After the last one it does not follow any
// further.
func (c *copier) settle(ctx context.Context, last bool) (st state, err error) {
	if err := c.near(ctx); err != nil {
		return st, err
	}
	var changes []change
	if err := c.from.errand(ctx, func(w *writer) (err error) {
		if last {
			c.leave()
		}
		st = w.state
		changes, err = c.taken()
		return err
	}); err != nil {
		return st, err
	}
	if err := c.apply(changes); err != nil {
		return st, err
	}
	return st, c.to.settle(st)
}

// place is where a page begins: beyond a name of a kind.
type place struct {
	kind string // "" before the first, and after the last
	name []byte
}

// stored is a value as it is stored, with its key.
type stored struct {
	kind        string
	name, value []byte
}

// page returns values in the order of the file, from a place on, and the place where
// they end. They are the caller's.
func (s *Store) page(at place) (page []stored, next place, err error) {
	mem := make([]byte, 0, pageBytes+pageBytes/4)
	keep := func(b []byte) []byte {
		from := len(mem)
		mem = append(mem, b...)
		return mem[from:len(mem):len(mem)]
	}
	err = s.read(func(tx *bbolt.Tx) error {
		kinds := tx.Cursor()
		k, _ := kinds.Seek([]byte(at.kind))
		for ; k != nil; k, _ = kinds.Next() {
			if string(k) == metaKind {
				continue
			}
			c := tx.Bucket(k).Cursor()
			name, value := c.First()
			if string(k) == at.kind && at.name != nil {
				if name, value = c.Seek(at.name); bytes.Equal(name, at.name) {
					name, value = c.Next()
				}
			}
			kind := string(k)
			for ; name != nil; name, value = c.Next() {
				page = append(page, stored{kind, keep(name), keep(value)})
				if len(mem) >= pageBytes {
					next = place{kind, page[len(page)-1].name}
					return nil
				}
			}
		}
		next = place{}
		return nil
	})
	return page, next, err
}

// Size returns how many bytes the file has, and how many of them hold nothing.
func (s *Store) Size() (file, free int64) {
	db := s.db.Load()
	_ = s.read(func(tx *bbolt.Tx) error { // a store that is closed has no size
		file = tx.Size()
		return nil
	})
	stats := db.Stats()
	return file, int64(stats.FreePageN+stats.PendingPageN) * int64(db.Info().PageSize)
}

// room says a NoRoomError if the file system of a folder says that it has not so many
// bytes left.
func room(dir string, need int64) error {
	if _, free, ok := fileSystem(dir); ok && free < need {
		return &NoRoomError{need - free}
	}
	return nil
}

// pace spreads work over time.
type pace struct {
	tick *time.Ticker // nil: there is no limit
	each int64        // bytes that a tick allows
	left int64
}

func newPace(rate int64) *pace {
	const ticks = 100 // in a second
	if rate <= 0 {
		return &pace{}
	}
	return &pace{tick: time.NewTicker(time.Second / ticks), each: max(1, rate/ticks)}
}

func (p *pace) stop() {
	if p.tick != nil {
		p.tick.Stop()
	}
}

// spend waits until n more bytes may have been copied.
func (p *pace) spend(ctx context.Context, n int) error {
	if p.tick == nil {
		return ctx.Err()
	}
	for p.left -= int64(n); p.left < 0; p.left = min(p.left+p.each, p.each) {
		select {
		case <-p.tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"syscall"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"sessiond/store"
)

// maxBatch bounds what one transaction takes along, so that nobody waits long
// behind others.
const maxBatch = 512

// fewer is how often a batch that finds no space is halved: each time that it finds none
// costs bbolt a look at all pages.
const fewer = 2

// fill is how full pages are left: keys that grow with time never come back to
// a full page.
const fill = 0.9

// writer is the goroutine that writes. It alone touches its fields.
type writer struct {
	*Store
	space     *space
	stopwatch stopwatch
	state     state // of the last durable transaction

	// Of the batch under way; kept for the next, to save allocations.
	next    state // what state becomes
	buckets []bucket
	values  []byte // stored values; bbolt reads them until the transaction ends
	name    []byte
	deleted []string
	entries []store.Entry
	items   []store.Item
}

// bucket is the bucket of a kind in the transaction under way.
type bucket struct {
	kind   string
	b      *bbolt.Bucket // nil: there is none yet
	cursor *bbolt.Cursor

	// No name is beyond last, so what is need not be looked for: with keys that
	// grow with time that spares most look-ups of a batch.
	last []byte
}

func (w *writer) run() {
	defer close(w.written)
	defer func() { w.space.rest() }()
	debug.SetPanicOnFault(true) // a page that cannot be read is a panic, which transact survives
	var batch []*request
	for {
		var rang, ok bool
		if batch, rang, ok = w.queue.take(batch[:0], maxBatch, w.space.due()); !ok {
			return
		}
		if rang {
			w.space.probe()
		}
		if batch = w.errands(claimed(batch)); len(batch) > 0 {
			w.commit(batch)
		}
		// Who was just answered tends to come back at once.
		w.queue.linger(min(maxBatch, len(batch)+int(w.queue.waiting.Load())))
		clear(batch)
	}
}

// claimed drops the requests whose callers have gone.
func claimed(batch []*request) []*request {
	live := batch[:0]
	for _, r := range batch {
		if r.claim() {
			live = append(live, r)
		} else {
			r.free()
		}
	}
	return live
}

// errands does what is no commit, and returns the others.
func (w *writer) errands(batch []*request) []*request {
	left := batch[:0]
	for _, r := range batch {
		if r.errand == nil {
			left = append(left, r)
			continue
		}
		if r.err = store.ErrStopped; w.Failed() == nil {
			r.err = guard(func() error { return r.errand(w) })
		}
		r.answer()
	}
	return left
}

// commit makes a batch durable and answers it. Where the disk is found full, those that are
// urgent are tried once more, in the space that was set aside for them.
func (w *writer) commit(batch []*request) {
	if w.space.isUsedUp() {
		w.space.fill(errors.New("bolt: the free pages of the file are used up"))
	}
	batch = w.refuse(batch)
	wasFull := w.Full() != nil
	err := w.transact(batch)
	if errors.Is(err, store.ErrFull) && !wasFull {
		w.space.fill(err)
		batch = w.refuse(batch)
		err = w.transact(batch)
	}
	w.finish(batch, err, fewer)
}

// finish answers a batch that was tried. Of one that found no space, half is tried, as
// often as that may help: what is large must not keep out what is small.
func (w *writer) finish(batch []*request, err error, tries int) {
	if errors.Is(err, store.ErrFull) && len(batch) > 1 && tries > 0 {
		half := len(batch) / 2
		for _, some := range [][]*request{batch[:half], batch[half:]} {
			w.finish(some, w.transact(some), tries-1)
		}
		return
	}
	if err != nil {
		for _, r := range batch {
			if r.err == nil {
				r.rev, r.err = 0, err
			}
		}
	} else {
		w.publish(batch)
	}
	for _, r := range batch {
		r.answer()
	}
}

// refuse answers those of a batch that are not tried while there is no space, and
// returns the others.
func (w *writer) refuse(batch []*request) []*request {
	full := w.Full()
	if full == nil {
		return batch
	}
	tried := batch[:0]
	for _, r := range batch {
		if r.tx.Urgent {
			tried = append(tried, r)
			continue
		}
		r.rev, r.err = 0, full
		r.answer()
	}
	return tried
}

// publish tells the watchers of what has become durable.
func (w *writer) publish(batch []*request) {
	if w.next.rev == w.state.rev {
		return
	}
	w.state = w.next
	tell := w.feed.Advance(w.state.rev)
	if tell == nil {
		return
	}
	for _, r := range batch {
		if r.err != nil {
			continue
		}
		w.items = w.items[:0]
		for _, p := range r.tx.Put {
			w.items = append(w.items, store.Item{Key: p.Key, Value: p.Value, Rev: r.rev})
		}
		tell(store.Change{
			Rev:     r.rev,
			Put:     w.items,
			Delete:  w.deleted[r.deleted.from:r.deleted.to],
			Entries: w.entries[r.entries.from:r.entries.to],
			More:    r.rev < w.state.rev,
		})
	}
}

// transact makes a batch durable. Each request has its own error; the one
// returned is of all that have none. Where bbolt fails or panics without having
// shown that nothing was applied, it is the last transaction ever.
func (w *writer) transact(batch []*request) (err error) {
	if w.Failed() != nil {
		return store.ErrStopped
	}
	if len(batch) == 0 {
		w.next = w.state
		return nil
	}
	w.stopwatch.begin()
	defer w.stopwatch.end()
	var tx *bbolt.Tx
	defer func() {
		if p := recover(); p != nil {
			err = w.stop(fmt.Errorf("panic: %v", p), store.ErrUnknown)
			w.wedged = !release(tx)
		}
	}()
	if tx, err = w.db.Load().Begin(true); err != nil {
		return w.stop(err, store.ErrStopped)
	}
	w.space.bind()
	w.reset()
	applied := false
	for _, r := range batch {
		if r.err = w.check(tx, &r.tx); r.err != nil {
			continue
		}
		if err := w.apply(tx, r); err != nil {
			_ = tx.Rollback() // cannot fail while tx is open
			return w.stop(err, store.ErrStopped)
		}
		applied = true
	}
	if !applied {
		return tx.Rollback()
	}
	if err := writeState(tx.Bucket(metaBucket), w.next); err != nil {
		_ = tx.Rollback() // cannot fail while tx is open
		return w.stop(err, store.ErrStopped)
	}
	id := tx.ID()
	if err := tx.Commit(); err != nil {
		if w.full(err) && w.unapplied(id) {
			return fmt.Errorf("%w: %w", store.ErrFull, err)
		}
		return w.stop(err, store.ErrUnknown)
	}
	return nil
}

// release ends a transaction in which bbolt panicked; false if bbolt will not
// let go of its lock.
func release(tx *bbolt.Tx) (ok bool) {
	if tx == nil {
		return false
	}
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	return tx.DB() == nil || tx.Rollback() == nil
}

// stop ends all writing and returns what those under way are told. The marker is there
// before they are: who hears of the failure may start the server anew at once.
func (w *writer) stop(cause, outcome error) error {
	cause = fmt.Errorf("bolt: writing has stopped: %w", cause)
	w.failed.Store(&cause)
	w.queue.refuse(fmt.Errorf("%w: %w", store.ErrStopped, cause))
	w.options.report(Report{Condition: Stopped, Cause: cause})
	w.space.rest()
	w.mark(cause)
	return fmt.Errorf("%w: %w", outcome, cause)
}

// full reports whether err, of a commit, says that there is no space. An error
// of fdatasync never does: what it has dropped nobody knows.
func (w *writer) full(err error) bool {
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		return true
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return noSpace(path)
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return false // of fdatasync
	}
	// bbolt hides the cause when the file cannot grow, so it is asked for again.
	info, err := w.file.Stat()
	return err == nil && noSpace(w.file.Truncate(info.Size()+int64(w.db.Load().AllocSize)))
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// unapplied reports whether transaction id left no trace in the meta pages.
func (w *writer) unapplied(id int) bool {
	last := id
	err := w.read(func(tx *bbolt.Tx) error {
		last = tx.ID()
		return nil
	})
	return err == nil && last < id
}

func (w *writer) reset() {
	w.next = w.state
	clear(w.buckets)
	w.buckets = w.buckets[:0]
	w.values = w.values[:0]
	clear(w.deleted)
	w.deleted = w.deleted[:0]
	clear(w.entries)
	w.entries = w.entries[:0]
}

// bucket returns the bucket of key's kind, which need not exist.
func (w *writer) bucket(tx *bbolt.Tx, kind string) *bucket {
	for i := range w.buckets {
		if w.buckets[i].kind == kind {
			return &w.buckets[i]
		}
	}
	w.buckets = append(w.buckets, bucket{kind: kind})
	b := &w.buckets[len(w.buckets)-1]
	b.open(tx.Bucket([]byte(kind)))
	return b
}

func (b *bucket) open(found *bbolt.Bucket) {
	if found != nil {
		found.FillPercent = fill
		b.b, b.cursor = found, found.Cursor()
		name, _ := b.cursor.Last()
		b.last = append(b.last, name...)
	}
}

// look returns the stored value under name, nil if there is none.
func (b *bucket) look(name []byte) []byte {
	if b.b == nil || bytes.Compare(name, b.last) > 0 {
		return nil
	}
	k, v := b.cursor.Seek(name)
	if !bytes.Equal(k, name) {
		return nil
	}
	return v
}

// find returns the revision of key, 0 if there is no such key.
func (w *writer) find(tx *bbolt.Tx, key string) (store.Rev, error) {
	kind := store.Kind(key)
	w.name = append(w.name[:0], key[len(kind):]...)
	v := w.bucket(tx, kind).look(w.name)
	if v == nil {
		return 0, nil
	}
	rev, _, err := unseal(kind, w.name, v)
	return rev, err
}

// check reports whether the conditions of a commit hold.
func (w *writer) check(tx *bbolt.Tx, t *store.Tx) error {
	for i := range t.If {
		rev, err := w.find(tx, t.If[i].Key)
		if err != nil {
			return err
		}
		if rev != t.If[i].Rev {
			return store.ErrConflict
		}
	}
	return nil
}

// apply makes the changes of a request. Nothing in it fails but bbolt.
func (w *writer) apply(tx *bbolt.Tx, r *request) error {
	w.next.rev++
	r.rev = w.next.rev
	r.deleted.from, r.entries.from = len(w.deleted), len(w.entries)
	for _, key := range r.tx.Delete {
		if err := w.delete(tx, key); err != nil {
			return err
		}
	}
	for i := range r.tx.Put {
		p := &r.tx.Put[i]
		kind := store.Kind(p.Key)
		start := w.room(len(p.Value))
		w.values = append(w.values, p.Value...)
		if err := w.put(tx, kind, p.Key[len(kind):], start, created(&r.tx, p.Key)); err != nil {
			return err
		}
	}
	for _, data := range r.tx.Append {
		w.next.head = w.next.head.Next(data)
		start := w.room(len(w.next.head.Hash) + len(data))
		w.values = store.AppendEntry(w.values, w.next.head.Hash, data)
		key := store.LogKey(w.next.head.Seq)
		kind := store.Kind(key)
		if err := w.put(tx, kind, key[len(kind):], start, false); err != nil {
			return err
		}
		w.entries = append(w.entries, store.Entry{Seq: w.next.head.Seq, Hash: w.next.head.Hash, Data: data})
	}
	r.deleted.to, r.entries.to = len(w.deleted), len(w.entries)
	return nil
}

// created reports whether key did not exist by a condition of t, which holds.
func created(t *store.Tx, key string) bool {
	for i := range t.If {
		if t.If[i].Rev == 0 && t.If[i].Key == key {
			return true
		}
	}
	return false
}

func (w *writer) delete(tx *bbolt.Tx, key string) error {
	kind := store.Kind(key)
	b := w.bucket(tx, kind)
	w.name = append(w.name[:0], key[len(kind):]...)
	v := b.look(w.name)
	if v == nil {
		return nil
	}
	w.next.held.remove(v)
	w.deleted = append(w.deleted, key)
	return b.b.Delete(w.name)
}

// room makes room for a stored value with n bytes of payload and returns where
// it starts; its head is left open. Values already handed to bbolt stay where
// they are: a full buffer is left to it and a new one begun.
func (w *writer) room(n int) int {
	const chunk = 256 << 10
	n += valueHead + valueTail
	if cap(w.values)-len(w.values) < n {
		w.values = make([]byte, 0, max(n, chunk, min(2*cap(w.values), 4<<20)))
	}
	start := len(w.values)
	w.values = w.values[:start+valueHead]
	return start
}

// put stores what room and its caller have laid out from start on. It is fresh
// if it is known that there is nothing under its name.
func (w *writer) put(tx *bbolt.Tx, kind, name string, start int, fresh bool) error {
	b := w.bucket(tx, kind)
	if b.b == nil {
		made, err := tx.CreateBucketIfNotExists([]byte(kind))
		if err != nil {
			return err
		}
		b.open(made)
	}
	w.name = append(w.name[:0], name...)
	switch {
	case bytes.Compare(w.name, b.last) > 0:
		b.last = append(b.last[:0], w.name...)
	case !fresh:
		if v := b.look(w.name); v != nil {
			w.next.held.remove(v)
		}
	}
	w.values = seal(w.values, start, kind, w.name, w.next.rev)
	value := w.values[start:len(w.values):len(w.values)]
	w.next.held.add(value)
	return b.b.Put(w.name, value)
}

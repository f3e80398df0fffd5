package event

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"sessiond/store"
)

// kept is how many of the last events a Tail has in memory.
const kept = 4096

// manyEvents is how many events nobody looks at but in his turn.
const manyEvents = 64

// A Tail keeps the last events in memory and hands each new one to those who wait
// for it: while anybody does, one goroutine looks at each event for all of them, and
// wakes those whom it fits. Who asks for what is no longer kept reads the store.
//
// Locks, in the order in which they are taken: waiting (who waits, and how far the
// events have been handed out), then ring. The store's watcher takes ring alone.
type Tail struct {
	store  store.Store
	stop   func()
	kick   chan struct{} // holds one: there is something to hand out
	drain  chan struct{} // closed by Drain
	drains sync.Once
	behind chan struct{} // held by those who have many events to look at; few at a time
	crowd  atomic.Int64  // how many wait; changed with waiting

	waiting struct {
		sync.Mutex
		all    map[*waiter]struct{}
		handed uint64        // position up to which every waiter has seen the events
		enough chan struct{} // closed when nobody waits any more; nil while nobody does
	}
	ring struct {
		sync.Mutex
		data  [kept][]byte // of the event at a position, by the position modulo kept
		floor uint64       // the events after this position are in data
		head  uint64       // position of the last event
	}
}

// A waiter waits for events that fit a query. All but ready is guarded by the
// tail's waiting.
type waiter struct {
	query *Query
	seen  uint64   // position up to which page has all that fits
	page  []Logged // at most query.Limit
	err   error
	ready chan struct{} // holds one: there is a page, or an error
}

// OpenTail returns the tail of a store's log, which follows it from now on.
func OpenTail(ctx context.Context, s store.Store) (*Tail, error) {
	t := &Tail{
		store: s, kick: make(chan struct{}, 1), drain: make(chan struct{}), behind: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)),
	}
	t.waiting.all = map[*waiter]struct{}{}
	for {
		rev := s.Rev()
		head, err := headOf(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("open the tail of the log: %w", err)
		}
		t.ring.floor, t.ring.head, t.waiting.handed = head, head, head
		t.stop, err = s.Watch(rev, t.apply)
		if errors.Is(err, store.ErrGap) {
			continue // there was a commit in between
		}
		if err != nil {
			return nil, fmt.Errorf("open the tail of the log: %w", err)
		}
		return t, nil
	}
}

// headOf returns the position of the last event.
func headOf(ctx context.Context, s store.Store) (uint64, error) {
	last, err := store.ReadLogBack(ctx, s, 0, 1)
	if err != nil {
		return 0, err
	}
	if len(last) > 0 {
		return last[0].Seq, nil
	}
	item, err := s.Get(ctx, store.AnchorKey) // all has been purged, or nothing ever happened
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	head, err := store.DecodeHead(item.Value)
	return head.Seq, err
}

// Close stops following the store, which stays open.
func (t *Tail) Close() { t.stop() }

// Drain ends every wait at once, those to come too. Only the first call does
// anything.
func (t *Tail) Drain() { t.drains.Do(func() { close(t.drain) }) }

// Head returns the position of the last event.
func (t *Tail) Head() uint64 {
	t.ring.Lock()
	defer t.ring.Unlock()
	return t.ring.head
}

// floor returns the position after which all events are in memory.
func (t *Tail) floor() uint64 {
	t.ring.Lock()
	defer t.ring.Unlock()
	return t.ring.floor
}

// apply takes over what a commit appended. It is called in commit order.
func (t *Tail) apply(c store.Change) {
	if len(c.Entries) == 0 {
		return
	}
	size := 0
	for i := range c.Entries {
		size += len(c.Entries[i].Data)
	}
	buffer := make([]byte, 0, size)
	t.ring.Lock()
	for i := range c.Entries {
		begin := len(buffer)
		buffer = append(buffer, c.Entries[i].Data...)
		seq := c.Entries[i].Seq
		if seq != t.ring.head+1 {
			t.ring.floor = seq - 1
		}
		t.ring.data[seq%kept], t.ring.head = buffer[begin:len(buffer):len(buffer)], seq
	}
	if t.ring.head > kept {
		t.ring.floor = max(t.ring.floor, t.ring.head-kept)
	}
	t.ring.Unlock()
	if t.crowd.Load() > 0 {
		select {
		case t.kick <- struct{}{}:
		default:
		}
	}
}

// recent returns up to limit events after a position; ok is false if they are not
// all in memory any more.
func (t *Tail) recent(after uint64, limit int) (entries []store.Entry, ok bool) {
	t.ring.Lock()
	defer t.ring.Unlock()
	if after < t.ring.floor {
		return nil, false
	}
	for seq := after + 1; seq <= t.ring.head && len(entries) < limit; seq++ {
		entries = append(entries, store.Entry{Seq: seq, Data: t.ring.data[seq%kept]})
	}
	return entries, true
}

// run hands out events until nobody waits any more.
func (t *Tail) run(enough <-chan struct{}) {
	for {
		select {
		case <-enough:
			return
		case <-t.kick:
			for t.hand() {
			}
		}
	}
}

// hand shows some of the events that nobody has seen yet to those who wait, and
// reports whether there may be more.
func (t *Tail) hand() bool {
	t.waiting.Lock()
	defer t.waiting.Unlock()
	if len(t.waiting.all) == 0 {
		return false
	}
	entries, ok := t.recent(t.waiting.handed, scanPage)
	if !ok { // more came at once than are kept: whoever waits reads the store
		for w := range t.waiting.all {
			w.wake()
			delete(t.waiting.all, w)
		}
		t.waiting.handed = t.Head() // else nobody would be handed anything while so much as one waits
		return false
	}
	for i := range entries {
		l, err := logged(entries[i])
		for w := range t.waiting.all {
			w.take(&l, err)
		}
		t.waiting.handed = l.Seq
	}
	return len(entries) == scanPage
}

func logged(entry store.Entry) (Logged, error) {
	e, err := Decode(entry)
	return Logged{entry.Seq, e}, err
}

// take shows the waiter an event.
func (w *waiter) take(l *Logged, err error) {
	if l.Seq <= w.seen || w.err != nil || len(w.page) >= w.query.Limit {
		return
	}
	if w.err = err; err != nil {
		w.wake()
		return
	}
	w.seen = l.Seq
	if w.query.fits(&l.Event) {
		w.page = append(w.page, *l)
		w.wake()
	}
}

func (w *waiter) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// join lets w wait for what comes after the position that it has seen, and shows it
// what the others have seen already; false if that is no longer in memory.
func (t *Tail) join(w *waiter) bool {
	t.waiting.Lock()
	defer t.waiting.Unlock()
	if t.crowd.Add(1) == 1 { // before the head is read: what comes after it is handed out
		t.waiting.handed = t.Head()
		t.waiting.enough = make(chan struct{})
		go t.run(t.waiting.enough)
	}
	t.waiting.all[w] = struct{}{}
	for w.seen < t.waiting.handed && len(w.page) < w.query.Limit && w.err == nil {
		entries, ok := t.recent(w.seen, int(min(t.waiting.handed-w.seen, scanPage)))
		if !ok {
			t.left(w)
			return false
		}
		for i := range entries {
			l, err := logged(entries[i])
			w.take(&l, err)
		}
	}
	return true
}

func (t *Tail) leave(w *waiter) {
	t.waiting.Lock()
	defer t.waiting.Unlock()
	t.left(w)
}

func (t *Tail) left(w *waiter) {
	delete(t.waiting.all, w)
	if t.crowd.Add(-1) == 0 {
		close(t.waiting.enough)
	}
}

// A Batch is what happened after a position, as far as it fits a query.
type Batch struct {
	Events []Logged
	At     uint64 // position to go on from
	Gap    bool   // events after the position that was asked for have been purged, or undone by a restore: Events begins at the oldest kept
}

// Cursor returns the cursor to go on from, which is also one of Read, oldest
// first.
func (b *Batch) Cursor() string {
	q := Query{Oldest: true}
	return q.cursor(b.At)
}

// Position returns the position that a cursor of a Batch, or of Read with the
// oldest first, stands for; the present one for an empty cursor. An error is an
// *api.Error.
func (t *Tail) Position(cursor string) (uint64, error) {
	head := t.Head()
	if cursor == "" {
		return head, nil
	}
	q := Query{Oldest: true, Cursor: cursor}
	at, err := q.start()
	if err == nil && at > head {
		err = badCursor("is of no event that has happened: leave it out to begin with the present")
	}
	return at, err
}

// alarm is how often a wait asks whether it is still wanted. It ends with the second
// no: what made the first one true is committed by then, as a rule, and an event.
const alarm = 400 * time.Millisecond

// Next returns the events after a position that fit q, oldest first and at most
// q.Limit. If there are none it waits for the first of them; the batch is empty
// when that took longer than wait, when wanted, if not nil, has said no twice, when ctx
// has ended or the tail drains. A call looks through so much of the store; an empty
// batch so may also mean that there was too much that did not fit.
func (t *Tail) Next(ctx context.Context, after uint64, q Query, wait time.Duration, wanted func() bool) (Batch, error) {
	if q.Limit <= 0 || q.Limit > MaxPage {
		q.Limit = MaxPage
	}
	until := time.NewTimer(wait)
	defer until.Stop()
	b := Batch{At: after}
	for {
		if end, err := t.catchUp(ctx, &q, &b); end || err != nil {
			return b, err
		}
		w := &waiter{query: &q, seen: b.At, ready: make(chan struct{}, 1)}
		if !t.join(w) { // what came meanwhile is in the store alone
			b.Events, b.At = w.page, w.seen
			if len(b.Events) > 0 {
				return b, nil
			}
			continue
		}
		over := t.await(ctx, w, until.C, wanted)
		t.leave(w)
		b.Events, b.At = w.page, w.seen
		if w.err != nil || len(b.Events) > 0 || over {
			return b, w.err
		}
	}
}

// await returns when w has something, or true when the wait is over.
func (t *Tail) await(ctx context.Context, w *waiter, until <-chan time.Time, wanted func() bool) (over bool) {
	ask := time.NewTicker(alarm)
	defer ask.Stop()
	for unwanted := 0; unwanted < 2; {
		select {
		case <-w.ready:
			return false
		case <-ask.C:
			if wanted != nil && !wanted() {
				unwanted++
			}
		case <-until:
			return true
		case <-ctx.Done():
			return true
		case <-t.drain:
			return true
		}
	}
	return true
}

// catchUp reads what has happened until now, and reports whether b is to be
// answered as it is.
func (t *Tail) catchUp(ctx context.Context, q *Query, b *Batch) (end bool, err error) {
	for scanned := 0; ; {
		seen, inMemory, err := t.page(ctx, q, b)
		switch {
		case t.isOver(ctx):
			return true, nil
		case err != nil:
			return false, err
		case len(b.Events) == q.Limit:
			return true, nil
		case inMemory && seen < scanPage:
			return len(b.Events) > 0 || b.Gap, nil
		}
		if scanned += seen; scanned >= scanMost {
			return true, nil
		}
	}
}

// page adds to b what fits of the events that come next, and tells how many it looked
// at and whether all that come next are in memory. Who has many to look at does it in
// turn with others who have: so they leave processors to what is quick.
func (t *Tail) page(ctx context.Context, q *Query, b *Batch) (seen int, inMemory bool, err error) {
	entries, inMemory := t.recent(b.At, scanPage)
	if !inMemory || len(entries) > manyEvents {
		select {
		case t.behind <- struct{}{}:
			defer func() { <-t.behind }()
		case <-ctx.Done():
			return 0, inMemory, ctx.Err()
		case <-t.drain:
			return 0, inMemory, nil
		}
	}
	if !inMemory {
		floor := t.floor() // before the store is read: what is committed meanwhile is not passed over
		if entries, err = store.ReadLog(ctx, t.store, b.At, scanPage); err != nil {
			return 0, false, err
		}
		if len(entries) == 0 { // all that was after it has been purged
			b.At, b.Gap = floor, true
		}
	}
	for _, entry := range entries {
		if entry.Seq != b.At+1 {
			b.Gap = true
		}
		l, err := logged(entry)
		if err != nil {
			return seen, inMemory, err
		}
		b.At = entry.Seq
		seen++
		if q.fits(&l.Event) {
			if b.Events = append(b.Events, l); len(b.Events) == q.Limit {
				break
			}
		}
	}
	return seen, inMemory, nil
}

// isOver reports whether ctx has ended, or the tail drains.
func (t *Tail) isOver(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	case <-t.drain:
		return true
	default:
		return false
	}
}

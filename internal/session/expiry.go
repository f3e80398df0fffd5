package session

import (
	"sync/atomic"

	"sessiond/internal/api"
)

// expiry orders the sessions by the moment at which they die by themselves. A
// touch moves that moment without telling; a session that is taken out too early
// is put back. Everything here is under the table's mu.
type expiry struct {
	heap []uint64 // deadline and entry's number, 32 bits each; the earliest first
}

// note sees to it that an entry is looked at when its deadline comes.
func (t *Table) note(n uint32, e *entry) {
	x := &t.expiry
	d := t.deadline(e, atomic.LoadUint32(&e.touched))
	if d == 0 || (e.queued != 0 && e.queued <= d) {
		return
	}
	e.queued = d
	x.push(uint64(d)<<32 | uint64(n))
}

// expire takes the places of the sessions that have died by now and queues them
// for their tombstones.
func (t *Table) expire(now int64) {
	x := &t.expiry
	for len(x.heap) > 0 && int64(x.heap[0]>>32) <= now {
		top := x.pop()
		n := uint32(top) //nolint:gosec // the low half
		e := t.entry(n)
		if e.handle.IsZero() || e.queued != uint32(top>>32) {
			continue // the entry was freed, or stands in the heap once more
		}
		e.queued = 0
		if t.seal(e, now) {
			t.bury(e)
		} else {
			t.note(n, e)
		}
	}
	if len(x.heap) > 2*t.live+4096 {
		x.compact(t)
	}
}

func (t *Table) expired(e *entry, now int64) bool {
	d := t.deadline(e, atomic.LoadUint32(&e.touched))
	return d != 0 && int64(d) <= now
}

// seal makes the death of a session final if it has expired. Readers look and
// touch in one hold of the shard's lock: either a touch is seen here, and the
// session lives, or it comes too late to revive it.
func (t *Table) seal(e *entry, now int64) bool {
	s, _ := t.shardOf(&e.handle)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !t.expired(e, now) {
		return false
	}
	atomic.OrUint32(&e.overlay, isDying)
	return true
}

// compact drops what stands for sessions that are gone.
func (x *expiry) compact(t *Table) {
	kept := x.heap[:0]
	for _, v := range x.heap {
		if e := t.entry(uint32(v)); !e.handle.IsZero() && e.queued == uint32(v>>32) { //nolint:gosec // the low half
			kept = append(kept, v)
		}
	}
	x.heap = kept
	for i := len(kept)/2 - 1; i >= 0; i-- {
		x.down(i)
	}
}

func (x *expiry) push(v uint64) {
	x.heap = append(x.heap, v)
	for i := len(x.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if x.heap[parent] <= x.heap[i] {
			return
		}
		x.heap[parent], x.heap[i] = x.heap[i], x.heap[parent]
		i = parent
	}
}

func (x *expiry) pop() uint64 {
	top, last := x.heap[0], len(x.heap)-1
	x.heap[0] = x.heap[last]
	x.heap = x.heap[:last]
	x.down(0)
	return top
}

func (x *expiry) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(x.heap); child++ {
			if x.heap[child] < x.heap[least] {
				least = child
			}
		}
		if least == i {
			return
		}
		x.heap[i], x.heap[least] = x.heap[least], x.heap[i]
		i = least
	}
}

// takeDead returns up to limit handles of sessions that have died and have no
// tombstone yet. Those that are dead only if it is later than what is sure wait.
func (t *Table) takeDead(now, sure int64, limit int) []api.ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	for len(t.dead) < limit && t.stale.rose {
		t.settleSome(staleTurn)
		t.mu.Unlock() // others may come in between
		t.mu.Lock()
	}
	var handles []api.ID
	for range min(len(t.dead), staleTurn) {
		if len(handles) == limit {
			break
		}
		h := t.dead[0]
		if t.dead = t.dead[1:]; sure < now && !t.isSurelyDead(h, sure) {
			t.dead = append(t.dead, h)
		} else {
			handles = append(handles, h)
		}
	}
	if len(t.dead) == 0 {
		t.dead = nil
	}
	return handles
}

// isSurelyDead reports whether a session has died by a moment, or by no clock.
func (t *Table) isSurelyDead(h api.ID, sure int64) bool {
	dead := true
	t.withEntry(h, func(e *entry) { dead = t.expired(e, sure) || !t.inForce(e) })
	return dead
}

// isBuried reports whether a session's death is final, and only its tombstone is
// awaited.
func (t *Table) isBuried(h api.ID) (buried bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.withEntry(h, func(e *entry) { buried = e.state&isSwept != 0 })
	return buried
}

// putDead queues sessions again whose tombstones could not be written.
func (t *Table) putDead(handles []api.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dead = append(t.dead, handles...)
}

// lastUse returns when a session that has no tombstone yet was used last; 0 for
// one that the table does not hold.
func (t *Table) lastUse(h api.ID) int64 {
	var at uint32
	t.withEntry(h, func(e *entry) { at = atomic.LoadUint32(&e.touched) })
	return int64(at)
}

package session

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"sessiond/internal/api"
)

// touchQueue holds the sessions whose last use the store should hear of. Its
// lock is taken at most once per session and accuracy period.
type touchQueue struct {
	mu      sync.Mutex
	handles []api.ID
}

// touch notes a use of a session that lives. The time stays in memory; once it
// is far enough from what the store has, the session waits to be written.
func (t *Table) touch(e *entry, now uint32) {
	last := atomic.LoadUint32(&e.touched)
	for last < now && !atomic.CompareAndSwapUint32(&e.touched, last, now) {
		last = atomic.LoadUint32(&e.touched)
	}
	if last < now && now-atomic.LoadUint32(&e.flushed) >= t.period(e.idle) {
		t.queueTouch(e)
	}
}

func (t *Table) queueTouch(e *entry) {
	if atomic.OrUint32(&e.overlay, isDirty)&isDirty != 0 {
		return
	}
	t.touched.mu.Lock()
	t.touched.handles = append(t.touched.handles, e.handle)
	t.touched.mu.Unlock()
}

// period is how many seconds of last access a crash may lose: the accuracy
// asked for, or a quarter of a shorter idle time.
func (t *Table) period(idle uint32) uint32 {
	p := uint32(t.accuracy.Load()) //nolint:gosec // bounded by the configuration
	if idle != 0 && idle/4 < p {
		p = idle / 4
	}
	return p
}

// A lastUse is a session's last access, as it is to be written.
type lastUse struct {
	handle api.ID
	at     uint32
}

// takeTouched returns the uses that wait to be written; with all, of every
// session whose stored time is behind, for the end of the process.
func (t *Table) takeTouched(all bool) []lastUse {
	t.touched.mu.Lock()
	handles := t.touched.handles
	t.touched.handles = nil
	t.touched.mu.Unlock()
	if all {
		handles = append(handles, t.behind()...)
	}
	uses := make([]lastUse, 0, len(handles))
	for _, h := range handles {
		t.withEntry(h, func(e *entry) {
			atomic.AndUint32(&e.overlay, ^isDirty)
			if at := atomic.LoadUint32(&e.touched); at > atomic.LoadUint32(&e.flushed) {
				uses = append(uses, lastUse{h, at})
			}
		})
	}
	return uses
}

// putTouched queues sessions again whose last uses could not be written.
func (t *Table) putTouched(uses []lastUse) {
	for _, u := range uses {
		t.withEntry(u.handle, t.queueTouch)
	}
}

// written notes that the store has these uses.
func (t *Table) written(uses []lastUse) {
	for _, u := range uses {
		t.withEntry(u.handle, func(e *entry) { atomic.StoreUint32(&e.flushed, u.at) })
	}
}

func (t *Table) behind() []api.ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var handles []api.ID
	for n := range t.entries.next {
		if e := t.entry(n + 1); !e.handle.IsZero() && atomic.LoadUint32(&e.touched) > atomic.LoadUint32(&e.flushed) {
			handles = append(handles, e.handle)
		}
	}
	return handles
}

// withEntry calls do with the handle's entry, if there is one, under the lock
// that keeps it in place.
func (t *Table) withEntry(h api.ID, do func(*entry)) {
	s, tag := t.shardOf(&h)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n := s.find(tag, &h, t); n != 0 {
		do(t.entry(n))
	}
}

// A block of last accesses: 20 bytes each, handle and Unix seconds.
const touchLen = 16 + 4

func appendTouch(dst []byte, h api.ID, at uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, h[:]...), at)
}

func readTouches(block []byte, do func(lastUse)) error {
	if len(block)%touchLen != 0 {
		return fmt.Errorf("%w: a block of last accesses is cut", ErrRecord)
	}
	for ; len(block) > 0; block = block[touchLen:] {
		do(lastUse{api.ID(block[:16]), binary.BigEndian.Uint32(block[16:])})
	}
	return nil
}

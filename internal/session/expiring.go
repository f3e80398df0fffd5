package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

// Whoever uses an API key wants to hear of its end ahead of time. A notice is due so
// many seconds before the lifetime's wall; it is an event, and in the same commit
// its moment is noted in the record, so that it is given once. What a key was made
// too late for is never due.

// notices orders the permanent sessions by the moment of their next notice. Like
// expiry it is under the table's mu, and what it holds of sessions that are gone is
// passed over.
type notices struct {
	leads  []int64 // seconds before the wall, the longest first
	heap   expiry
	queued map[uint32]uint32 // by entry: the moment under which the heap holds it
}

// due returns the moments of a record's notices that have come and were not given,
// the earliest first, and the moment of the one after them; 0 if there is none.
func (r *Record) due(leads []int64, now int64) (due []int64, next int64) {
	wall := int64(r.wall())
	if !r.Permanent || wall == 0 {
		return nil, 0
	}
	for _, lead := range leads {
		switch at := wall - lead; {
		case at <= max(r.Created, r.Noticed):
		case at <= now:
			due = append(due, at)
		default:
			return due, at
		}
	}
	return due, 0
}

// noteNotice sees to it that a session is looked at when its next notice is due.
func (t *Table) noteNotice(n uint32, r *Record) {
	due, at := r.due(t.notices.leads, t.now())
	if len(due) > 0 {
		at = due[0]
	}
	t.queueNotice(n, at)
}

func (t *Table) queueNotice(n uint32, at int64) {
	x := &t.notices
	if at <= 0 {
		delete(x.queued, n)
		return
	}
	if moment := uint32(at); x.queued[n] != moment { //nolint:gosec // until 2106
		x.queued[n] = moment
		x.heap.push(uint64(moment)<<32 | uint64(n))
	}
	if len(x.heap.heap) > 2*len(x.queued)+4096 {
		x.rebuild()
	}
}

// rebuild drops what stands for notices that are no longer awaited.
func (x *notices) rebuild() {
	x.heap.heap = x.heap.heap[:0]
	for n, moment := range x.queued {
		x.heap.push(uint64(moment)<<32 | uint64(n))
	}
}

// setLeads puts other notices in force. What was given is in the records alone: a
// session that may have one to be given is looked at soon.
func (t *Table) setLeads(leads []int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notices.leads = leads
	clear(t.notices.queued)
	t.notices.heap.heap = nil
	for n := uint32(1); n <= t.entries.next; n++ {
		e := t.entry(n)
		if e.handle.IsZero() || e.flags&isPermanent == 0 || e.maxAt == 0 {
			continue
		}
		for _, lead := range leads {
			if at := int64(e.maxAt) - lead; at > int64(e.created) {
				t.queueNotice(n, at)
				break
			}
		}
	}
}

// takeNotices returns sessions of which notices are due, so many that one commit holds
// them.
func (t *Table) takeNotices(now int64) (due []api.ID, leads []int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := &t.notices
	most := store.MaxOps / (1 + max(1, len(x.leads))) // a record, and an event for each notice
	for len(due) < most && len(x.heap.heap) > 0 && int64(x.heap.heap[0]>>32) <= now {
		top := x.heap.pop()
		n := uint32(top) //nolint:gosec // the low half
		if x.queued[n] != uint32(top>>32) {
			continue
		}
		delete(x.queued, n)
		if e := t.entry(n); !e.handle.IsZero() {
			due = append(due, e.handle)
		}
	}
	return due, x.leads
}

// putNotice queues a session for a moment.
func (t *Table) putNotice(h api.ID, at int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, tag := t.shardOf(&h)
	s.mu.RLock()
	n := s.find(tag, &h, t)
	s.mu.RUnlock()
	if n != 0 {
		t.queueNotice(n, at)
	}
}

// giveNotices gives the notices that are due, as long as more says so.
func (k *Keeper) giveNotices(ctx context.Context, more func() bool) error {
	var unreadable []error
	for more() {
		now := k.sure() // no notice can be taken back
		due, leads := k.table.takeNotices(now)
		if len(due) == 0 {
			break
		}
		left, bad, err := together(due, func(some []api.ID) error { return k.notice(ctx, some, leads, now) })
		unreadable = append(unreadable, bad...)
		if err != nil {
			for _, h := range left {
				k.table.putNotice(h, now)
			}
			return fmt.Errorf("give notice: %w", err)
		}
	}
	return errors.Join(unreadable...)
}

// notice gives the notices of sessions, in one commit.
func (k *Keeper) notice(ctx context.Context, handles []api.ID, leads []int64, now int64) error {
	var tx store.Tx
	for _, h := range handles {
		if _, alive := k.Present(h); !alive {
			continue // its end is told
		}
		r, rev, err := k.read(ctx, h)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		due, next := r.due(leads, now)
		if len(due) == 0 {
			k.table.putNotice(h, next)
			continue
		}
		wall := time.Unix(int64(r.wall()), 0).UTC()
		for _, at := range due {
			r.Noticed = at
			event.Append(&tx, event.Event{
				Time: k.clock.Now(), Kind: event.SessionExpiring, SessionHandle: HandleText(h), AccountID: r.AccountID.String(), Realm: r.Realm,
				Username: r.Username, Permanent: true, Expires: wall, NoticeSeconds: wall.Unix() - at,
			})
		}
		tx.If = append(tx.If, store.Cond{Key: liveKey(h), Rev: rev}, store.Cond{Key: endKey(h)})
		tx.Put = append(tx.Put, store.Put{Key: liveKey(h), Value: r.encode()})
	}
	if len(tx.Put) == 0 {
		return nil
	}
	_, err := k.store.Commit(ctx, tx)
	return err
}

package bolt

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"sessiond/store"
)

// A request is a commit on its way through the queue. Exactly one of its caller
// and the writer claims it: the caller to withdraw it, the writer to settle it.
type request struct {
	tx      store.Tx
	errand  func(*writer) error // instead of tx: what the writer does between two batches
	claimed atomic.Bool
	done    chan struct{} // holds one: the answer is there

	// The answer. The writer's until done.
	rev store.Rev
	err error

	// What the commit did, as parts of the writer's lists. The writer's.
	deleted, entries span
}

type span struct{ from, to int }

var requests = sync.Pool{New: func() any { return &request{done: make(chan struct{}, 1)} }}

func newRequest(tx store.Tx) *request {
	r, ok := requests.Get().(*request)
	if !ok {
		panic("bolt: a foreign thing in the pool")
	}
	r.tx = tx
	return r
}

// free gives r back; called by the last who holds it.
func (r *request) free() {
	*r = request{done: r.done}
	requests.Put(r)
}

func (r *request) withdraw() bool { return r.claimed.CompareAndSwap(false, true) }
func (r *request) claim() bool    { return r.claimed.CompareAndSwap(false, true) }

func (r *request) answer() { r.done <- struct{}{} }

// queue is the line before the writer: two lists, each bounded.
type queue struct {
	limit   int
	waiting atomic.Int64 // how many are in both lists

	mu     sync.Mutex
	urgent []*request
	normal []*request
	closed error         // why nobody may join; nil while all may
	held   error         // why only urgent ones may; nil while all may
	idle   bool          // the writer sleeps
	wake   chan struct{} // holds one: there is something to do
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, wake: make(chan struct{}, 1)}
}

// push adds r, or says why not.
func (q *queue) push(r *request) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return q.closed
	}
	list := &q.normal
	if r.tx.Urgent {
		list = &q.urgent
	} else if q.held != nil {
		return q.held
	}
	if len(*list) >= q.limit {
		return store.ErrBusy
	}
	*list = append(*list, r)
	q.waiting.Add(1)
	if q.idle {
		q.idle = false
		q.wake <- struct{}{}
	}
	return nil
}

// refuse lets nobody join any more and says why; what waits is still taken.
func (q *queue) refuse(why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = why
	if q.idle {
		q.idle = false
		q.wake <- struct{}{}
	}
}

// hold lets urgent requests alone join, and says why; with nil all may again.
func (q *queue) hold(why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held = why
}

// take appends what waits to batch, urgent first, up to most in all. It waits
// for the first, or for alarm, when there are none; ok is false when nobody will
// come any more.
func (q *queue) take(batch []*request, most int, alarm <-chan time.Time) (_ []*request, rang, ok bool) {
	for {
		q.mu.Lock()
		if len(q.urgent)+len(q.normal) > 0 {
			batch = q.move(batch, &q.urgent, most)
			batch = q.move(batch, &q.normal, most)
			q.mu.Unlock()
			select {
			case <-alarm:
				return batch, true, true
			default:
				return batch, false, true
			}
		}
		if q.closed != nil {
			q.mu.Unlock()
			return batch, false, false
		}
		q.idle = true
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-alarm:
			q.rouse()
			return batch, true, true
		}
	}
}

// rouse ends the writer's sleep, from which nobody woke it, or has just done so.
func (q *queue) rouse() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.idle {
		<-q.wake
	}
	q.idle = false
}

func (q *queue) move(batch []*request, list *[]*request, most int) []*request {
	n := min(len(*list), most-len(batch))
	batch = append(batch, (*list)[:n]...)
	rest := copy(*list, (*list)[n:])
	clear((*list)[rest:])
	*list = (*list)[:rest]
	q.waiting.Add(-int64(n))
	return batch
}

// linger waits until as many wait as want, and gives up once nobody new has
// come for a while: those answered last are about to come back, and a batch
// that takes them along saves them a whole commit. It yields rather than
// sleeps: the shortest sleep takes longer than a commit.
func (q *queue) linger(want int) {
	const patience = 64 // yields without a newcomer
	if want <= 1 {
		return // the next to come wakes the writer
	}
	seen := int64(0)
	for left := patience; left > 0; left-- {
		n := q.waiting.Load()
		if n >= int64(want) {
			return
		}
		if n > seen {
			seen, left = n, patience
		}
		runtime.Gosched()
	}
}

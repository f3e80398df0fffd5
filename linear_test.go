//go:build linux

package main

import (
	"context"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// Many clients of one server create, use, alter, rotate and end the same sessions
// at the same time, and some do not wait for the answer. Of each session there has
// to be an order of all that was done to it, in which everything took effect at one
// moment between its request and its answer, and which explains every answer. What
// was not answered may have taken effect at any later moment, or not at all. The
// end of a server is in that order too: what it had under way has taken effect
// before, or never does.
func TestLinearizability(t *testing.T) {
	linearize(t, linearPlan{operations: 5_000 / lessUnderRace, clients: 12})
}

// A linearPlan is how much is done, by how many clients, and for how long a server
// lives before it is killed and started again; nil: it is not.
type linearPlan struct {
	operations int64
	clients    int
	lives      func() time.Duration
}

const (
	linearLanes    = 24 // sessions that are used at a time
	lanesOfAccount = 2
	afterlife      = 12   // operations on a session once it has ended
	impatient      = 0.03 // of the operations are not waited for
	notFound       = 21401
	checkWithin    = 30 * time.Second
	linearOthers   = 1000 // the number of a client that is none
)

// linearize carries a plan out and returns what came of it.
func linearize(t *testing.T, plan linearPlan) *history {
	t.Helper()
	home := newHome(t, roomy())
	p := home.start(t)
	h := &history{staff: hire(t, p), begun: time.Now(), masses: map[string][]porcupine.Operation{}, seen: map[string]*[3]int{}}
	h.present.Store(&life{p: p, next: make(chan struct{})})
	h.run(t, &plan, home)
	took := time.Since(h.begun)
	h.check(t)
	t.Logf("%d operations of %d clients on %d sessions in %v with %d kills, checked in %v", h.done.Load(), plan.clients, len(h.all),
		took.Round(time.Millisecond), len(h.ends), (time.Since(h.begun) - took).Round(time.Millisecond))
	for _, what := range []string{
		doCreate, doValidate, doUse, doRefresh, doLook, doList, doAlter, doRotate, doLogout, doRevoke, doEnd, doRemove, doEndAll,
	} {
		n := h.seen[what]
		if n == nil {
			n = &[3]int{}
		}
		t.Logf("%6d well, %5d in vain, %4d without an answer: %s", n[0], n[1], n[2], what)
		never := what == doCreate || what == doEndAll || what == doRemove // in vain
		if n[0] == 0 || n[1] == 0 && !never || n[2] == 0 && what != doCreate && plan.operations > 10_000 {
			t.Errorf("%s: not all happened", what)
		}
	}
	return h
}

// run lets the clients of a plan work until they have done enough.
func (h *history) run(t *testing.T, plan *linearPlan, home home) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel() // should a server not start
	for n := range plan.clients {
		clients.Go(func() {
			c := &linearClient{history: h, id: n}
			defer c.close()
			for h.done.Load() < plan.operations && !t.Failed() && ctx.Err() == nil {
				if err := c.step(ctx); err != nil {
					t.Errorf("client %d: %v", n, err)
				}
			}
		})
	}
	for plan.lives != nil && h.done.Load() < plan.operations && !t.Failed() {
		pause(t, plan.lives())
		h.kill(t, home)
	}
	clients.Wait()
	c := &linearClient{history: h, id: plan.clients}
	defer c.close()
	if err := c.review(t.Context()); err != nil && !t.Failed() {
		t.Error(err)
	}
}

// A life is a server from its start to its end.
type life struct {
	p      *process
	ending atomic.Bool   // answers may be lost
	next   chan struct{} // closed once there is another one
}

// kill ends the present server at once and starts another one on its data.
func (h *history) kill(t *testing.T, home home) {
	t.Helper()
	before := h.present.Load()
	before.ending.Store(true)
	before.p.kill()
	h.ends = append(h.ends, h.now())
	next := &life{p: home.start(t), next: make(chan struct{})}
	h.slowest = max(h.slowest, next.p.ready)
	h.present.Store(next)
	close(before.next)
}

// history is what was done, by session.
type history struct {
	staff staff
	begun time.Time
	done  atomic.Int64
	texts atomic.Int64
	lanes [linearLanes]atomic.Pointer[lane]

	present atomic.Pointer[life]
	ends    []int64       // when the servers were gone; of the goroutine that kills them
	slowest time.Duration // until the next one was ready

	wrong, undecided int // histories without an order, and those of which it was not found out

	mu     sync.Mutex
	all    []*lane
	masses map[string][]porcupine.Operation // by account
	seen   map[string]*[3]int               // by what was done: well, in vain, without an answer
}

// A lane is a session, and what was done to it.
type lane struct {
	account, handle string

	mu     sync.Mutex
	tokens []string // each the successor of the one before
	done   []porcupine.Operation
	ended  bool
	left   int // operations, once it has ended
}

// now is of a clock that no one sets.
func (h *history) now() int64 { return time.Since(h.begun).Nanoseconds() }

// check fails unless the history of every session has an order.
func (h *history) check(t *testing.T) {
	t.Helper()
	model := seenModel()
	for _, l := range h.all {
		first, last := l.done[0].Call, int64(0)
		for _, o := range l.done {
			last = max(last, o.Return)
		}
		for _, m := range h.masses[l.account] {
			if m.Return > first && m.Call < last {
				l.done = append(l.done, m)
				if m.Return != never {
					m.Input = deed{what: doSettle}
					l.done = append(l.done, m)
				}
			}
		}
		h.cut(l)
		l.done = append(l.done, porcupine.Operation{ClientId: linearOthers, Input: deed{what: doRest}, Call: h.now(), Output: outcome{}, Return: never})
		result, info := porcupine.CheckOperationsVerbose(model, l.done, checkWithin)
		if result == porcupine.Ok {
			continue
		}
		if result == porcupine.Illegal {
			h.wrong++
		} else {
			h.undecided++
		}
		t.Errorf("the history of %s of %s is %s", l.handle, l.account, result)
		slices.SortFunc(l.done, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		for _, o := range l.done {
			t.Logf("client %2d, %8d to %8d µs: %s", o.ClientId, o.Call/1000, o.Return/1000, model.DescribeOperation(o.Input, o.Output))
		}
		if file := os.Getenv("LINEAR_PICTURE"); file != "" {
			if err := porcupine.VisualizePath(model, info, file); err != nil {
				t.Error(err)
			}
		}
		break // one is enough to look at
	}
}

// cut puts the ends of servers into a session's history, after all that those
// servers were asked.
func (h *history) cut(l *lane) {
	first := l.done[0].Call
	for i, o := range l.done {
		if n, _ := slices.BinarySearch(h.ends, o.Call); n < len(h.ends) {
			l.done[i].Return = min(o.Return, h.ends[n]-1)
		}
	}
	for _, end := range h.ends {
		if end > first {
			l.done = append(l.done, porcupine.Operation{ClientId: linearOthers, Input: deed{what: doKill}, Call: end, Output: outcome{}, Return: end})
		}
	}
}

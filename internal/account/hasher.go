package account

import (
	"context"
	"crypto/rand"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alexedwards/argon2id"

	"sessiond/internal/api"
	"sessiond/internal/clock"
)

// Cost is what one hash costs (RFC 9106).
type Cost struct {
	MemoryKiB   uint32
	Iterations  uint32
	Parallelism uint8
}

// DefaultCost returns OWASP's minimum for argon2id: 19 MiB and about 26 ms.
func DefaultCost() Cost { return Cost{MemoryKiB: 19456, Iterations: 2, Parallelism: 1} }

// DefaultQueue is how many hashes may wait: about two seconds of one worker.
const DefaultQueue = 64

// Where hashes take longer, fewer may wait: what cannot be worked off in so long
// would rather end with its request than be checked. But some may at any pace.
const (
	longestQueue = 2 * time.Second
	fewestPlaces = 4
)

// Hasher makes and checks password hashes on a fixed number of workers, so that
// log-ins can neither starve other requests of processors nor exhaust memory. A
// place belongs to the work and not to who waits for it: someone who goes away
// frees a worker only when its hash is done. What waits is bounded, see Lane, in
// number and in time; whoever finds no place is told at once when to come back.
type Hasher struct {
	params  argon2id.Params
	decoy   string
	workers int
	places  int
	clock   clock.Clock // for how long hashes take
	inChild *inChild    // nil: in this process
	quit    chan struct{}
	close   sync.Once
	done    sync.WaitGroup
	runs    atomic.Int64

	mu      sync.Mutex
	wake    *sync.Cond // something waits, or the end has come
	waiting queue
	closed  bool
	pace    time.Duration // what a hash takes of late, waiting for processors included
}

// NewHasher starts workers, max(1, processors-1) of them if workers is 0, behind a
// queue of DefaultQueue places if queue is 0. Close ends them.
func NewHasher(workers, queue int, options ...HasherOption) *Hasher {
	return NewHasherCost(workers, queue, DefaultCost(), options...)
}

// NewHasherCost is NewHasher with another cost than the default: tests want a
// small one.
func NewHasherCost(workers, queue int, cost Cost, options ...HasherOption) *Hasher {
	if workers <= 0 {
		workers = max(1, runtime.NumCPU()-1)
	}
	if queue <= 0 {
		queue = DefaultQueue
	}
	h := &Hasher{
		params: argon2id.Params{
			Memory: cost.MemoryKiB, Iterations: cost.Iterations, Parallelism: cost.Parallelism,
			SaltLength: 16, KeyLength: 32,
		},
		workers: workers,
		places:  queue,
		clock:   clock.NewSystem(),
		quit:    make(chan struct{}),
		waiting: newQueue(),
	}
	h.wake = sync.NewCond(&h.mu)
	var random [48]byte
	_, _ = rand.Read(random[:]) // never fails
	h.decoy = formatPHC(&h.params, random[:16], random[16:])
	for _, option := range options {
		option(h)
	}
	for range workers {
		h.done.Go(h.work)
	}
	return h
}

// Close drops what waits, lets the hashes under way finish and ends the workers
// and their children.
// Calling it twice is fine.
func (h *Hasher) Close() {
	h.close.Do(func() {
		close(h.quit)
		h.mu.Lock()
		h.closed = true
		h.mu.Unlock()
		h.wake.Broadcast()
	})
	h.done.Wait()
}

// Runs returns how many hashes have been begun.
func (h *Hasher) Runs() int64 { return h.runs.Load() }

// Hash returns the PHC string of a password. Errors are those of Verify.
func (h *Hasher) Hash(ctx context.Context, lane Lane, password api.Secret) (api.Secret, error) {
	a, err := h.ask(ctx, lane, question{Make: true, Password: []byte(password.Reveal()), PHC: h.decoy})
	if err != nil {
		return api.Secret{}, err
	}
	if a.Failed {
		return api.Secret{}, errNoHash
	}
	return api.NewSecret(a.PHC), nil
}

// Verify reports whether phc was made of password. With the zero phc the answer
// is no, after the work of a hash of the present cost. An *api.Error with code
// Overloaded or ShuttingDown means that nothing was checked; so does any other
// error, which is about phc.
func (h *Hasher) Verify(ctx context.Context, lane Lane, password, phc api.Secret) (bool, error) {
	text := phc.Reveal()
	if phc.IsZero() {
		text = h.decoy
	}
	if err := checkPHC(text); err != nil {
		return false, err
	}
	a, err := h.ask(ctx, lane, question{Password: []byte(password.Reveal()), PHC: text})
	if err != nil {
		return false, err
	}
	if a.Failed {
		return false, errPHC
	}
	return a.Match && !phc.IsZero(), nil
}

// ask has a worker answer a question. Errors are those of do.
func (h *Hasher) ask(ctx context.Context, lane Lane, q question) (a answer, err error) {
	err = h.do(ctx, lane, func(w *worker) { a = w.answer(q) })
	return a, err
}

// do has a worker run the function and waits for it. Once begun, it is waited
// for even if the context ends: the outcome counts. An error means that it never
// began.
func (h *Hasher) do(ctx context.Context, lane Lane, run func(*worker)) error {
	j := &job{lane: lane, run: run, finished: make(chan struct{})}
	if err := h.enqueue(ctx, j); err != nil {
		return err
	}
	select {
	case <-j.finished:
		return nil
	case <-ctx.Done():
		if h.withdraw(j) {
			return h.overloaded().Because(ctx.Err())
		}
	case <-h.quit:
		if h.withdraw(j) {
			return shuttingDown()
		}
	}
	<-j.finished
	return nil
}

// enqueue gives a job its place, or says at once why there is none.
func (h *Hasher) enqueue(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return h.overloaded().Because(err)
	}
	h.mu.Lock()
	closed, placed := h.closed, false
	if !closed {
		placed = h.waiting.push(j, h.placesNow())
	}
	h.mu.Unlock()
	switch {
	case closed:
		return shuttingDown()
	case !placed:
		return h.overloaded()
	}
	h.wake.Signal()
	return nil
}

// withdraw gives a place back and reports whether the job still held one: no
// worker had begun it, and none will.
func (h *Hasher) withdraw(j *job) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.waiting.remove(j)
}

func (h *Hasher) work() {
	w := &worker{Hasher: h}
	defer w.stop()
	for j := h.next(); j != nil; j = h.next() {
		begun := h.clock.Now()
		j.run(w)
		h.took(h.clock.Now().Sub(begun))
		close(j.finished)
	}
}

// next waits for a job and begins it; nil ends the worker.
func (h *Hasher) next() *job {
	h.mu.Lock()
	defer h.mu.Unlock()
	for !h.closed {
		if j := h.waiting.pop(); j != nil {
			h.runs.Add(1)
			return j
		}
		h.wake.Wait()
	}
	return nil
}

// took takes the duration of a hash into their moving average.
func (h *Hasher) took(d time.Duration) {
	const longest = 10 * time.Second // more is a step of the clock
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pace += (min(d, longest) - h.pace) / 8
}

// placesNow returns how many may wait at the pace of late; the caller holds mu.
func (h *Hasher) placesNow() int {
	if h.pace <= 0 {
		return h.places
	}
	return min(h.places, max(fewestPlaces, int(longestQueue*time.Duration(h.workers)/h.pace)))
}

// overloaded says to come back when what waits now will be worked off.
func (h *Hasher) overloaded() *api.Error {
	h.mu.Lock()
	ahead := h.pace * time.Duration(h.waiting.len()) / time.Duration(h.workers)
	h.mu.Unlock()
	e := api.Errorf(api.Overloaded, "too many log-ins wait to be checked; repeat after retryAfterSeconds")
	e.Data.RetryAfterSeconds = max(1, int64((ahead+time.Second-1)/time.Second))
	return e
}

func shuttingDown() *api.Error {
	return api.Errorf(api.ShuttingDown, "the server is stopping")
}

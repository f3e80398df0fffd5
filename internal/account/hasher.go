package account

import (
	"context"
	"crypto/rand"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/alexedwards/argon2id"

	"sessiond/internal/api"
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

// busySeconds is when to come back to a full queue: when it has been worked off.
const busySeconds = 2

// Hasher makes and checks password hashes on a fixed number of workers, so that
// log-ins can neither starve other requests of processors nor exhaust memory. A
// place belongs to the work and not to who waits for it: someone who goes away
// frees a worker only when its hash is done.
type Hasher struct {
	params argon2id.Params
	decoy  string
	queue  chan *job
	quit   chan struct{}
	close  sync.Once
	done   sync.WaitGroup
	runs   atomic.Int64
}

// NewHasher starts workers, max(1, processors-1) of them if workers is 0, behind a
// queue of DefaultQueue places if queue is 0. Close ends them.
func NewHasher(workers, queue int) *Hasher { return NewHasherCost(workers, queue, DefaultCost()) }

// NewHasherCost is NewHasher with another cost than the default: tests want a
// small one.
func NewHasherCost(workers, queue int, cost Cost) *Hasher {
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
		queue: make(chan *job, queue),
		quit:  make(chan struct{}),
	}
	var random [48]byte
	_, _ = rand.Read(random[:]) // never fails
	h.decoy = formatPHC(&h.params, random[:16], random[16:])
	for range workers {
		h.done.Go(h.work)
	}
	return h
}

// Close drops what waits, lets the hashes under way finish and ends the workers.
// Calling it twice is fine.
func (h *Hasher) Close() {
	h.close.Do(func() { close(h.quit) })
	h.done.Wait()
}

// Runs returns how many hashes have been begun.
func (h *Hasher) Runs() int64 { return h.runs.Load() }

// A Lane says for whom a hash is made: those who are known go first, and no
// network may fill the queue.
type Lane struct {
	Familiar bool       // the account was in use from there before, or the caller holds a session
	Network  netip.Addr // see network; the zero address counts nowhere
}

// Hash returns the PHC string of a password. Errors are those of Verify.
func (h *Hasher) Hash(ctx context.Context, lane Lane, password api.Secret) (api.Secret, error) {
	var phc string
	var failed error
	err := h.do(ctx, lane, func() {
		phc, failed = argon2id.CreateHash(password.Reveal(), &h.params)
	})
	if err != nil {
		return api.Secret{}, err
	}
	if failed != nil {
		return api.Secret{}, failed
	}
	return api.NewSecret(phc), nil
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
	var match bool
	var failed error
	err := h.do(ctx, lane, func() {
		match, failed = argon2id.ComparePasswordAndHash(password.Reveal(), text)
	})
	if err != nil {
		return false, err
	}
	if failed != nil {
		return false, errPHC
	}
	return match && !phc.IsZero(), nil
}

// job is a piece of work and who owns it now.
type job struct {
	run      func()
	taken    atomic.Bool // by a worker that runs it, or by the waiter that gave up
	finished chan struct{}
}

// take reports whether the caller is the one who decides what becomes of j.
func (j *job) take() bool { return j.taken.CompareAndSwap(false, true) }

// do has a worker run the function and waits for it. Once begun, it is waited
// for even if the context ends: the outcome counts. An error means that it never
// began.
func (h *Hasher) do(ctx context.Context, _ Lane, run func()) error {
	j := &job{run: run, finished: make(chan struct{})}
	if err := ctx.Err(); err != nil {
		return overloaded().Because(err)
	}
	select {
	case <-h.quit:
		return shuttingDown()
	default:
	}
	select {
	case h.queue <- j:
	default:
		return overloaded()
	}
	select {
	case <-j.finished:
		return nil
	case <-ctx.Done():
		if j.take() {
			return overloaded().Because(ctx.Err())
		}
	case <-h.quit:
		if j.take() {
			return shuttingDown()
		}
	}
	<-j.finished
	return nil
}

func (h *Hasher) work() {
	for {
		select {
		case <-h.quit:
			return
		case j := <-h.queue:
			if j.take() {
				h.runs.Add(1)
				j.run()
				close(j.finished)
			}
		}
	}
}

func overloaded() *api.Error {
	e := api.Errorf(api.Overloaded, "too many log-ins wait to be checked; repeat after retryAfterSeconds")
	e.Data.RetryAfterSeconds = busySeconds
	return e
}

func shuttingDown() *api.Error {
	return api.Errorf(api.ShuttingDown, "the server is stopping")
}

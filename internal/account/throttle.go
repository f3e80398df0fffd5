package account

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/clock"
)

// How guessing is slowed down.
const (
	freeFailures = 5                // consecutive failures before the first wait
	firstWait    = time.Second      // doubles with each further failure
	longestWait  = 15 * time.Minute //

	// A count is forgotten when its last failure is so old. Four guesses in each
	// hour are no more than the longest wait allows, so forgetting gains nothing.
	forgetFew  = time.Hour
	forgetMany = 24 * time.Hour

	addressBurst = 100              // failures from one address at once
	addressPace  = 10 * time.Second // and then one in so long

	nameCells    = 1 << 20 // 16 MiB, made when first needed
	addressCells = 1 << 18 // 2 MiB
)

// Throttle counts failed log-ins and says who has to wait. An attempt is charged
// before its password is checked, so attempts in parallel count too.
//
// An account that exists has a counter of its own, which nothing else can move.
// Names that do not exist share a fixed array under a keyed hash: no number of
// invented names costs memory or pushes anything out, and the same rule moves
// both, so that nobody sees from outside which kind a name has. Two names that
// share a cell add up, which can make an invented name wait too early, never one
// that exists.
//
// Addresses (IPv6: networks of /64) have an allowance that refills with time.
// A success takes back its own charge only: logging in to an account of one's
// own buys no guesses at others.
type Throttle struct {
	clock clock.Clock
	seed  maphash.Seed

	mu        sync.Mutex
	accounts  map[string]*counter // those with failures or attempts under way
	sweepAt   int                 // size of accounts at which forgotten ones are removed
	names     []counter
	addresses []int64 // when the allowance of a cell is whole again, Unix nanoseconds
}

// NewThrottle returns a Throttle that remembers nothing.
func NewThrottle(c clock.Clock) *Throttle {
	return &Throttle{clock: c, seed: maphash.MakeSeed(), accounts: make(map[string]*counter), sweepAt: 1024}
}

// counter is the state of one name. The zero counter is that of a name nobody
// has tried.
type counter struct {
	last    int64  // time of the last failure, Unix nanoseconds
	failed  uint32 // consecutive failures
	pending uint32 // attempts being checked
}

// refresh forgets failures that are old enough.
func (c *counter) refresh(now int64) {
	keep := forgetFew
	if c.failed >= freeFailures {
		keep = forgetMany
	}
	if now-c.last > int64(keep) {
		c.failed = 0
	}
}

// wait returns how long the next attempt has to wait.
func (c *counter) wait(now int64) time.Duration {
	if c.failed < freeFailures {
		return 0
	}
	pause := longestWait
	if doublings := c.failed - freeFailures; doublings < 10 {
		pause = min(firstWait<<doublings, longestWait)
	}
	return time.Duration(c.last + int64(pause) - now)
}

// full reports whether the attempts being checked would use up all failures
// that are left before the next wait.
func (c *counter) full() bool {
	if c.failed < freeFailures {
		return c.failed+c.pending >= freeFailures
	}
	return c.pending > 0
}

// attempt is a charged log-in. One of its three ends is called, once.
type attempt struct {
	throttle *Throttle
	counter  *counter
	key      string // of an account that exists, or ""
	address  *int64 // nil without an address
}

// begin charges an attempt at the account under key, which exists or not, from
// an address, which may be invalid. A refusal has code LoginThrottled, or
// Overloaded where attempts under way have to end first; nothing is charged then.
func (t *Throttle) begin(key string, exists bool, from netip.Addr) (*attempt, *api.Error) {
	now := t.clock.Now().UnixNano()
	t.mu.Lock()
	defer t.mu.Unlock()

	a := &attempt{throttle: t, address: t.addressCell(from)}
	if exists {
		a.key = key
		a.counter = t.account(key, now)
	} else {
		a.counter = t.nameCell(key)
	}
	a.counter.refresh(now)

	wait := a.counter.wait(now)
	if a.address != nil {
		wait = max(wait, time.Duration(*a.address-now-int64((addressBurst-1)*addressPace)))
	}
	if wait > 0 {
		a.forgetIdle()
		return nil, throttled(wait)
	}
	if a.counter.full() {
		return nil, underWay()
	}
	a.counter.pending++
	if a.address != nil {
		*a.address = max(*a.address, now) + int64(addressPace)
	}
	return a, nil
}

// fail ends an attempt whose password was wrong.
func (a *attempt) fail() {
	a.end(func(now int64) {
		a.counter.failed++
		a.counter.last = now
	})
}

// pass ends an attempt whose password was right: the row of failures is over.
func (a *attempt) pass() {
	a.end(func(int64) {
		a.counter.failed = 0
		a.refundAddress()
	})
}

// refund ends an attempt that was not checked.
func (a *attempt) refund() { a.end(func(int64) { a.refundAddress() }) }

func (a *attempt) end(count func(now int64)) {
	now := a.throttle.clock.Now().UnixNano()
	a.throttle.mu.Lock()
	defer a.throttle.mu.Unlock()
	a.counter.pending--
	count(now)
	a.forgetIdle()
}

func (a *attempt) refundAddress() {
	if a.address != nil {
		*a.address -= int64(addressPace)
	}
}

// forgetIdle removes the counter of an account that has nothing to remember.
func (a *attempt) forgetIdle() {
	if a.key != "" && a.counter.failed == 0 && a.counter.pending == 0 {
		delete(a.throttle.accounts, a.key)
	}
}

func (t *Throttle) account(key string, now int64) *counter {
	if c := t.accounts[key]; c != nil {
		return c
	}
	if len(t.accounts) >= t.sweepAt {
		for k, c := range t.accounts {
			if c.refresh(now); c.failed == 0 && c.pending == 0 {
				delete(t.accounts, k)
			}
		}
		t.sweepAt = max(1024, 2*len(t.accounts))
	}
	c := &counter{}
	t.accounts[key] = c
	return c
}

func (t *Throttle) nameCell(key string) *counter {
	if t.names == nil {
		t.names = make([]counter, nameCells)
	}
	return &t.names[maphash.String(t.seed, key)%nameCells]
}

func (t *Throttle) addressCell(from netip.Addr) *int64 {
	if !from.IsValid() {
		return nil
	}
	if t.addresses == nil {
		t.addresses = make([]int64, addressCells)
	}
	network := network(from)
	return &t.addresses[maphash.Comparable(t.seed, network)%addressCells]
}

// network returns what counts as one address: all of IPv4, the /64 of IPv6.
func network(from netip.Addr) netip.Addr {
	from = from.Unmap().WithZone("")
	if !from.Is6() {
		return from
	}
	prefix, err := from.Prefix(64)
	if err != nil {
		return from
	}
	return prefix.Addr()
}

func throttled(wait time.Duration) *api.Error {
	e := api.Errorf(api.LoginThrottled, "too many failed log-ins; repeat after retryAfterSeconds")
	e.Data.RetryAfterSeconds = int64((wait + time.Second - 1) / time.Second)
	return e
}

func underWay() *api.Error {
	e := api.Errorf(api.Overloaded, "too many log-ins under this user name are being checked; repeat after retryAfterSeconds")
	e.Data.RetryAfterSeconds = 1
	return e
}

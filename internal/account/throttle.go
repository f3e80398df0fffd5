package account

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"math"
	"net/netip"
	"sync"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/network"
)

// How guessing is slowed down.
const (
	freeFailures = 5                // consecutive failures before the first wait
	firstWait    = time.Second      // doubles with each further failure
	longestWait  = 15 * time.Minute //

	manyFailures = 100            // in a row are the most that NIST SP 800-63B-4, 3.2.2, allows:
	manyWait     = 24 * time.Hour // from then on, one guess a day

	// A count is forgotten when its last failure is so old, or twice the wait if
	// that is longer. Four guesses in each hour are no more than the longest wait
	// allows, so forgetting gains nothing.
	forgetFew  = time.Hour
	forgetMany = 24 * time.Hour

	networkBurst = 100              // failures from one network at once
	networkPace  = 10 * time.Second // and then one in so long

	nameCells    = 1 << 20 // 16 MiB at the most
	networkCells = 1 << 18 // 2 MiB, made when first needed
)

// Throttle counts failed log-ins and says who has to wait. An attempt is charged
// before its password is checked, so attempts in parallel count too.
//
// An account that exists has counters of its own, which nothing else can move:
// one for each familiar network, where it has logged in lately, and one for the
// rest of the world. So guesses from elsewhere never make its user wait where he
// is at home. Names that do not exist share a fixed array under a keyed hash: no
// number of invented names costs memory or pushes anything out, and the same rule
// moves both, so that nobody sees from outside which kind a name has. Two names
// that share a cell add up, which can make an invented name wait too early, never
// one that exists.
//
// Networks (network.Bounds) have an allowance that refills with time. Only its
// own, not the wider ones around it, binds a familiar one: neighbours cannot
// shut it out.
//
// A success takes back its own charge, and of the counter the failures that came
// before it from the same network, without others' between: a guesser gains
// nothing by the log-ins of his victim, nor by those to an account of his own.
type Throttle struct {
	clock clock.Clock

	mu       sync.Mutex
	key      [16]byte // of the hash
	accounts map[tallyKey]*tally
	sweepAt  int // size of accounts at which forgotten ones are removed
	names    counters
	networks []int64 // when the allowance of a cell is whole again, Unix nanoseconds
	kept     kept
}

// NewThrottle returns a Throttle that remembers nothing.
func NewThrottle(c clock.Clock) *Throttle {
	t := &Throttle{clock: c, accounts: make(map[tallyKey]*tally), sweepAt: 1024, kept: kept{moved: newMoves()}}
	_, _ = rand.Read(t.key[:]) // never fails
	return t
}

// policy is how long failures make an account wait, if it has a rule of its own:
// so many in a row are free, then each costs the whole wait. The zero policy is
// the built-in one.
type policy struct {
	after int
	wait  time.Duration
}

// defaultLockoutMinutes is the wait of an account that says only after how many
// failures it wants one.
const defaultLockoutMinutes = 5

func policyOf(a *Account) policy {
	if a.LockoutAfter <= 0 {
		return policy{}
	}
	minutes := a.LockoutMinutes
	if minutes <= 0 {
		minutes = defaultLockoutMinutes
	}
	return policy{after: a.LockoutAfter, wait: time.Duration(minutes) * time.Minute}
}

// free returns how many failures in a row cost no wait.
func (p policy) free() uint16 {
	if p.after > 0 {
		return uint16(min(p.after, manyFailures))
	}
	return freeFailures
}

// tallyKey names a counter of an account: that for a familiar network, or with
// the zero address the one for the rest of the world.
type tallyKey struct {
	account api.ID
	network netip.Addr
}

// tally is the counter of an account that exists, which has failures or attempts
// under way.
type tally struct {
	counter

	policy policy
}

// counter is the state of one name. The zero counter is that of a name nobody
// has tried.
type counter struct {
	last    int64  // time of the last failure, Unix nanoseconds
	failed  uint16 // consecutive failures
	alike   uint16 // so many of them, the last ones, came from one network
	network uint16 // which one: a hash
	pending uint16 // attempts being checked
}

// counters are those of names. A page of them is made when it is first needed.
type counters [nameCells / countersOfPage]*[countersOfPage]counter

const countersOfPage = 256 // 4 KiB

func (c *counters) at(cell uint32) *counter {
	page := &c[cell/countersOfPage]
	if *page == nil {
		*page = new([countersOfPage]counter)
	}
	return &(*page)[cell%countersOfPage]
}

// all are those of the pages that were needed.
func (c *counters) all() iter.Seq2[uint32, *counter] {
	return func(yield func(uint32, *counter) bool) {
		for cell := uint32(0); cell < nameCells; cell++ {
			page := c[cell/countersOfPage]
			if page == nil {
				cell += countersOfPage - 1
			} else if !yield(cell, &page[cell%countersOfPage]) {
				return
			}
		}
	}
}

// refresh forgets failures that are old enough. Where the clock has gone back, a
// wait begins anew: it ends neither early nor long after.
func (c *counter) refresh(p policy, now int64) {
	c.last = min(c.last, now)
	keep := forgetFew
	if c.failed >= min(freeFailures, p.free()) {
		keep = max(forgetMany, 2*c.pause(p))
	}
	if now-c.last > int64(keep) {
		c.failed, c.alike = 0, 0
	}
}

// pause returns how long after the last failure the next attempt may come.
func (c *counter) pause(p policy) time.Duration {
	switch {
	case c.failed >= manyFailures:
		return max(manyWait, p.wait)
	case c.failed < p.free():
		return 0
	case p.after > 0:
		return p.wait
	}
	if doublings := c.failed - freeFailures; doublings < 10 {
		return min(firstWait<<doublings, longestWait)
	}
	return longestWait
}

// full reports whether the attempts being checked would use up all failures
// that are left before the next wait.
func (c *counter) full(p policy) bool {
	if free := p.free(); c.failed < free {
		return c.failed+c.pending >= free
	}
	return c.pending > 0
}

// fail counts a failure from a network.
func (c *counter) fail(network uint16, now int64) {
	if c.network != network {
		c.network, c.alike = network, 0
	}
	c.failed = min(c.failed, math.MaxUint16-1) + 1
	c.alike = min(c.alike, math.MaxUint16-1) + 1
	c.last = now
}

// pass takes back the failures that one network had before its success, and
// reports whether there were any.
func (c *counter) pass(network uint16) bool {
	if c.alike == 0 || c.network != network {
		return false
	}
	c.failed -= c.alike
	c.alike = 0
	return true
}

// target is whom an attempt is at.
type target struct {
	name     string // what its failures count by if there is no such account
	account  api.ID // see tallyID; zero if there is none
	familiar bool   // the account has logged in from the network lately
	policy   policy // of the account
}

// tallyID is what failures of the account count by. Failures at a password that was
// replaced since count no more: whoever is given a new one need not wait.
func (a *Account) tallyID() api.ID {
	id := a.ID
	tail := id[len(id)-8:]
	binary.BigEndian.PutUint64(tail, binary.BigEndian.Uint64(tail)+a.PasswordSerial)
	return id
}

// attempt is a charged log-in. One of its three ends is called, once.
type attempt struct {
	throttle *Throttle
	counter  *counter
	tally    tallyKey // where the account exists
	name     uint32   // the cell where it does not
	network  uint16   // see counter.network
	charges  [3]charge
}

// charge is what an attempt costs the allowance of a network; its zero nothing.
type charge struct {
	cell uint32
	cost time.Duration
}

// begin charges an attempt from an address, which may be invalid. A refusal has
// code LoginThrottled, or Overloaded where attempts under way have to end first;
// nothing is charged then.
func (t *Throttle) begin(to target, from netip.Addr) (*attempt, *api.Error) {
	now := clock.Sure(t.clock).UnixNano()
	t.mu.Lock()
	defer t.mu.Unlock()

	a := &attempt{throttle: t}
	wait := t.charge(a, to.familiar, from, now)
	if to.account.IsZero() {
		a.counter = t.nameCell(a, to.name)
	} else {
		a.tally.account = to.account
		if to.familiar {
			a.tally.network = network.Of(from)
		}
		a.counter = t.account(a.tally, to.policy, now)
	}
	a.counter.refresh(to.policy, now)
	if pause := a.counter.pause(to.policy); pause > 0 {
		wait = max(wait, time.Duration(a.counter.last+int64(pause)-now))
	}
	if wait > 0 {
		a.forgetIdle()
		return nil, throttled(wait)
	}
	if a.counter.full(to.policy) {
		return nil, underWay()
	}
	a.counter.pending++
	for _, c := range a.charges {
		if c.cost > 0 {
			t.networks[c.cell] = max(t.networks[c.cell], now) + int64(c.cost)
		}
	}
	return a, nil
}

// charge sets what an attempt will cost the networks that it counts in, and
// returns how long their allowances make it wait. All are whole again after the
// same time; the wider a network, the less each attempt costs it.
func (t *Throttle) charge(a *attempt, familiar bool, from netip.Addr, now int64) (wait time.Duration) {
	const allowance = networkBurst * networkPace
	i := 0
	for within, times := range network.Bounds(from) {
		text, err := within.AppendBinary(make([]byte, 0, 32))
		if err != nil {
			continue // no prefix fails
		}
		if t.networks == nil {
			t.networks = make([]int64, networkCells)
		}
		h := t.hash(ofNetwork, text)
		c := charge{cell: uint32(h % networkCells), cost: networkPace / time.Duration(times)}
		a.charges[i] = c
		if i == 0 {
			a.network = uint16(h >> 48)
		}
		whole := &t.networks[c.cell]
		*whole = min(*whole, now+int64(allowance)) // further off only since the clock went back
		if i == 0 || !familiar {
			wait = max(wait, time.Duration(*whole-now)-(allowance-c.cost))
		}
		i++
	}
	return wait
}

// fail ends an attempt whose password was wrong.
func (a *attempt) fail() {
	a.end(func(now int64) {
		a.counter.fail(a.network, now)
		a.moved()
		for _, c := range a.charges {
			if c.cost > 0 {
				a.throttle.kept.moved.networks[c.cell] = struct{}{}
			}
		}
	})
}

// pass ends an attempt whose password was right.
func (a *attempt) pass() {
	a.end(func(int64) {
		if a.counter.pass(a.network) {
			a.moved()
		}
		a.refundNetworks()
	})
}

// refund ends an attempt that was not checked.
func (a *attempt) refund() { a.end(func(int64) { a.refundNetworks() }) }

func (a *attempt) end(count func(now int64)) {
	now := clock.Sure(a.throttle.clock).UnixNano()
	a.throttle.mu.Lock()
	defer a.throttle.mu.Unlock()
	a.counter.pending--
	count(now)
	a.forgetIdle()
}

// moved notes that the counter has to be kept anew.
func (a *attempt) moved() {
	moved := &a.throttle.kept.moved
	if a.tally.account.IsZero() {
		moved.names[a.name] = struct{}{}
	} else {
		moved.tallies[a.tally] = struct{}{}
	}
}

func (a *attempt) refundNetworks() {
	for _, c := range a.charges {
		if c.cost > 0 {
			a.throttle.networks[c.cell] -= int64(c.cost)
		}
	}
}

// forgetIdle removes the counter of an account that has nothing to remember.
func (a *attempt) forgetIdle() {
	if !a.tally.account.IsZero() && a.counter.failed == 0 && a.counter.pending == 0 {
		delete(a.throttle.accounts, a.tally)
	}
}

func (t *Throttle) account(key tallyKey, p policy, now int64) *counter {
	c := t.accounts[key]
	if c == nil {
		if len(t.accounts) >= t.sweepAt {
			t.sweep(now)
		}
		c = &tally{}
		t.accounts[key] = c
	}
	c.policy = p
	return &c.counter
}

// sweep removes the counters that have nothing to remember any more.
func (t *Throttle) sweep(now int64) {
	for key, c := range t.accounts {
		if c.refresh(c.policy, now); c.failed == 0 && c.pending == 0 {
			delete(t.accounts, key)
		}
	}
	t.sweepAt = max(1024, 2*len(t.accounts))
}

func (t *Throttle) nameCell(a *attempt, name string) *counter {
	a.name = uint32(t.hash(ofName, []byte(name)) % nameCells)
	return t.names.at(a.name)
}

// What a hash is of, so that equal bytes of two kinds differ.
const (
	ofName byte = iota + 1
	ofNetwork
)

// hash spreads texts over cells. Without the key nobody can choose texts that
// meet.
func (t *Throttle) hash(of byte, text []byte) uint64 {
	buffer := append(make([]byte, 0, 128), t.key[:]...)
	sum := sha256.Sum256(append(append(buffer, of), text...))
	return binary.BigEndian.Uint64(sum[:8])
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

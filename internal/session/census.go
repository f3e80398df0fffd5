package session

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Census is what only a look at every session tells. Changes go on while it is
// taken: it is exact for a table that stands still.
type Census struct {
	At   int64    // Unix seconds
	Ages [5]int64 // living sessions younger than an hour, a day, 7 days, 30 days, and the others
	Top  []AccountCount
}

// AccountCount is how many living sessions an account has.
type AccountCount struct {
	Realm     string
	Username  string
	Sessions  int64
	Permanent int64 // of them
}

// censusTurn is how many entries are looked at in one hold of the table's mu.
const censusTurn = 4096

// topAccounts is how many accounts a census names.
const topAccounts = 10

// A census is taken anew when the last one is old: after a second, or after a
// hundred times what it took, so that who asks often costs a hundredth of a
// processor at the most. What is longer than the longest rest is an error of the
// clock.
const (
	censusRest    = time.Second
	censusShare   = 100
	censusLongest = 10 * time.Minute
)

// census is the last one, and what is needed to take another.
type census struct {
	turn sync.Mutex // one is taken at a time
	last atomic.Pointer[taken]

	// with the table's mu:
	under  bool         // one is being taken
	counts []accountSum // by the number of the account's slot
	top    []uint32     // accounts with the most, in no order
	least  uint32       // accounts with no more need not be looked at
}

// taken is a census that was taken.
type taken struct {
	Census
	done time.Time
	took time.Duration
}

type accountSum struct{ sessions, permanent uint32 }

func (c *taken) isGood(now time.Time) bool {
	if c == nil {
		return false
	}
	age := now.Sub(c.done)
	return age >= 0 && age < min(max(censusRest, censusShare*c.took), censusLongest)
}

// census returns a census that is good still. Who comes while one is taken gets the
// last one.
func (k *Keeper) census(ctx context.Context) (*Census, error) {
	c := &k.table.census
	begin := k.clock.Now()
	last := c.last.Load()
	if last.isGood(begin) {
		return &last.Census, nil
	}
	if last == nil {
		c.turn.Lock()
	} else if !c.turn.TryLock() {
		return &last.Census, nil
	}
	defer c.turn.Unlock()
	if last = c.last.Load(); last.isGood(begin) {
		return &last.Census, nil
	}
	now := k.now()
	ages, top, err := k.table.takeCensus(ctx, now)
	if err != nil {
		return nil, err
	}
	next := &taken{Census: Census{At: now, Ages: ages, Top: top}, done: k.clock.Now()}
	next.took = next.done.Sub(begin)
	c.last.Store(next)
	return &next.Census, nil
}

// takeCensus looks at every entry, in turns.
func (t *Table) takeCensus(ctx context.Context, now int64) (ages [5]int64, top []AccountCount, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	c := &t.census
	c.under, c.top, c.least = true, c.top[:0], 0
	defer func() { c.under = false }()
	c.counts = slices.Grow(c.counts[:0], int(t.accounts.next)+1)
	for n := uint32(1); n <= t.entries.next; n++ {
		if n%censusTurn == 0 {
			t.mu.Unlock() // others may come in between
			err := ctx.Err()
			t.mu.Lock()
			if err != nil {
				return ages, nil, err
			}
		}
		e := t.entry(n)
		if e.handle.IsZero() || !t.isLiving(e) {
			continue
		}
		ages[ageOf(now-int64(e.created))]++
		c.add(e.account, e.flags&isPermanent != 0)
	}
	for _, n := range c.top {
		slot, sum := t.account(n), c.counts[n]
		top = append(top, AccountCount{t.realm(slot.realm).name, string(t.texts.bytes(slot.name)), int64(sum.sessions), int64(sum.permanent)})
	}
	slices.SortFunc(top, func(a, b AccountCount) int {
		return cmp.Or(cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(a.Realm, b.Realm), cmp.Compare(a.Username, b.Username))
	})
	return ages, top, nil
}

// isLiving reports whether an entry is counted among the living.
func (t *Table) isLiving(e *entry) bool {
	return e.state&isCounted != 0 && t.isAbove(e, t.realm(t.account(e.account).realm).generation)
}

// ageOf returns where an age in seconds stands in Census.Ages.
func ageOf(seconds int64) int {
	const hour, day = 3600, 24 * 3600
	for i, below := range [...]int64{hour, day, 7 * day, 30 * day} {
		if seconds < below {
			return i
		}
	}
	return 4
}

// add counts a session of an account, and keeps those with the most. Counts only
// grow, so an account that is not among them when it is counted last is none of
// them.
func (c *census) add(account uint32, permanent bool) {
	for int(account) >= len(c.counts) {
		c.counts = append(c.counts, accountSum{})
	}
	sum := &c.counts[account]
	sum.sessions++
	if permanent {
		sum.permanent++
	}
	if len(c.top) == topAccounts && sum.sessions <= c.least || slices.Contains(c.top, account) {
		return
	}
	if len(c.top) < topAccounts {
		c.top = append(c.top, account)
		return
	}
	least := 0
	for i, n := range c.top {
		if c.counts[n].sessions < c.counts[c.top[least]].sessions {
			least = i
		}
	}
	if c.least = c.counts[c.top[least]].sessions; sum.sessions > c.least {
		c.top[least] = account
	}
}

// forget is told of an account's slot that is given back while a census is taken.
func (c *census) forget(account uint32) {
	if !c.under {
		return
	}
	if int(account) < len(c.counts) {
		c.counts[account] = accountSum{}
	}
	c.top = slices.DeleteFunc(c.top, func(n uint32) bool { return n == account })
}

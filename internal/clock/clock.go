// Package clock tells the time, injected: whatever decides whether a session
// lives takes a Clock and calls nothing else.
package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

// Clock tells the time. Now never goes backwards within a process.
type Clock interface{ Now() time.Time }

// System is the wall clock, held at its furthest: a step backwards of the
// machine's time never revives a session.
type System struct{ last atomic.Int64 } // nanoseconds since 1970

// NewSystem returns the machine's clock.
func NewSystem() *System { return &System{} }

// Now returns the time in UTC, without a monotonic part.
func (c *System) Now() time.Time {
	now := time.Now().UnixNano()
	for {
		last := c.last.Load()
		if now <= last {
			return time.Unix(0, last).UTC()
		}
		if c.last.CompareAndSwap(last, now) {
			return time.Unix(0, now).UTC()
		}
	}
}

// Fake is a clock for tests: it stands still until it is told to move.
type Fake struct {
	mu  sync.Mutex
	now time.Time
}

// NewFake returns a clock that stands at now.
func NewFake(now time.Time) *Fake { return &Fake{now: now.UTC()} }

// Now returns the time it stands at.
func (c *Fake) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d, which may be negative: a test of what must not
// happen then.
func (c *Fake) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

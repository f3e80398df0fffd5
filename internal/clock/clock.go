// Package clock tells the time, injected: whatever decides whether a session
// lives takes a Clock and calls nothing else.
//
// What is told never goes back and never stands still: it is the furthest of the
// machine's clock, of what was told before plus what has passed since, and of what
// earlier processes told over the same data (System.Resume). So nothing that was
// dead lives again, whatever is done to the machine's clock.
//
// A clock that was set far ahead may have been set wrong. What has expired by it is
// dead at once, which a restart can take back; what is deleted for good goes by
// Sure, which follows a leap only after ten minutes.
package clock

import (
	"sync"
	"time"
)

// Clock tells the time. Now never goes backwards within a process.
type Clock interface{ Now() time.Time }

// A Doubter is a Clock that knows by how much Now is ahead of the time that has
// surely come: more than 0 after a leap of the machine's clock, and as long as that
// is behind what is told.
type Doubter interface {
	Clock
	Doubt() time.Duration
}

// Doubt returns by how much the time of a clock is in doubt; 0 for one that knows of
// none.
func Doubt(c Clock) time.Duration {
	if d, ok := c.(Doubter); ok {
		return d.Doubt()
	}
	return 0
}

// Sure returns the time that has surely come. Whatever forgets something for good
// because it is old reckons with it.
func Sure(c Clock) time.Time { return c.Now().Add(-Doubt(c)) }

// Fake is a clock for tests: it stands still until it is told to move.
type Fake struct {
	mu    sync.Mutex
	now   time.Time
	doubt time.Duration
}

// NewFake returns a clock that stands at now.
func NewFake(now time.Time) *Fake { return &Fake{now: now.UTC()} }

// Now returns the time it stands at.
func (c *Fake) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Doubt returns how far it has leapt.
func (c *Fake) Doubt() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doubt
}

// Advance moves the clock by d, which may be negative: a test of what must not
// happen then.
func (c *Fake) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Leap moves the clock ahead by d, in doubt.
func (c *Fake) Leap(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.doubt = c.now.Add(d), c.doubt+d
}

// Believe ends all doubt.
func (c *Fake) Believe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doubt = 0
}

package clock

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	leap    = 5 * time.Minute  // a step ahead of the machine's clock that makes it doubtful
	settle  = 10 * time.Minute // how long it has to run on before it is believed
	tooFar  = 24 * time.Hour   // by how much it may be behind when a process begins
	notable = time.Second      // a step back, or a sleep, that is worth a look
)

// System is the machine's clock, held at its furthest.
type System struct {
	clocks clocks
	ahead  atomic.Int64 // by how much Now is ahead of the time awake; it never shrinks

	mu     sync.Mutex // guards the times below, which are nanoseconds too
	looked int64      // the time up when the machine's clock was looked at last
	told   int64      // Now at that moment
	sure   int64      // what had surely come then
	leapt  bool       // the machine's clock leapt ahead, and is not believed yet
	since  int64      // the time up when it did
	wall   int64      // what it said when it was looked at last
	behind bool       // it is known to be behind Now
	quiet  int64      // the time up until which nobody is told so again
	steps  []Step
}

// clocks are what a System reads, in nanoseconds.
type clocks struct {
	// both returns the time since 1970 and for how long the machine was awake since
	// some moment, which it reads second: so their difference is never too large.
	both func() (wall, awake int64)
	up   func() int64 // for how long the machine is up since some moment, asleep or not
}

// NewSystem returns the machine's clock.
func NewSystem() *System {
	begun := time.Now()
	return newSystem(clocks{
		both: func() (int64, int64) {
			now := time.Now()
			return now.UnixNano(), int64(now.Sub(begun))
		},
		up: sinceBoot(begun),
	})
}

func newSystem(c clocks) *System {
	s := &System{clocks: c}
	wall, awake := c.both()
	s.begin(wall, wall, awake)
	return s
}

// begin has the time begin with now.
func (s *System) begin(now, sure, awake int64) {
	s.ahead.Store(now - awake)
	s.looked, s.told, s.sure = s.clocks.up(), now, sure
}

// Now returns the time in UTC, without a monotonic part.
func (s *System) Now() time.Time {
	now, _ := s.read()
	return time.Unix(0, now).UTC()
}

// read returns the time, and what the machine's clock says.
func (s *System) read() (now, wall int64) {
	wall, awake := s.clocks.both()
	return awake + s.reach(wall-awake), wall
}

// reach has Now be ahead of the time awake by at least so much, and returns by how
// much it is.
func (s *System) reach(ahead int64) int64 {
	for {
		furthest := s.ahead.Load()
		if ahead <= furthest {
			return furthest
		}
		if s.ahead.CompareAndSwap(furthest, ahead) {
			return ahead
		}
	}
}

// A BehindError says that the machine's clock is too far behind.
type BehindError struct{ Clock, Mark time.Time }

func (e *BehindError) Error() string {
	return fmt.Sprintf("the machine's clock says %s, but this data was in use until %s", e.Clock.Format(time.RFC3339), e.Mark.Format(time.RFC3339))
}

// Resume has the time go on from mark, which is the latest that earlier processes
// are known to have told; zero if there were none. It is called before anybody asks
// for the time.
//
// If the machine's clock is behind mark by more than a day, the error is a
// *BehindError; by less, Now runs ahead of it from then on. With accept it is
// believed however far behind it is, which wentBack reports. If it is far ahead of
// mark, as it is when nobody ran for a while, the time is in doubt at first.
func (s *System) Resume(mark time.Time, accept bool) (wentBack bool, err error) {
	if mark.IsZero() {
		return false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	wall, awake := s.clocks.both()
	last := mark.UnixNano()
	behind := time.Duration(last - wall)
	switch {
	case behind > 0 && accept:
		s.begin(wall, wall, awake)
		return true, nil
	case behind > tooFar:
		return false, &BehindError{Clock: time.Unix(0, wall).UTC(), Mark: mark.UTC()}
	case behind > leap:
		s.begin(last, wall, awake)
	case behind >= -leap:
		now := max(last, wall)
		s.begin(now, now, awake)
	default:
		s.begin(wall, last, awake)
		s.leapt, s.since, s.wall = true, s.looked, wall // nobody need be told
	}
	return false, nil
}

// Doubt returns by how much Now is ahead of the time that has surely come.
func (s *System) Doubt() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
	return time.Duration(max(0, s.told-s.sure))
}

// A Step is what somebody did to the machine's clock, as far as it matters: he set it
// ahead by more than five minutes, or, if By is negative, behind what Now tells.
type Step struct{ By time.Duration }

// Steps returns what was not returned before. Steps back are not told of more often
// than every ten minutes.
func (s *System) Steps() []Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
	steps := s.steps
	s.steps = nil
	return steps
}

// look finds out what has been done to the machine's clock since it was looked at
// last. However long that is: the time up goes on through everything.
func (s *System) look() {
	up := s.clocks.up()
	now, wall := s.read()
	passed := up - s.looked
	if slept := s.told + passed - now; slept > int64(notable) { // asleep, with its clock behind
		now += slept
		s.reach(s.ahead.Load() + slept)
	}
	s.sure += passed
	step := wall - (s.wall + passed)
	s.looked, s.told, s.wall = up, now, wall

	switch {
	case wall-s.sure <= int64(leap):
		s.leapt = false
		s.sure = max(s.sure, wall)
	case !s.leapt:
		s.leap(wall - s.sure)
	case step > int64(leap):
		s.leap(step)
	case up-s.since >= int64(settle):
		s.leapt, s.sure = false, wall
	}
	back := now - wall
	if back > int64(notable) && !s.behind && up >= s.quiet {
		s.behind, s.quiet = true, up+int64(settle)
		s.steps = append(s.steps, Step{-time.Duration(back)})
	}
	if back <= int64(notable) {
		s.behind = false
	}
}

// leap notes that the machine's clock leapt ahead.
func (s *System) leap(by int64) {
	s.leapt, s.since = true, s.looked
	s.steps = append(s.steps, Step{time.Duration(by)})
}

package clock

import "time"

// How long work of many milliseconds goes on at once, and how long it rests then: as
// long, so that of two processors it keeps half a one free for those who came
// meanwhile.
const (
	spell = 2 * time.Millisecond
	rest  = 2 * time.Millisecond
)

// A Pace keeps work of many milliseconds from holding a processor that others are
// waiting for: those who answer at once must not wait for whoever takes long. Its
// owner asks it between steps of some microseconds. The zero Pace is one that rests
// before long.
type Pace struct{ begun time.Time }

// Rest sleeps if the work has gone on for a spell, so that others get the
// processor. What it does is not seen in any result.
func (p *Pace) Rest() {
	if now := time.Now(); p.begun.IsZero() {
		p.begun = now
	} else if now.Sub(p.begun) >= spell {
		time.Sleep(rest)
		p.begun = time.Now()
	}
}

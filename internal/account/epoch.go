package account

import (
	"slices"
	"time"
)

// Epoch ends many sessions in one write: a session remembers the number it was
// created under and is dead when the one in force differs.
type Epoch struct {
	Temporary uint64 // remembered by temporary sessions
	All       uint64 // remembered by permanent sessions
	Rises     []Rise // the last ones, the oldest first; never changed in place
	Inherited bool   // it goes on with that of a dropped account of the same name, which other sessions remember
}

// A Rise is one step of an epoch. It is kept because the tombstones of what it ended
// are written later, when there may have been another one.
type Rise struct {
	Temporary, All uint64 // what it led to
	Why            Why
}

// Why says what an epoch ended its sessions for.
type Why struct {
	At     time.Time // zero: not known
	Reason string
	By     string // handle of the session that did it, as the wire has it; empty: the server
}

// maxRises is how many rises an epoch keeps.
const maxRises = 16

// For returns the number that a session of the given kind remembers.
func (e *Epoch) For(permanent bool) uint64 {
	if permanent {
		return e.All
	}
	return e.Temporary
}

// Raise ends the temporary sessions, and with all the permanent ones too.
func (e *Epoch) Raise(all bool, why Why) {
	e.Temporary++
	if all {
		e.All++
	}
	kept := e.Rises[max(0, len(e.Rises)+1-maxRises):]
	e.Rises = append(slices.Clone(kept), Rise{Temporary: e.Temporary, All: e.All, Why: why})
}

// Forget forgets why it rose. It is for those who know that every session that it
// ended has its tombstone.
func (e *Epoch) Forget() { e.Rises = nil }

// Ended returns what ended a session that remembers a number, and whether it did:
// the first rise after that, or the oldest that is kept. Of an end that nothing is
// known of, Why is zero.
func (e *Epoch) Ended(permanent bool, remembered uint64) (Why, bool) {
	if e.For(permanent) == remembered {
		return Why{}, false
	}
	for i := range e.Rises {
		to := Epoch{Temporary: e.Rises[i].Temporary, All: e.Rises[i].All}
		if to.For(permanent) > remembered {
			return e.Rises[i].Why, true
		}
	}
	return Why{}, true
}

// LastRise returns the latest moment of those at which it rose, as far as it keeps
// them; zero: none.
func (e *Epoch) LastRise() (at time.Time) {
	for i := range e.Rises {
		if e.Rises[i].Why.At.After(at) {
			at = e.Rises[i].Why.At
		}
	}
	return at
}

// Split returns the rises but the one that led to where the epoch is, and why that
// was: the two parts of its stored forms. Join puts them together.
func (e *Epoch) Split() (earlier []Rise, why Why) {
	n := len(e.Rises)
	if n == 0 || e.Rises[n-1].Temporary != e.Temporary {
		return e.Rises, Why{}
	}
	return e.Rises[:n-1], e.Rises[n-1].Why
}

// Join adds the rise that led to where the epoch is, if why is known.
func (e *Epoch) Join(why Why) {
	if why != (Why{}) {
		e.Rises = append(e.Rises, Rise{Temporary: e.Temporary, All: e.All, Why: why})
	}
}

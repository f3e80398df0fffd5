package dispatch

import (
	"context"
	"runtime"
	"sync/atomic"

	"sessiond/internal/api"
)

// Work is what an action keeps busy, and so how many of its class run at once.
// Each class has bounds of its own: whatever one of them suffers, the others get
// their turn.
type Work uint8

const (
	// Listing keeps a processor busy for milliseconds. Few run at once, more wait in
	// the order in which they came, and beyond that they are refused. It is the zero
	// value because its bound is the tightest.
	Listing Work = iota
	// Reading looks at a few records. It has no bound: a busy disk must not keep
	// anybody from what is in memory.
	Reading
	// Writing waits for others: for the store's commit, or before it for a password
	// worker or a directory. So many may be under way, and none waits for its place.
	// A log-in has its place from the beginning: those who check passwords have
	// queues of their own, so much shorter than this bound that log-ins cannot fill it.
	Writing
	// Ending takes rights away, which no other work may put off: it is never refused
	// for too much work, and its commits go before the others.
	Ending
	// Watching waits for what may never come, and so for as long as its caller asks
	// and its handler allows, not for the time of a request. It keeps busy nothing but
	// memory.
	Watching
	// Quick is answered from memory at once: it has no bound and no time limit.
	Quick
)

// String returns how an action of the class fares under load, as the reference
// shows it.
func (w Work) String() string {
	switch w {
	case Listing:
		return "waits its turn among the listings, or is refused with 21901"
	case Writing:
		return "is refused with 21901 where too many changes are under way"
	case Ending:
		return "goes before other changes"
	case Watching:
		return "waits as long as it is asked to, or is refused with 21901 where too many do"
	case Reading, Quick:
		return "is answered at once"
	}
	return ""
}

const (
	maxListingsWaiting = 64
	maxWriting         = 1024 // a quarter of the store's queue: what the server itself has to write finds room
)

// maxListings is how many listings run at once: they leave a processor to what is
// quick.
func maxListings() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// gates are the bounds of the classes, by Work; those of Watching are watches.
type gates [Quick + 1]gate

func newGates() gates {
	return gates{
		Listing: {what: "listings", places: make(chan struct{}, maxListings()), room: maxListingsWaiting},
		Writing: {what: "changes", places: make(chan struct{}, maxWriting)},
	}
}

// gate lets so many in at once as it has places, and so many wait as it has room
// for. The zero gate lets everybody in.
type gate struct {
	what    string        // whom it lets in
	places  chan struct{} // who is in has put something here; senders wait in order
	room    int64
	waiting atomic.Int64
}

// enter takes a place, which leave gives back. Errors: an *api.Error with code
// Overloaded, at once, where too many wait already; ctx.Err(), once the context
// ends. No place is taken then.
func (g *gate) enter(ctx context.Context) error {
	if g.places == nil {
		return nil
	}
	select {
	case g.places <- struct{}{}:
		return nil
	default:
	}
	defer g.waiting.Add(-1)
	if g.waiting.Add(1) > g.room {
		return tooMany(g.what + " are under way")
	}
	select {
	case g.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) leave() {
	if g.places != nil {
		<-g.places
	}
}

// tooMany is overloaded for who was not let in.
func tooMany(what string) *api.Error {
	return overloaded("too many " + what + ": nothing was done, repeat after retryAfterSeconds")
}

// overloaded is the answer to work that there is too much of. What fills the
// queues here is over within a second.
func overloaded(message string) *api.Error {
	e := api.Errorf(api.Overloaded, "%s", message)
	e.Data.RetryAfterSeconds = 1
	return e
}

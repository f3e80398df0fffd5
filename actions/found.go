package actions

import (
	"bytes"
	"context"
	"slices"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/api"
	"sessiond/internal/session"
)

const (
	maxFound   = 100_000 // to which one request does something
	foundChunk = 1000    // done before the time is looked at
)

// A job does something to the living sessions that a filter finds, one by one.
type job struct {
	filter string
	dryRun bool
	takes  func(*session.View) verdict
	stored bool // takes looks at what only the store has of a session
	do     func(context.Context, []api.ID) (done int, err error)
}

// A verdict is what a job does to a session that its filter finds.
type verdict uint8

const (
	take  verdict = iota
	spare         // leave it as it is, and count it
	pass          // as if it had not been found
)

// An outcome is what became of a job.
type outcome struct {
	done   int64 // or would be
	spared int64
	left   int64    // that were found, and not come to
	more   bool     // it is to be repeated
	sample []string // of a dry run
}

// doFound does a job, or for a dry run tells what it would do. What there is no time
// for is left. To reach many sessions of others, as to reach all, wants a recent
// log-in.
func (s *sessions) doFound(ctx context.Context, c *dispatch.Call, who *session.Caller, j *job) (outcome, error) {
	// The request has to be answered in its time, and a commit that is under way to be awaited.
	fifth := c.Config.RequestTimeout.Duration() / 5
	enough, cancel := before(ctx, fifth)
	defer cancel()
	some := enough
	if !j.dryRun { // however long it takes to find them all, those that were found have to be come to
		some, cancel = before(ctx, 3*fifth)
		defer cancel()
	}
	f, err := s.find(enough, some, c, who, j)
	cut := f.cut || err != nil && enough.Err() != nil && ctx.Err() == nil
	if err != nil && !cut {
		return outcome{}, err
	}
	f.own = f.own && !cut
	chosen := f.chosen(who)
	tried := int64(len(chosen))
	d := outcome{spared: f.spared}
	if j.dryRun {
		d.done, d.sample = tried, sample(chosen)
	} else {
		if err := c.Recent(who); f.others && err != nil {
			return outcome{}, err
		}
		if d.done, tried, err = inTime(ctx, enough, chosen, j); err != nil {
			if d.done > 0 {
				err = partly(err, d.done, f.count-d.done)
			}
			return outcome{}, err
		}
	}
	d.left = f.count - tried
	d.more = d.left > 0 || cut
	return d, nil
}

// before returns a context that ends so long before another one does, if that has an
// end.
func before(ctx context.Context, early time.Duration) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, deadline.Add(-early))
	}
	return context.WithCancel(ctx)
}

// inTime does a job until there is time enough no longer, and returns to how many
// sessions it was done and how many it came to.
func inTime(ctx, enough context.Context, handles []api.ID, j *job) (done, tried int64, err error) {
	for chunk := range slices.Chunk(handles, foundChunk) {
		if enough.Err() != nil {
			break
		}
		n, err := j.do(ctx, chunk)
		done += int64(n)
		if err != nil {
			return done, tried, err
		}
		tried += int64(len(chunk))
	}
	return done, tried, nil
}

// finds are the sessions that a job is about.
type finds struct {
	handles []api.ID // of as many as one request does, without the caller's own
	own     bool     // the caller's own is among them
	others  bool     // sessions of other accounts are
	cut     bool     // there may be more
	count   int64
	spared  int64
}

// find finds the sessions that a job is about, or some, when the time for that is
// over. An error leaves those that were found until then.
func (s *sessions) find(ctx, some context.Context, c *dispatch.Call, who *session.Caller, j *job) (f finds, err error) {
	q, err := s.newSearch(c, who, &j.filter, at(c.Now))
	if err != nil {
		return f, err
	}
	q.stored = q.stored || j.stored
	q.ended = false // what has ended neither ends again nor changes
	err = q.each(ctx, api.ID{}, func(v *session.View) bool {
		switch is := j.takes(v); {
		case is == pass:
			return true
		case is == spare:
			f.spared++
			return true
		case some.Err() != nil && len(f.handles) > 0:
			f.cut = true
			return false
		case v.Handle == who.Handle:
			f.own = true
		case len(f.handles) < maxFound:
			f.handles = append(f.handles, v.Handle)
			f.others = f.others || v.AccountID != who.AccountID
		}
		f.count++
		return true
	})
	return f, err
}

// chosen are those that this request comes to, the oldest first, which lie together
// in the store. The caller's own session is the last
// of all: as long as there are others he has to be able to repeat the request.
func (f *finds) chosen(who *session.Caller) []api.ID {
	slices.SortFunc(f.handles, func(a, b api.ID) int { return bytes.Compare(a[:], b[:]) })
	if f.own && len(f.handles) < maxFound && int64(len(f.handles))+1 == f.count {
		return append(f.handles, who.Handle)
	}
	return f.handles
}

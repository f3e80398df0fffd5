package store

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Feed is the part of a backend that tells watchers: it keeps the revision of
// the last commit and who wants to hear of the next. It remembers no changes.
// The zero Feed stands at revision 0 and has no watchers.
type Feed struct {
	mu       sync.Mutex // guards watchers, and that rev moves while nobody joins
	watchers []*watcher
	rev      atomic.Uint64
}

type watcher struct {
	call    Watcher
	stopped atomic.Bool
}

// Rev returns the revision of the last commit.
func (f *Feed) Rev() Rev { return Rev(f.rev.Load()) }

// Reset sets the revision at which a store opens, before anybody watches.
func (f *Feed) Reset(rev Rev) { f.rev.Store(uint64(rev)) }

// Watch adds a watcher of all commits after the given revision, which has to be
// the present one: anything else is ErrGap. A call that is under way when stop
// is called may still end after it; none begins.
func (f *Feed) Watch(after Rev, w Watcher) (stop func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if after != f.Rev() {
		return nil, ErrGap
	}
	one := &watcher{call: w}
	f.watchers = append(slices.Clone(f.watchers), one)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		one.stopped.Store(true)
		f.watchers = slices.DeleteFunc(slices.Clone(f.watchers), func(o *watcher) bool { return o == one })
	}, nil
}

// Advance moves to revision rev and returns who is to be told of the commits up
// to it, nil if nobody. The backend calls it once per batch of durable commits,
// then the returned function once per commit, in order.
func (f *Feed) Advance(rev Rev) func(Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rev.Store(uint64(rev))
	watchers := f.watchers
	if len(watchers) == 0 {
		return nil
	}
	return func(c Change) {
		for _, w := range watchers {
			if !w.stopped.Load() {
				w.call(c)
			}
		}
	}
}

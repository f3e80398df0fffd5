package dispatch

import (
	"sync"

	"sessiond/internal/api"
)

// maxWatching is how many watches wait at once, and half of the connections at the
// most: each holds one, and others have to get in. One account may have a fifth of
// them.
const maxWatching = 10_000

// watches are those that wait.
type watches struct {
	mu  sync.Mutex
	all int
	of  map[api.ID]int // by account, as far as they have one
}

// enter takes a place for a watch of an account, which may be none, and which leave
// gives back; an *api.Error with code Overloaded where too many wait already.
func (w *watches) enter(account api.ID, connections int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	most := max(1, min(maxWatching, connections/2))
	if w.all >= most {
		return tooMany("watches are under way")
	}
	if !account.IsZero() {
		if w.of[account] >= max(1, most/5) {
			return tooMany("watches of this account are under way")
		}
		if w.of == nil {
			w.of = map[api.ID]int{}
		}
		w.of[account]++
	}
	w.all++
	return nil
}

func (w *watches) leave(account api.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all--
	if w.of[account] > 1 {
		w.of[account]--
	} else {
		delete(w.of, account)
	}
}

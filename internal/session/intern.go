package session

import (
	"sync"

	"sessiond/internal/config"
)

// interner keeps each distinct combination of settings once: nearly all
// sessions share a few.
type interner struct {
	mu     sync.RWMutex
	all    []interned
	number map[string]uint32 // by stored form
	free   []uint32
}

type interned struct {
	settings *config.Settings
	form     string
	users    int
}

func (in *interner) init() { in.number = map[string]uint32{} }

// get returns the settings of a number; callers do not change them.
func (in *interner) get(n uint32) *config.Settings {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return in.all[n].settings
}

// put returns the number of settings, until give.
func (in *interner) put(s *config.Settings) uint32 {
	form := encodeSettings(s)
	in.mu.Lock()
	defer in.mu.Unlock()
	n, ok := in.number[string(form)]
	if !ok {
		c := *s
		n = uint32(len(in.all)) //nolint:gosec // fewer than sessions
		if last := len(in.free) - 1; last >= 0 {
			n, in.free = in.free[last], in.free[:last]
		} else {
			in.all = append(in.all, interned{})
		}
		in.all[n] = interned{settings: &c, form: string(form)}
		in.number[string(form)] = n
	}
	in.all[n].users++
	return n
}

// give takes a number back.
func (in *interner) give(n uint32) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.all[n].users--; in.all[n].users == 0 {
		delete(in.number, in.all[n].form)
		in.all[n] = interned{}
		in.free = append(in.free, n)
	}
}

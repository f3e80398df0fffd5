package session

import (
	"sync"
	"sync/atomic"

	"sessiond/internal/config"
)

// interner keeps each distinct combination of settings once: nearly all
// sessions share a few. Readers take no lock: who asks for a number holds an
// entry in place that uses it, and numbers are given anew only after that.
type interner struct {
	all atomic.Pointer[[]*config.Settings]

	mu     sync.Mutex
	users  []interned        // by number
	number map[string]uint32 // by stored form
	free   []uint32
}

type interned struct {
	form  string
	count int
}

func (in *interner) init() {
	in.number = map[string]uint32{}
	in.all.Store(&[]*config.Settings{})
}

// get returns the settings of a number; callers do not change them.
func (in *interner) get(n uint32) *config.Settings { return (*in.all.Load())[n] }

// put returns the number of settings, until give. form is their stored form, if it
// is known.
func (in *interner) put(s *config.Settings, form []byte) uint32 {
	if form == nil {
		form = encodeSettings(s)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	n, ok := in.number[string(form)]
	if !ok {
		n = in.add(s)
		in.users[n].form = string(form)
		in.number[string(form)] = n
	}
	in.users[n].count++
	return n
}

// add keeps a copy of s under a number that nobody uses.
func (in *interner) add(s *config.Settings) uint32 {
	c := *s
	all := *in.all.Load()
	if last := len(in.free) - 1; last >= 0 {
		n := in.free[last]
		in.free = in.free[:last]
		all[n] = &c
		return n
	}
	all = append(all, &c)
	in.all.Store(&all)
	in.users = append(in.users, interned{})
	return uint32(len(all) - 1) //nolint:gosec // fewer than sessions
}

// give takes a number back.
func (in *interner) give(n uint32) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.users[n].count--; in.users[n].count == 0 {
		delete(in.number, in.users[n].form)
		in.users[n].form = ""
		in.free = append(in.free, n)
	}
}

package session

import (
	"sync"
	"sync/atomic"
)

// interner keeps each distinct value once, by its form: nearly all sessions share
// a few settings, and nearly all accounts a few sets of roles. Readers take no
// lock: who asks for a number holds an entry in place that uses it, and numbers
// are given anew only after that.
type interner[T any] struct {
	all atomic.Pointer[[]*T]

	mu     sync.Mutex
	users  []interned        // by number
	number map[string]uint32 // by form
	free   []uint32
}

type interned struct {
	form  string
	count int
}

func (in *interner[T]) init() {
	in.number = map[string]uint32{}
	in.all.Store(&[]*T{})
}

// get returns the value of a number; callers do not change it.
func (in *interner[T]) get(n uint32) *T { return (*in.all.Load())[n] }

// put returns the number of the value that has a form, until give. make is asked
// for a value that is new.
func (in *interner[T]) put(form []byte, make func() *T) uint32 {
	in.mu.Lock()
	defer in.mu.Unlock()
	n, ok := in.number[string(form)]
	if !ok {
		n = in.add(make())
		in.users[n].form = string(form)
		in.number[string(form)] = n
	}
	in.users[n].count++
	return n
}

// add keeps a value under a number that nobody uses.
func (in *interner[T]) add(value *T) uint32 {
	all := *in.all.Load()
	if last := len(in.free) - 1; last >= 0 {
		n := in.free[last]
		in.free = in.free[:last]
		all[n] = value
		return n
	}
	all = append(all, value)
	in.all.Store(&all)
	in.users = append(in.users, interned{})
	return uint32(len(all) - 1) //nolint:gosec // fewer than sessions
}

// give takes a number back.
func (in *interner[T]) give(n uint32) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.users[n].count--; in.users[n].count == 0 {
		delete(in.number, in.users[n].form)
		in.users[n].form = ""
		in.free = append(in.free, n)
	}
}

// each calls do for every value in use.
func (in *interner[T]) each(do func(*T)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for n := range in.users {
		if in.users[n].count > 0 {
			do(in.get(uint32(n)))
		}
	}
}

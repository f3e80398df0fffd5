// Package faultstore makes a chosen call to a store fail, so that a test can
// run a story once for each call that it makes, with that call failing:
//
//	counting := faultstore.New(inner, faultstore.Plan{})
//	story(counting)
//	for n := 1; n <= counting.Calls(0); n++ {
//		story(faultstore.New(inner, faultstore.Plan{Call: n}))
//	}
//
// Faults are chosen, never random, so that they can be repeated.
package faultstore

import (
	"context"
	"fmt"
	"sync"

	"sessiond/store"
)

// Canary stands in the text of each error that a Store makes up: what reaches a
// client must not contain it.
const Canary = "injected-fault-canary"

// Op is what a call does.
type Op int

// The calls that can fail. The zero Op stands for all of them together.
const (
	Get Op = iota + 1
	List
	Commit
)

// Plan chooses the call that fails. The zero Plan lets all succeed.
type Plan struct {
	Call int // the number of the call, from 1; 0 for none
	Op   Op  // counting calls of this kind only; 0 counts all together

	// After has the call do its work, and then fail with store.ErrUnknown: the
	// answer is lost. Otherwise it fails before it has any effect.
	After bool

	// Err is what it fails with before any effect, beside the canary: one of
	// package store's errors. nil means store.ErrUnknown for a commit, and an
	// error of no known kind for reading.
	Err error
}

// Store passes all calls on, but for the chosen one. It may be used from any
// goroutine; then calls are numbered as they come.
type Store struct {
	store.Store
	plan Plan

	mu    sync.Mutex
	calls map[Op]int // the zero Op: all
	fired bool
}

// New returns a store that keeps its data in inner.
func New(inner store.Store, plan Plan) *Store {
	return &Store{Store: inner, plan: plan, calls: make(map[Op]int)}
}

// Calls returns how many calls of op there have been; 0 for all together.
func (s *Store) Calls(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// Fired reports whether the chosen call has come.
func (s *Store) Fired() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fired
}

// chosen counts a call and reports whether it is to fail.
func (s *Store) chosen(op Op) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[op]++
	s.calls[0]++
	if s.plan.Op != 0 && s.plan.Op != op || s.plan.Call == 0 || s.calls[s.plan.Op] != s.plan.Call {
		return false
	}
	s.fired = true
	return true
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Item, error) {
	return read(s, Get, func() (store.Item, error) { return s.Store.Get(ctx, key) })
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, r store.Range) ([]store.Item, error) {
	return read(s, List, func() ([]store.Item, error) { return s.Store.List(ctx, r) })
}

func read[T any](s *Store, op Op, call func() (T, error)) (T, error) {
	var none T
	if !s.chosen(op) {
		return call()
	}
	switch {
	case s.plan.After:
		if _, err := call(); err != nil {
			return none, err
		}
		return none, fmt.Errorf("%s: the answer is lost", Canary)
	case s.plan.Err != nil:
		return none, fmt.Errorf("%s: %w", Canary, s.plan.Err)
	}
	return none, fmt.Errorf("%s: reading fails", Canary)
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	if !s.chosen(Commit) {
		return s.Store.Commit(ctx, tx)
	}
	switch {
	case s.plan.After:
		if _, err := s.Store.Commit(ctx, tx); err != nil {
			return 0, err
		}
		return 0, fmt.Errorf("%s: the answer is lost: %w", Canary, store.ErrUnknown)
	case s.plan.Err != nil:
		return 0, fmt.Errorf("%s: %w", Canary, s.plan.Err)
	}
	return 0, fmt.Errorf("%s: %w", Canary, store.ErrUnknown)
}

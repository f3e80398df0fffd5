package session_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// However much there is to do, what the keeper does by itself takes one place in
// the store's queue, behind the ends that people ask for; and where that queue is
// full, it is done another time.
func TestMaintenanceCrowdsNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New()
		s := &turns{Store: inner}
		w := newWorldOn(t, unlimited(), inner, s)
		const each = 150
		var loggedOut []api.ID
		for i := range each {
			w.issued(fmt.Sprint("idle", i), idle(60))
			v, _ := w.issued(fmt.Sprint("gone", i))
			loggedOut = append(loggedOut, v.Handle)
		}
		w.advance(100)
		for _, h := range loggedOut {
			if _, err := w.end(h); err != nil {
				t.Fatal(err)
			}
		}
		for i := range each {
			v, _ := w.issued(fmt.Sprint("busy", i))
			w.Touch(v.Handle)
		}
		w.advance(1)

		s.busy.Store(true)
		if err := w.Maintain(t.Context()); !errors.Is(err, store.ErrBusy) {
			t.Errorf("Maintain before a full queue: %v, want ErrBusy", err)
		}
		s.busy.Store(false)
		s.most.Store(0)
		s.urgent.Store(0)
		w.maintain()
		w.maintain()
		if s.most.Load() != 1 || s.urgent.Load() != 0 {
			t.Errorf("maintenance had %d commits under way at once, and %d urgent ones: want 1 and 0", s.most.Load(), s.urgent.Load())
		}
		if live, ends := w.keys(session.LiveKeys), w.keys(session.EndKeys); live != each || ends != 0 {
			t.Errorf("%d sessions and %d ends are left, want %d and 0", live, ends, each)
		}
	})
}

// turns is a store that takes its time, and counts who is under way.
type turns struct {
	store.Store
	busy                   atomic.Bool
	underway, most, urgent atomic.Int64
}

func (s *turns) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	if s.busy.Load() {
		return 0, store.ErrBusy
	}
	n := s.underway.Add(1)
	defer s.underway.Add(-1)
	s.most.Store(max(s.most.Load(), n))
	if tx.Urgent {
		s.urgent.Add(1)
	}
	time.Sleep(time.Millisecond) // of the bubble's time: all others who want to commit do so meanwhile
	return s.Store.Commit(ctx, tx)
}

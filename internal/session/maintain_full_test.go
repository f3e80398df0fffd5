package session_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// A store that is full, or has stopped, is told of once, not each second; and again
// when it is full another time. Anything else that fails is told each time.
func TestAFullStoreIsToldOfOnce(t *testing.T) {
	for _, tt := range []struct {
		err        error
		first, all int32 // times told, of five seconds, and of five more after a pause
	}{
		{store.ErrFull, 1, 2},
		{store.ErrStopped, 1, 2},
		{errors.New("something else"), 5, 10},
	} {
		synctest.Test(t, func(t *testing.T) {
			inner := mem.New()
			var fault atomic.Pointer[error]
			h := &hook{Store: inner, before: func(tx *store.Tx) error {
				if p := fault.Load(); p != nil && !tx.Urgent {
					return *p
				}
				return nil
			}}
			w := newWorldOn(t, unlimited(), inner, h)
			w.issued("ann", idle(60))
			w.issued("bob", idle(120))
			w.advance(60)
			var told atomic.Int32
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				w.Run(ctx, func(error) { told.Add(1) })
			}()
			time.Sleep(time.Second / 2)
			fault.Store(&tt.err)
			time.Sleep(5 * time.Second)
			if n := told.Load(); n != tt.first {
				t.Errorf("%v is told %d times, want %d", tt.err, n, tt.first)
			}
			fault.Store(nil)
			time.Sleep(2 * time.Second)
			w.advance(60)
			fault.Store(&tt.err)
			time.Sleep(5 * time.Second)
			if n := told.Load(); n != tt.all {
				t.Errorf("%v is told %d times in all, want %d", tt.err, n, tt.all)
			}
			fault.Store(nil)
			cancel()
			<-done
		})
	}
}

// What a full store keeps from being forgotten is forgotten later, and what makes
// room is tried all the same.
func TestAFullStoreForgetsLater(t *testing.T) {
	c := unlimited()
	c.Defaults.RotationGraceSeconds = 30
	inner := mem.New()
	h := &hook{Store: inner}
	w := newWorldOn(t, c, inner, h)
	v, token := w.issued("ann", idle(0))
	ended, _ := w.issued("ann")
	if _, err := w.end(ended.Handle); err != nil {
		t.Fatal(err)
	}
	w.maintain()
	w.rotate(token)
	w.advance(30)
	h.before = func(tx *store.Tx) error {
		if !tx.Urgent {
			return store.ErrFull
		}
		return nil
	}
	if err := w.Maintain(t.Context()); !errors.Is(err, store.ErrFull) {
		t.Errorf("Maintain: %v, want ErrFull", err)
	}
	w.advance(int64(c.Defaults.Retention() / time.Second))
	_ = w.Maintain(t.Context()) // full, as before
	if _, err := w.tombstone(ended.Handle); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the tombstone: %v, want it purged though the store is full", err)
	}
	if all, _, err := event.Read(t.Context(), inner, event.Query{Limit: 10}); err != nil || len(all) != 0 {
		t.Errorf("%d events, %v, want them purged though the store is full", len(all), err)
	}
	h.before = nil
	w.maintain()
	item, err := inner.Get(t.Context(), "sess/"+string(v.Handle[:]))
	if err != nil {
		t.Fatal(err)
	}
	r, err := session.DecodeRecord(v.Handle, item.Value)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range r.Secrets {
		if len(s.Nonce) > 0 {
			t.Error("a nonce is kept for ever")
		}
	}
}

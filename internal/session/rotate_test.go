package session_test

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// rotating is a world in which alice has a session.
func rotating(t *testing.T, options ...option) (w *world, v session.View, token string) {
	c := unlimited()
	c.Defaults.RotationGraceSeconds = 30
	w = newWorld(t, c)
	w.account("alice")
	v, token = w.in("alice", append(options, func(n *session.NewSession) { n.Idle = 0 })...)
	return w, v, token
}

func (w *world) rotate(token string) string {
	w.t.Helper()
	_, next, err := w.Rotate(w.ctx(), api.NewSecret(token), event.Actor{})
	if err != nil {
		w.t.Fatalf("rotate: %v", err)
	}
	return next.Reveal()
}

// The old token is good to the last second of its grace period and proves theft from
// then on; asking again within it gives the same successor. A restart changes
// nothing about that.
func TestRotation(t *testing.T) {
	for _, permanent := range []bool{false, true} {
		for _, restarted := range []bool{false, true} {
			w, v, first := rotating(t, func(n *session.NewSession) { n.Permanent = permanent })
			restart := func() {
				if restarted {
					w.restart()
				}
			}
			second := w.rotate(first)
			restart()
			if second == first || len(second) != len(first) || !w.lives(first) || !w.lives(second) || w.rotate(first) != second {
				t.Fatalf("permanent %v: rotated to itself, or one of the two is dead, or asking again gives another one", permanent)
			}
			w.advance(29)
			if !w.lives(first) || w.rotate(first) != second {
				t.Error("it is dead a second too early")
			}
			restart()
			w.advance(1)
			if w.lives(first) || w.lives(second) != permanent {
				t.Errorf("permanent %v: after the grace period the old one lives: %v, the new one: %v", permanent, w.lives(first), w.lives(second))
			}
			if err := w.Maintain(t.Context()); err != nil {
				t.Fatal(err)
			}
			restart()
			got, err := w.Get(t.Context(), v.Handle)
			if err != nil || w.lives(second) != permanent {
				t.Fatal(err, w.lives(second))
			}
			if theft := got.End.Reason == session.ReasonTokenTheft && got.End.Status == session.Revoked; theft == permanent {
				t.Errorf("permanent %v: the end is %+v", permanent, got.End)
			}
			if err := w.Table().Recount(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A theft that is proven at the server's last moment is not forgotten with it.
func TestTheftIsWrittenAtTheEnd(t *testing.T) {
	w, v, first := rotating(t)
	second := w.rotate(first)
	w.advance(30)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if w.lives(first) {
		t.Fatal("the old token lives")
	}
	w.Run(ctx, func(err error) { t.Error(err) })
	w.restart()
	if got, err := w.Get(t.Context(), v.Handle); err != nil || w.lives(second) || got.End.Reason != session.ReasonTokenTheft {
		t.Errorf("after a restart it lives: %v, and its end is %+v, %v", w.lives(second), got.End, err)
	}
}

// A wrong secret, or a token of another session, proves nothing.
func TestWrongTokensProveNothing(t *testing.T) {
	w, v, first := rotating(t)
	second := w.rotate(first)
	w.advance(3600)
	for _, wrong := range []string{"", "x", forge(t, v.Handle)} {
		if _, _, err := w.Rotate(t.Context(), api.NewSecret(wrong), event.Actor{}); err == nil || w.lives(wrong) {
			t.Errorf("a wrong token is taken: %v", err)
		}
	}
	if !w.lives(second) {
		t.Error("the session died of it")
	}
}

// forge returns a well-formed token of a session with a secret of its own.
func forge(t *testing.T, h api.ID) string {
	t.Helper()
	token, err := session.NewToken("sdses_", h, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return token.Reveal()
}

// What was replaced twice, thrice and more often is known for a while, and dead.
func TestRotatingOnAndOn(t *testing.T) {
	w, _, first := rotating(t)
	tokens := []string{first}
	for range 6 {
		tokens = append(tokens, w.rotate(tokens[len(tokens)-1]))
	}
	last := len(tokens) - 1
	for i, token := range tokens {
		if w.lives(token) != (i >= last-3) {
			t.Errorf("token %d of %d lives: %v", i, last, w.lives(token))
		}
	}
	if got := w.rotate(tokens[last-1]); got != tokens[last] {
		t.Error("the last but one has another successor than before")
	}
	w.advance(30)
	if !w.lives(tokens[last]) || w.lives(tokens[0]) || !w.lives(tokens[last]) {
		t.Error("a token that nobody remembers proves something")
	}
	if w.lives(tokens[last-1]) || w.lives(tokens[last]) {
		t.Error("a token that was replaced proves nothing")
	}
}

// However many rotate at once, they get one and the same new token.
func TestRotatingAtOnce(t *testing.T) {
	w, _, first := rotating(t)
	got := make([]string, 20)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() { got[i] = w.rotate(first) })
	}
	wg.Wait()
	for _, next := range got {
		if next != got[0] || !w.lives(next) {
			t.Error("two of them got different tokens, or a dead one")
		}
	}
}

// Whoever asks again is told of a new token once it is good, and no sooner, even where
// the store has it already.
func TestASuccessorIsGoodWhenItIsTold(t *testing.T) {
	inner := mem.New()
	late := &lateStore{Store: inner, begun: make(chan struct{}), let: make(chan struct{})}
	c := unlimited()
	c.Defaults.RotationGraceSeconds = 30
	w := newWorldOn(t, c, inner, late)
	_, token := w.issued("ann")
	rotate := func(done chan<- bool) {
		_, next, err := w.Rotate(t.Context(), api.NewSecret(token), event.Actor{})
		done <- err == nil && w.lives(next.Reveal())
	}
	first, second := make(chan bool, 1), make(chan bool, 1)
	late.armed.Store(true)
	go rotate(first)
	<-late.begun
	go rotate(second)
	select {
	case good := <-second:
		if !good {
			t.Error("it is told of before it is good")
		}
		close(late.let)
	case <-time.After(50 * time.Millisecond):
		close(late.let)
		if !<-second {
			t.Error("asked again, there is no good one")
		}
	}
	if !<-first {
		t.Error("there is no good one")
	}
}

// lateStore is a store whose watchers learn of a commit late.
type lateStore struct {
	store.Store
	armed      atomic.Bool
	begun, let chan struct{}
}

func (s *lateStore) Watch(after store.Rev, w store.Watcher) (func(), error) {
	return s.Store.Watch(after, func(c store.Change) {
		if s.armed.CompareAndSwap(true, false) {
			close(s.begun)
			<-s.let
		}
		w(c)
	})
}

// The nonce, with which who has the old token could make the new one, is forgotten
// when nobody may ask any more.
func TestNoncesAreForgotten(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		w, v, first := rotating(t)
		w.rotate(first)
		nonces := func() (n int) {
			item, err := w.store.Get(t.Context(), "sess/"+string(v.Handle[:]))
			if err != nil {
				t.Fatal(err)
			}
			r, err := session.DecodeRecord(v.Handle, item.Value)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range r.Secrets {
				if len(s.Nonce) > 0 {
					n++
				}
			}
			return n
		}
		if err := w.Maintain(t.Context()); err != nil || nonces() != 1 {
			t.Errorf("%d nonces, %v", nonces(), err)
		}
		if restarted {
			w.restart()
		}
		w.advance(30)
		if err := w.Maintain(t.Context()); err != nil || nonces() != 0 {
			t.Errorf("after a restart %v: %d nonces, %v", restarted, nonces(), err)
		}
	}
}

// What rotates neither lengthens a life nor brings one back.
func TestRotationMovesNothing(t *testing.T) {
	w, v, first := rotating(t, func(n *session.NewSession) { n.Max = 100 })
	second := w.rotate(first)
	w.advance(99)
	if !w.lives(second) {
		t.Error("it died too early")
	}
	w.advance(1)
	if _, _, err := w.Rotate(t.Context(), api.NewSecret(second), event.Actor{}); err == nil || w.lives(second) {
		t.Errorf("beyond its lifetime: %v", err)
	}
	if _, err := w.Get(t.Context(), v.Handle); err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}

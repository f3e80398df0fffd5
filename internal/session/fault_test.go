package session_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/faultstore"
	"sessiond/store/mem"
)

// A story of what a keeper does, told once for each call to the store, with that
// call failing in each of the ways in which it can. What was confirmed holds
// then, and after a restart; what was refused did not happen; where the outcome
// is unknown, both sides agree at least once the process has begun anew.
func TestEveryStoreCallFailsOnce(t *testing.T) {
	for _, plan := range []faultstore.Plan{
		{}, {After: true}, {Err: store.ErrFull}, {Err: store.ErrConflict}, {Err: store.ErrStopped},
	} {
		t.Run(fmt.Sprintf("%v, after %v", plan.Err, plan.After), func(t *testing.T) {
			calls := tell(t, plan).calls // with no call failing
			if calls < 50 {
				t.Fatalf("the story has %d calls", calls)
			}
			fired := 0
			for n := 1; n <= calls; n++ {
				plan.Call = n
				s := tell(t, plan)
				if s.fired {
					fired++
				}
				if t.Failed() {
					t.Fatalf("call %d of %d failed", n, calls)
				}
			}
			if fired < calls*9/10 {
				t.Errorf("%d of %d faults came", fired, calls)
			}
		})
	}
}

// A told story: what its teller was answered.
type told struct {
	t     *testing.T
	w     *world
	calls int
	fired bool

	tokens  map[string]string
	handles map[string]api.ID
	dead    map[string]bool // was told so
	perhaps map[string]bool // its end was not confirmed
}

func tell(t *testing.T, plan faultstore.Plan) *told {
	t.Helper()
	inner := mem.New()
	for _, n := range []string{"alice", "bob"} {
		before := newWorldOn(t, unlimited(), inner, inner)
		before.account(n)
		before.Close()
	}
	faulty := faultstore.New(inner, plan)
	w := newWorldOn(t, limited(session.Limits{Total: 20}), inner, inner)
	w.Close()
	w.store = faulty
	if err := w.tryOpen(); err != nil {
		return &told{fired: faulty.Fired()} // it says so, and does not start
	}
	s := &told{t: t, w: w, tokens: map[string]string{}, handles: map[string]api.ID{}, dead: map[string]bool{}, perhaps: map[string]bool{}}
	for i := range 8 {
		s.create(fmt.Sprint("session ", i), i)
	}
	s.check("at first")
	w.advance(61)
	for _, name := range []string{"session 0", "session 3"} {
		w.Authenticate(s.tokens[name], true)
	}
	s.maintain()
	s.alter("session 1")
	s.end("session 0")
	s.end("session 2")
	s.check("after ends")
	s.maintain()
	s.endAccount("bob", "session 4", "session 6")
	s.check("after ending an account's")
	w.advance(3600)
	w.Authenticate(s.tokens["session 3"], true)
	s.maintain()
	s.create("late", 1)
	s.end("session 1")
	s.check("at last")
	for range 2 {
		s.maintain()
	}
	s.calls, s.fired = faulty.Calls(0), faulty.Fired()

	w.store = inner // the same data, without faults
	w.restart()
	s.settle()
	s.check("after a restart")
	s.maintain()
	s.check("after a restart and maintenance")
	w.Close()
	return s
}

func (s *told) refused(what string, err error) {
	s.t.Helper()
	code := api.FromError(err).Code
	if code != api.Internal && strings.Contains(err.Error(), faultstore.Canary) {
		s.t.Errorf("%s: the client is shown the fault: %v", what, err)
	}
}

// notApplied reports whether an error says that nothing happened.
func notApplied(err error) bool {
	for _, sure := range []error{store.ErrFull, store.ErrConflict, store.ErrStopped, store.ErrBusy, store.ErrInvalid} {
		if errors.Is(err, sure) {
			return true
		}
	}
	_, ok := errors.AsType[*api.Error](err)
	return ok || !errors.Is(err, store.ErrUnknown)
}

func (s *told) create(name string, i int) {
	s.t.Helper()
	user := []string{"alice", "bob"}[i%2]
	if i >= 4 {
		user = []string{"bob", "carol"}[i%2]
	}
	var (
		v     session.View
		token string
		err   error
	)
	if user == "carol" {
		v, token, err = s.w.issue(user, from("192.0.2.1"))
	} else {
		v, token, err = s.w.login(user, rightPassword, idle(10_000), from("192.0.2.1"))
	}
	if err != nil {
		s.refused("create "+name, err)
		return
	}
	s.tokens[name], s.handles[name] = token, v.Handle
}

func (s *told) end(name string) {
	s.t.Helper()
	if s.tokens[name] == "" {
		return
	}
	done, err := s.w.end(s.handles[name])
	if s.w.lives(s.tokens[name]) {
		s.t.Errorf("end %s: %v, %v, and it lives", name, done, err)
	}
	if err != nil {
		s.refused("end "+name, err)
		s.perhaps[name] = true
		if done {
			s.t.Errorf("end %s: done, and %v", name, err)
		}
		return
	}
	s.dead[name] = true
}

func (s *told) endAccount(user string, names ...string) {
	s.t.Helper()
	how := &session.AccountChange{Reason: session.ReasonRevoked, Event: event.Event{Kind: event.AccountSessionsEnded}}
	_, err := s.w.EndAccount(s.t.Context(), "native", user, true, how)
	for _, name := range append(names, "session 1", "session 3") {
		if s.tokens[name] == "" {
			continue
		}
		if err == nil {
			s.dead[name] = true
		} else {
			s.perhaps[name] = true
		}
	}
	if err != nil {
		s.refused("end the sessions of "+user, err)
	}
}

func (s *told) alter(name string) {
	s.t.Helper()
	if s.tokens[name] == "" {
		return
	}
	_, err := s.w.Alter(s.t.Context(), s.handles[name], event.Actor{}, func(r *session.Record) error { r.Description = "altered"; return nil })
	if err != nil {
		s.refused("alter "+name, err)
	}
	v, getErr := s.w.Get(s.t.Context(), s.handles[name])
	if getErr == nil && err == nil && v.Description != "altered" {
		s.t.Errorf("alter %s: confirmed, and it is %q", name, v.Description)
	}
	if getErr == nil && err != nil && notApplied(err) && !strings.Contains(err.Error(), "answer is lost") && v.Description != "" {
		s.t.Errorf("alter %s: %v, and it is done", name, err)
	}
}

// maintain may fail: it is repeated.
func (s *told) maintain() {
	s.t.Helper()
	_ = s.w.Maintain(s.t.Context())
}

// settle finds out what became of ends that were not confirmed.
func (s *told) settle() {
	for name := range s.perhaps {
		s.dead[name] = !s.w.lives(s.tokens[name])
	}
	s.perhaps = map[string]bool{}
}

// check compares who lives with what was answered.
func (s *told) check(when string) {
	s.t.Helper()
	for name, token := range s.tokens {
		if lives := s.w.lives(token); lives == s.dead[name] && !s.perhaps[name] {
			s.t.Errorf("%s: %s lives: %v", when, name, lives)
		}
	}
	if err := s.w.Table().Recount(); err != nil {
		s.t.Errorf("%s: the table's counts: %v", when, err)
	}
}

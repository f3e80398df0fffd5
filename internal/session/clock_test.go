package session_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
)

const (
	clockDay       = 24 * time.Hour
	clockYear      = 365 * clockDay
	clockIdle      = 100  // seconds
	clockLifetime  = 900  // seconds
	clockRetention = 3600 // seconds
)

// A timed world is one whose time a machine's clock tells, over restarts.
type timed struct {
	*world
	machine *clock.Machine
}

func newTimed(t tb) *timed {
	c := unlimited()
	c.Defaults.RetentionUnit, c.Defaults.RetentionPeriod = "hour", 1
	w := newWorld(t, c)
	machine := clock.NewMachine(morning)
	w.system = machine.Begin()
	w.restart()
	return &timed{w, machine}
}

func (w *timed) sure() int64 { return clock.Sure(w.system).Unix() }

// stop ends the process as it does when it is asked to.
func (w *timed) stop() {
	done, cancel := context.WithCancel(w.ctx())
	cancel()
	w.Run(done, func(err error) { w.t.Errorf("stop: %v", err) })
	w.Close()
}

// begin is a new process.
func (w *timed) begin(accept bool) (ended int, err error) {
	mark, err := event.Mark(w.ctx(), w.inner)
	if err != nil {
		w.t.Fatalf("mark: %v", err)
	}
	system := w.machine.Begin()
	back, err := system.Resume(mark, accept)
	if err != nil {
		return 0, err
	}
	w.system = system
	w.open()
	if back {
		if ended, err = w.EndAhead(w.ctx()); err == nil {
			err = event.AcceptClock(w.ctx(), w.inner, system.Now())
		}
		if err != nil {
			w.t.Fatalf("go back: %v", err)
		}
	}
	return ended, nil
}

// has reports whether the store has a key.
func (w *timed) has(key string) bool {
	_, err := w.inner.Get(w.ctx(), key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		w.t.Fatalf("get: %v", err)
	}
	return err == nil
}

// However the machine's clock is moved when a session has lived for some time, it
// lives until its wall by the furthest of all that was told, and no longer: in this
// process, and in the next.
func TestNoClockPutsOffAnEnd(t *testing.T) {
	jumps := []time.Duration{0, time.Second, 2 * time.Second, time.Hour, clockDay, 10 * clockYear}
	for _, until := range []struct {
		name  string
		of    option
		wall  time.Duration // from the beginning
		swept bool          // what is dead gets its tombstone first
	}{
		{"idle time", idle(clockIdle), clockIdle * time.Second, false},
		{"lifetime", lifetime(clockLifetime), clockLifetime * time.Second, false},
		{"idle time, swept", idle(clockIdle), clockIdle * time.Second, true},
	} {
		for late := -2 * time.Second; late <= 2*time.Second; late += time.Second {
			for _, jump := range jumps {
				for _, by := range []time.Duration{jump, -jump} {
					t.Run(fmt.Sprintf("%s, %v after it, by %v", until.name, late, by), func(t *testing.T) {
						w := newTimed(t)
						_, token := w.issued("ann", until.of)
						w.machine.Pass(until.wall + late)
						lives := func(when string, furthest time.Duration) {
							if got, want := w.lives(token), furthest < until.wall; got != want {
								t.Errorf("%s it lives: %v, want %v", when, got, want)
							}
						}
						lives("before", until.wall+late)
						if until.swept {
							w.maintain()
						}
						w.machine.Set(by)
						furthest := until.wall + late + max(0, by)
						lives("then", furthest)
						w.machine.Pass(time.Second)
						furthest += time.Second
						lives("a second later", furthest)
						w.stop()
						_, err := w.begin(false)
						if refused := by < -clockDay; refused != (err != nil) {
							t.Fatalf("the next process: %v", err)
						}
						if err != nil {
							return
						}
						lives("in the next process", furthest)
						w.machine.Pass(2 * time.Second)
						furthest += 2 * time.Second
						lives("two seconds on", furthest)
					})
				}
			}
		}
	}
}

// A clock that leaps ahead kills at once, but nothing is buried for ten minutes, and
// nothing purged: whoever sets it right and accepts that has everything back but what
// somebody ended, and what that clock has given too much time.
func TestALeapCanBeTakenBack(t *testing.T) {
	w := newTimed(t)
	old, _ := w.issued("old", idle(clockIdle))
	if _, err := w.end(old.Handle); err != nil {
		t.Fatal(err)
	}
	w.maintain()
	tokens := map[string]string{}
	for _, name := range []string{"idle", "wall", "ended"} {
		_, tokens[name] = w.issued(name, idle(3600), lifetime(7200))
	}
	_, tokens["key"] = w.issued("key", permanent)
	lives := func(when string, want ...string) {
		t.Helper()
		for name, token := range tokens {
			expected := false
			for _, n := range want {
				expected = expected || n == name
			}
			if got := w.lives(token); got != expected {
				t.Errorf("%s: %s lives: %v", when, name, got)
			}
		}
	}
	lives("before", "idle", "wall", "key", "ended")
	h, _ := session.Locate(tokens["ended"])
	if _, err := w.end(h); err != nil {
		t.Fatal(err)
	}

	w.machine.Set(10 * clockYear)
	lives("after the leap", "key")
	_, tokens["new"] = w.issued("new", idle(3600), lifetime(7200))
	_, tokens["new key"] = w.issued("new", permanent)
	w.Authenticate(tokens["key"], true)
	for range 9 {
		w.machine.Pass(time.Minute)
		w.maintain()
	}
	lives("nine minutes later", "key", "new", "new key")
	if n := w.keys(session.LiveKeys); n != 5 {
		t.Errorf("%d sessions are stored, want the 3 from before that nobody ended, and 2", n)
	}
	if !w.has(session.PastKey(old.Handle)) || len(w.events(old.Handle)) != 2 {
		t.Error("what was old is gone")
	}

	w.machine.Set(-10 * clockYear)
	lives("after the correction", "key", "new", "new key")
	w.machine.Pass(20 * time.Minute)
	w.maintain()
	lives("twenty minutes later", "key", "new", "new key")
	w.stop()
	if _, err := w.begin(false); err == nil {
		t.Fatal("a process begins ten years before the last")
	} else if _, ok := errors.AsType[*clock.BehindError](err); !ok {
		t.Fatalf("it is refused with %v", err)
	}
	if ended, err := w.begin(true); err != nil || ended != 1 {
		t.Fatalf("%d are ended as the clock is accepted, %v, want the new one", ended, err)
	}
	lives("after the clock was accepted", "idle", "wall", "key", "new key")
	w.maintain()
	lives("and maintained", "idle", "wall", "key", "new key")
	w.stop()
	if _, err := w.begin(false); err != nil {
		t.Fatalf("the process after that: %v", err)
	}
	lives("in the process after that", "idle", "wall", "key", "new key")
}

// A clock that leapt and stays is believed after ten minutes: then the dead are buried,
// and what is old is purged.
func TestALeapIsBelieved(t *testing.T) {
	w := newTimed(t)
	v, _ := w.issued("ann", idle(3600))
	w.machine.Set(clockDay)
	w.maintain()
	w.machine.Pass(10*time.Minute - time.Second)
	w.maintain()
	if !w.has(session.LiveKey(v.Handle)) {
		t.Error("it is buried a second too early")
	}
	w.machine.Pass(time.Second)
	w.maintain()
	if w.has(session.LiveKey(v.Handle)) || w.has(session.PastKey(v.Handle)) {
		t.Error("it is not buried and purged")
	}
}

// What somebody ends is buried though the time is in doubt.
func TestWhatIsEndedIsBuriedInDoubt(t *testing.T) {
	w := newTimed(t)
	idled, _ := w.issued("ann", idle(clockIdle))
	revoked, _ := w.issued("bob", idle(clockIdle))
	w.machine.Set(time.Minute)
	w.raise(session.RealmEpoch("web"), false)
	later, _ := w.issued("ann", idle(clockIdle))
	w.machine.Set(time.Hour)
	w.maintain()
	for _, v := range []session.View{idled, revoked} {
		if w.has(session.LiveKey(v.Handle)) {
			t.Errorf("the session of %s is not buried", v.Username)
		}
	}
	if !w.has(session.LiveKey(later.Handle)) {
		t.Error("one that idled out by a doubtful clock alone is buried")
	}
}

// Whatever is done to the machine's clock, over restarts and crashes, and whatever is
// done meanwhile: what is answered is what the furthest clock says, and what is
// buried or purged is surely dead or old.
func TestClocksAndBoundaries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &clockModel{timed: newTimed(t)}
		t.Cleanup(func() { _ = m.inner.Close() })
		m.issue(t)
		t.Repeat(map[string]func(*rapid.T){
			"": m.check, "issue": m.issue, "use": m.use, "end": m.endOne, "pass": m.pass, "set": m.set,
			"maintain": m.maintained, "restart": m.restart, "crash": m.crash, "accept": m.accept,
		})
	})
}

// A clockModel knows what time it is by a rule of one line: see reach.
type clockModel struct {
	*timed
	furthest time.Time // that was told
	kept     time.Time // of that, what the store knows
	sessions []*clocked
}

type clocked struct {
	handle  api.ID
	token   string
	created int64
	idle    int64
	wall    int64
	used    int64
	written int64 // of used, what the store knows
	ended   bool
	buried  bool
	purged  bool
	endedAt int64
}

func (m *clockModel) reach(passed time.Duration) {
	m.furthest = m.furthest.Add(passed)
	if at := m.machine.Clock(); at.After(m.furthest) {
		m.furthest = at
	}
}

func (s *clocked) deadline() int64 {
	switch {
	case s.idle == 0:
		return s.wall
	case s.wall == 0:
		return s.used + s.idle
	}
	return min(s.wall, s.used+s.idle)
}

func (m *clockModel) lives(s *clocked) bool {
	return !s.ended && !s.buried && (s.deadline() == 0 || m.furthest.Unix() < s.deadline())
}

func (m *clockModel) check(t *rapid.T) {
	m.reach(0)
	if got := m.system.Now(); !got.Equal(m.furthest) {
		t.Fatalf("it is %v, want %v", got, m.furthest)
	}
	for _, s := range m.sessions {
		if _, got := m.Authenticate(s.token, false); got != m.lives(s) {
			t.Fatalf("at %v a session lives until %v: %v", m.furthest.Unix(), s.deadline(), got)
		}
		if there := m.has(session.LiveKey(s.handle)); !there && !s.buried {
			t.Fatalf("a session of until %d is buried, surely it is %d", s.deadline(), m.sure())
		}
	}
}

func (m *clockModel) issue(t *rapid.T) {
	m.reach(0)
	s := &clocked{created: m.furthest.Unix()}
	if rapid.Bool().Draw(t, "idles out") {
		s.idle = clockIdle
	}
	var max int64
	if rapid.Bool().Draw(t, "has a wall") {
		max = clockLifetime
		s.wall = s.created + max
	}
	v, token := m.issued("ann", idle(s.idle), lifetime(max))
	s.handle, s.token, s.used, s.written = v.Handle, token, s.created, s.created
	m.sessions = append(m.sessions, s)
	m.keep()
}

// keep is what an event does.
func (m *clockModel) keep() {
	if told := m.furthest.Truncate(time.Millisecond); told.After(m.kept) {
		m.kept = told
	}
}

func (m *clockModel) any(t *rapid.T) *clocked {
	return rapid.SampledFrom(m.sessions).Draw(t, "session")
}

func (m *clockModel) use(t *rapid.T) {
	s := m.any(t)
	m.reach(0)
	if _, got := m.Authenticate(s.token, true); got != m.lives(s) {
		t.Fatalf("at %v a session lives until %v: %v", m.furthest.Unix(), s.deadline(), got)
	}
	if m.lives(s) {
		s.used = max(s.used, m.furthest.Unix())
	}
}

func (m *clockModel) endOne(t *rapid.T) {
	s := m.any(t)
	m.reach(0)
	lives := m.lives(s)
	if done, err := m.end(s.handle); done != lives || err != nil {
		t.Fatalf("ended: %v, %v, want %v", done, err, lives)
	}
	if lives {
		s.ended, s.endedAt = true, m.furthest.Unix()
		m.keep()
	}
}

// clockMoments are what time passes and clocks are moved by.
var clockMoments = []time.Duration{time.Second, 2 * time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute, time.Hour, clockDay, 10 * clockYear}

func (m *clockModel) about(t *rapid.T) time.Duration {
	d := rapid.SampledFrom(clockMoments).Draw(t, "about")
	if s := m.any(t); s.deadline() != 0 && rapid.Bool().Draw(t, "until a boundary") {
		d = time.Unix(s.deadline(), 0).Sub(m.furthest)
	}
	d = min(d.Abs(), 10*clockYear) + time.Duration(rapid.IntRange(-2, 2).Draw(t, "seconds more"))*time.Second
	if m.reach(0); m.furthest.Year() > 2080 { // in 2106 there are no seconds left
		d %= clockDay
	}
	return max(0, d)
}

func (m *clockModel) pass(t *rapid.T) {
	d := m.about(t)
	m.reach(0)
	m.machine.Pass(d)
	m.reach(d)
}

func (m *clockModel) set(t *rapid.T) {
	d := m.about(t)
	m.system.Steps() // as the server does each second
	if rapid.Bool().Draw(t, "back") {
		d = -d
	}
	if m.machine.Clock().Add(d).Year() > 1980 {
		m.machine.Set(d)
	}
	m.system.Steps()
}

func (m *clockModel) maintained(t *rapid.T) {
	m.reach(0)
	m.maintain()
	m.kept = m.furthest
	for _, s := range m.sessions {
		s.written = s.used
		if d := s.deadline(); !s.buried && (s.ended || d != 0 && d <= m.sure()) {
			s.buried = true
			if !s.ended {
				s.endedAt = d
			}
		}
		s.purged = s.purged || s.buried && s.endedAt < m.sure()-clockRetention
		if there := m.has(session.PastKey(s.handle)); s.buried && there == s.purged {
			t.Fatalf("a tombstone of %d is there: %v, surely it is %d", s.endedAt, there, m.sure())
		}
	}
}

func (m *clockModel) restart(t *rapid.T) {
	m.stopped()
	m.down(t)
}

func (m *clockModel) stopped() {
	m.reach(0)
	m.stop()
	m.kept = m.furthest
	for _, s := range m.sessions {
		s.written = s.used
	}
}

func (m *clockModel) crash(t *rapid.T) {
	m.Close()
	m.down(t)
}

// down begins anew after a while, if the machine's clock allows it.
func (m *clockModel) down(t *rapid.T) {
	m.machine.Pass(m.about(t))
	if rapid.Bool().Draw(t, "set back meanwhile") {
		if d := m.about(t); m.machine.Clock().Add(-d).Year() > 1980 {
			m.machine.Set(-d)
		}
	}
	behind := m.kept.Sub(m.machine.Clock())
	_, err := m.begin(false)
	if (err != nil) != (behind > clockDay) {
		t.Fatalf("a clock that is behind by %v: %v", behind, err)
	}
	if err != nil {
		m.machine.Set(behind)
		if _, err := m.begin(false); err != nil {
			t.Fatalf("a clock that was set right: %v", err)
		}
	}
	m.furthest = m.kept
	m.reach(0)
	for _, s := range m.sessions {
		s.used = s.written
	}
}

// accept restarts with the machine's clock as it is.
func (m *clockModel) accept(t *rapid.T) {
	m.stopped()
	if _, err := m.begin(true); err != nil {
		t.Fatalf("a clock that is accepted: %v", err)
	}
	now := m.machine.Clock()
	if !now.Before(m.furthest) {
		return
	}
	m.furthest = now
	for _, s := range m.sessions {
		if ahead := s.wall != 0 && s.created > now.Unix() || s.idle != 0 && s.used > now.Unix(); ahead && !s.ended && !s.buried {
			s.ended, s.endedAt = true, now.Unix()
		}
	}
	m.kept = now
}

package session_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/faultstore"
	"sessiond/store/mem"
)

// After whatever happened, the statistics are what going through everything gives.
func TestStatisticsAreWhatThereIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inner := mem.New()
		m := &counted{model: newModel(t, func() (store.Store, error) { return inner, nil }, tally{})}
		m.follow()
		t.Repeat(map[string]func(*rapid.T){
			"issue":       m.issue,
			"issue again": m.issue,
			"log in":      m.login,
			"use":         m.use,
			"alter":       m.alter,
			"log out":     m.logout,
			"end many":    m.endMany,
			"wait":        m.wait,
			"wait longer": m.waitLonger,
			"maintain":    m.maintain,
			"in part":     m.maintainPartly,
			"restart":     m.restart,
			"":            m.check,
		})
	})
}

// A window takes in what happened in the present slot and so many before it.
func TestWindows(t *testing.T) {
	created := func(w *world) string {
		s := w.statistics()
		return fmt.Sprint(s.LastMinute.Created, s.LastHour.Created, s.LastDay.Created)
	}
	// It is 08:15:00, where a second, a minute and a quarter of an hour begin.
	for _, tt := range []struct {
		after time.Duration
		want  string
	}{
		{0, "1 1 1"},
		{59 * time.Second, "1 1 1"},
		{time.Minute, "0 1 1"},
		{time.Hour - time.Second, "0 1 1"},
		{time.Hour, "0 0 1"},
		{24*time.Hour - time.Second, "0 0 1"},
		{24 * time.Hour, "0 0 0"},
		{1000 * time.Hour, "0 0 0"},
		{-time.Second, "1 1 1"},
		{-48 * time.Hour, "1 1 1"},
	} {
		w := newWorld(t, unlimited())
		w.issued("ann")
		w.clock.Advance(tt.after)
		if got := created(w); got != tt.want {
			t.Errorf("after %s: created %s, want %s", tt.after, got, tt.want)
		}
		w.clock.Advance(-tt.after) // which moves nothing back
		w.issued("ann")
		if s := w.statistics(); s.LastMinute.Created != max(1, int64(tt.want[0]-'0')+1) {
			t.Errorf("after %s and back: %d created", tt.after, s.LastMinute.Created)
		}
	}
}

// Refused log-ins are counted by their codes; other errors are not.
func TestRefusalsAreCounted(t *testing.T) {
	w := newWorld(t, unlimited())
	for _, code := range []api.Code{
		api.SessionLimitPerUsername, api.LoginFailed, api.LoginFailed, api.Overloaded, api.BadParam, api.NotFound, api.InvalidAuthToken, api.SessionLimitPerClient, api.Internal,
	} {
		w.NoteRefusal(code)
	}
	want := []session.Refused{{Code: api.LoginFailed, Count: 2}, {Code: api.SessionLimitPerUsername, Count: 1}, {Code: api.SessionLimitPerClient, Count: 1}, {Code: api.Overloaded, Count: 1}}
	s := w.statistics()
	for name, got := range map[string][]session.Refused{"minute": s.LastMinute.Refused, "hour": s.LastHour.Refused, "day": s.LastDay.Refused} {
		if !slices.Equal(got, want) {
			t.Errorf("last %s: %v, want %v", name, got, want)
		}
	}
}

// What statistics cost does not depend on how many sessions there are: no call to
// the store, and no more memory.
func TestStatisticsCostTheSame(t *testing.T) {
	cost := func(sessions int) (calls int, fresh, again float64) {
		inner := mem.New()
		counting := faultstore.New(inner, faultstore.Plan{})
		w := newWorldOn(t, unlimited(), inner, counting)
		w.insert(sessions, 10)
		before := counting.Calls(0)
		ask := func() {
			if s, err := w.Statistics(t.Context()); err != nil || s.Living.Sessions != int64(sessions) {
				t.Fatalf("%d live, %v, want %d", s.Living.Sessions, err, sessions)
			}
		}
		ask()
		again = testing.AllocsPerRun(10, ask)
		fresh = testing.AllocsPerRun(10, func() { w.ForgetCensus(); ask() })
		return counting.Calls(0) - before, fresh, again
	}
	calls, fresh, again := cost(1000)
	if calls != 0 {
		t.Errorf("%d calls to the store", calls)
	}
	manyCalls, manyFresh, manyAgain := cost(100_000)
	if manyCalls != calls || manyFresh != fresh || manyAgain != again {
		t.Errorf("%d calls, %v and %v allocations for a thousand; %d, %v and %v for a hundred thousand", calls, fresh, again, manyCalls, manyFresh, manyAgain)
	}
}

// A census is not taken again before its rest is over.
func TestACensusRests(t *testing.T) {
	w := newWorld(t, unlimited())
	w.issued("ann")
	top := func() int { return len(w.mustStatistics().Top) }
	if n := top(); n != 1 {
		t.Fatalf("%d accounts", n)
	}
	w.issued("bob")
	w.clock.Advance(999 * time.Millisecond)
	if s := w.mustStatistics(); len(s.Top) != 1 || s.Living.Sessions != 2 || s.At != morning.Unix() {
		t.Errorf("before its rest is over: %+v", s)
	}
	w.clock.Advance(time.Millisecond)
	if n := top(); n != 2 {
		t.Errorf("after it: %d accounts", n)
	}
	w.issued("cat")
	w.clock.Advance(-time.Hour)
	if n := top(); n != 3 {
		t.Errorf("after the clock went back: %d accounts", n)
	}
}

// The longer a census takes, the longer it rests.
func TestALongCensusRestsLonger(t *testing.T) {
	w := newWorld(t, unlimited())
	w.insert(5000, 1)
	turns := 0
	ctx := &meanwhile{t.Context(), func() {
		turns++
		w.clock.Advance(50 * time.Millisecond)
	}}
	for _, step := range []struct {
		wait  time.Duration
		turns int
	}{{0, 1}, {4999 * time.Millisecond, 1}, {time.Millisecond, 2}} {
		w.clock.Advance(step.wait)
		if _, err := w.Statistics(ctx); err != nil || turns != step.turns {
			t.Errorf("after %s: %d turns, %v, want %d", step.wait, turns, err, step.turns)
		}
	}
}

// A census that is broken off is none, and others are not kept from taking one.
func TestACensusIsBrokenOff(t *testing.T) {
	w := newWorld(t, unlimited())
	w.insert(5000, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Statistics(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("broken off: %v", err)
	}
	if s := w.mustStatistics(); s.Ages[0] != 5000 {
		t.Errorf("then: %v", s.Ages)
	}
}

// An account that comes while a census is taken has none of the sessions of one
// that left.
func TestAccountsLeaveDuringACensus(t *testing.T) {
	w := newWorld(t, unlimited())
	var left []string
	for range 50 {
		v, _ := w.issued("leaver")
		left = append(left, session.LiveKey(v.Handle))
	}
	w.insert(5000, 1)
	s, err := w.Statistics(&meanwhile{t.Context(), func() {
		if _, err := w.inner.Commit(w.ctx(), store.Tx{Delete: left}); err != nil {
			t.Error(err)
		}
		w.issued("newcomer")
	}})
	if err != nil || len(s.Top) == 0 {
		t.Fatalf("%v, %v", s.Top, err)
	}
	for _, a := range s.Top {
		if a.Sessions != 1 || a.Username == "leaver" {
			t.Errorf("top: %+v", a)
		}
	}
}

// Of more accounts than are named, those are that have the most, whatever the
// order in which their sessions lie.
func TestTopAccounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, unlimited())
		sessions := map[string]int64{}
		for range rapid.IntRange(0, 120).Draw(t, "sessions") {
			user := fmt.Sprintf("user-%02d", min(rapid.IntRange(0, 25).Draw(t, "user"), rapid.IntRange(0, 25).Draw(t, "or")))
			w.issued(user)
			sessions[user]++
		}
		var want []int64
		for _, n := range sessions {
			want = append(want, n)
		}
		slices.SortFunc(want, func(a, b int64) int { return cmp.Compare(b, a) })
		var got []int64
		for _, a := range w.statistics().Top {
			if sessions[a.Username] != a.Sessions {
				t.Errorf("%s has %d sessions, not %d", a.Username, sessions[a.Username], a.Sessions)
			}
			got = append(got, a.Sessions)
		}
		if !slices.Equal(got, want[:min(10, len(want))]) {
			t.Errorf("top %v of %v", got, want)
		}
	})
}

// Statistics may be asked for while everything changes.
func TestStatisticsInARace(t *testing.T) {
	w := newWorld(t, unlimited())
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for j := range 60 {
				v, _, err := w.issue(fmt.Sprintf("user-%d-%d", i, j%4))
				if err != nil {
					t.Error(err)
					return
				}
				w.NoteRefusal(api.LoginFailed)
				if j%3 == 0 {
					if _, err := w.end(v.Handle); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Go(func() {
		for range 40 {
			w.ForgetCensus()
			if s, err := w.Statistics(w.ctx()); err != nil || s.Living.Sessions < 0 || s.Waiting < 0 {
				t.Errorf("%+v, %v", s, err)
			}
			w.advance(1)
			if err := w.Maintain(w.ctx()); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	w.checkStatistics("in the end")
	if s := w.statistics(); s.LastHour.Created != 180 || s.LastHour.Ended[session.Ended] != 60 || s.LastHour.Refused[0].Count != 180 {
		t.Errorf("in the last hour: %+v", s.LastHour)
	}
}

// counted is the model, with what its commits said of themselves.
type counted struct {
	*model
	since  int64
	logged []happened
}

type happened struct {
	at     int64
	status session.Status // Active: it was created
}

// follow notes the events of every commit.
func (m *counted) follow() {
	m.since = m.now
	statuses := map[string]session.Status{}
	for s := session.Pending; s <= session.Replaced; s++ {
		statuses[s.String()] = s
	}
	_, err := m.w.inner.Watch(m.w.inner.Rev(), func(c store.Change) {
		for _, entry := range c.Entries {
			e, err := event.Decode(entry)
			if err != nil {
				m.w.t.Errorf("%v", err)
			}
			switch e.Kind { //nolint:exhaustive // the others neither make nor end a session
			case event.SessionCreated, event.SessionEnded, event.SessionExpired, event.SessionEvicted:
				m.logged = append(m.logged, happened{m.now, statuses[e.Status]})
			}
		}
	})
	if err != nil {
		m.w.t.Fatalf("watch: %v", err)
	}
}

func (m *counted) restart(t *rapid.T) {
	m.model.restart(t)
	m.since, m.logged = m.now, nil
}

// waitLonger reaches ages and windows.
func (m *counted) waitLonger(t *rapid.T) {
	seconds := rapid.SampledFrom([]int64{3600, 20 * 3600, 24 * 3600, 6 * 24 * 3600, 29 * 24 * 3600}).Draw(t, "seconds")
	m.w.advance(seconds)
	m.now = m.w.unix()
}

func (m *counted) check(t *rapid.T) {
	m.w.checkStatistics("")
	s := m.w.statistics()
	if s.Since != m.since || s.At != m.now {
		t.Fatalf("since %d as of %d, want %d and %d", s.Since, s.At, m.since, m.now)
	}
	for _, window := range []struct {
		got            session.Happened
		seconds, slots int64
	}{{s.LastMinute, 1, 60}, {s.LastHour, 60, 60}, {s.LastDay, 900, 96}} {
		var want session.Happened
		for _, h := range m.logged {
			switch {
			case h.at/window.seconds <= m.now/window.seconds-window.slots:
			case h.status == session.Active:
				want.Created++
			default:
				want.Ended[h.status]++
			}
		}
		if diff := gocmp.Diff(want, window.got); diff != "" {
			t.Fatalf("in %d times %d seconds (-want +got):\n%s", window.slots, window.seconds, diff)
		}
	}
}

// checkStatistics compares the statistics with what going through every session
// gives.
func (w *world) checkStatistics(when string) {
	w.t.Helper()
	realms := map[string]*session.RealmCount{}
	accounts := map[string]*session.AccountCount{}
	want := session.Statistics{Census: session.Census{At: w.unix()}}
	for _, name := range w.Realms() {
		realms[name] = &session.RealmCount{Realm: name}
	}
	err := w.Each(w.ctx(), session.Scan{Ended: true}, func(v *session.View) bool {
		if !v.Live {
			if _, err := w.tombstone(v.Handle); err == nil {
				want.Tombstones[v.End.Status]++
			} else {
				want.Waiting++
			}
			return true
		}
		name := v.Realm + "/" + strings.ToLower(v.Username)
		if accounts[name] == nil {
			accounts[name] = &session.AccountCount{Realm: v.Realm, Username: v.Username}
		}
		keys := int64(0)
		if v.Permanent {
			keys = 1
		}
		for _, count := range []*session.RealmCount{&want.Living, realms[v.Realm]} {
			count.Sessions++
			count.Permanent += keys
		}
		accounts[name].Sessions++
		accounts[name].Permanent += keys
		const day = 24 * 3600
		age := w.unix() - v.Created
		want.Ages[slices.IndexFunc([]int64{3600, day, 7 * day, 30 * day, age + 1}, func(below int64) bool { return age < below })]++
		return true
	})
	if err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	want.Taken = want.Living.Sessions
	for _, name := range w.Realms() {
		want.Realms = append(want.Realms, *realms[name])
	}
	for _, a := range accounts { // there are no ten
		want.Top = append(want.Top, *a)
	}
	slices.SortFunc(want.Top, func(a, b session.AccountCount) int {
		return cmp.Or(cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(a.Realm, b.Realm), cmp.Compare(a.Username, b.Username))
	})
	got := w.statistics()
	got.Since, got.LastMinute, got.LastHour, got.LastDay = 0, session.Happened{}, session.Happened{}, session.Happened{}
	if len(want.Top) > 10 {
		want.Top, got.Top = nil, nil
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		w.t.Fatalf("%s: counted (-want +got):\n%s", when, diff)
	}
}

// statistics are those of this very moment.
func (w *world) statistics() session.Statistics {
	w.t.Helper()
	w.ForgetCensus()
	return w.mustStatistics()
}

func (w *world) mustStatistics() session.Statistics {
	w.t.Helper()
	s, err := w.Statistics(w.ctx())
	if err != nil {
		w.t.Fatalf("statistics: %v", err)
	}
	return s
}

// ended makes a session that is logged out at once.
func (w *world) ended(username string) api.ID {
	w.t.Helper()
	v, _ := w.issued(username)
	if done, err := w.end(v.Handle); !done || err != nil {
		w.t.Fatalf("end: %v, %v", done, err)
	}
	return v.Handle
}

// insert puts sessions of many accounts into the table, so many of each.
func (w *world) insert(sessions, each int) {
	var a *account.Account
	for i := range sessions {
		if i%each == 0 {
			a = &account.Account{ID: api.NewID(morning, [10]byte{7: byte(i >> 16), 8: byte(i >> 8), 9: byte(i)}), Realm: "web", Username: fmt.Sprint("user-", i), Rev: 1}
		}
		r, _ := stored(i, a)
		w.Table().Insert(r, a)
	}
}

// meanwhile is a context that does something whenever it is asked whether it ended.
type meanwhile struct {
	context.Context
	do func()
}

func (m *meanwhile) Err() error {
	m.do()
	return m.Context.Err()
}

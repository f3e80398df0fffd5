package session_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/faultstore"
	"sessiond/store/mem"
)

// Of the account's sessions that count against a limit, each policy picks its own,
// and neither a key, nor anybody else's, nor the one that is joined.
func TestWhoMakesRoom(t *testing.T) {
	policies := []struct {
		policy string
		want   []string
	}{
		{"", nil},
		{config.Deny, nil},
		{config.EvictOldest, []string{"oldest"}},
		{config.EvictLeastRecentlyUsed, []string{"unused"}},
		{config.EvictNextToExpire, []string{"short"}},
		{config.EvictAll, []string{"oldest", "unused", "short"}},
	}
	for _, limit := range []struct {
		name string
		most int64 // so many count
		code api.Code
	}{
		{config.LimitTotal, 5, api.SessionLimitReached},
		{config.LimitPerIPAddress, 4, api.SessionLimitPerIPAddress},
		{config.LimitPerUsername, 5, api.SessionLimitPerUsername},
		{config.LimitPerClient, 4, api.SessionLimitPerClient},
	} {
		for _, tt := range policies {
			t.Run(limit.name+" "+tt.policy, func(t *testing.T) {
				s := newScene(t)
				s.limit(limit.name, limit.most+1, tt.policy)
				before := s.living()
				v, _, err := s.come()
				if err != nil {
					t.Fatalf("one place was left: %v", err)
				}
				if done, err := s.end(v.Handle); !done || err != nil {
					t.Fatal(done, err)
				}
				s.limit(limit.name, limit.most, tt.policy)
				v, _, err = s.come()
				if tt.want == nil && codeOf(err) != limit.code || tt.want != nil && err != nil {
					t.Fatalf("the one too many: %v", err)
				}
				gone := slices.DeleteFunc(before, func(name string) bool { return slices.Contains(s.living(), name) })
				if slices.Sort(gone); !slices.Equal(gone, slices.Sorted(slices.Values(tt.want))) {
					t.Errorf("%v made room, want %v", gone, tt.want)
				}
				for _, restart := range []bool{false, true} {
					if restart {
						s.restart()
					}
					for _, name := range gone {
						s.evicted(s.handles[name], limit.name, v.Handle)
					}
					s.recount()
					s.maintain()
				}
			})
		}
	}
}

// A scene has five living sessions of ann, one of bob, whose browser some of them
// share, and some that are dead. What most policies would pick is where most limits
// must not: elsewhere is created, and used, before everything.
type scene struct {
	*world
	handles map[string]api.ID
	tokens  map[string]string
	bob     *session.Caller
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{world: newWorld(t, unlimited()), handles: map[string]api.ID{}, tokens: map[string]string{}}
	here := from("192.0.2.1")
	s.add("bob", "bob", here)
	s.bob = s.caller("bob")
	s.add("key", "ann", here, permanent)
	s.add("ended", "ann", here, joins(s.bob))
	s.add("idle", "ann", here, joins(s.bob), idle(2))
	for _, name := range []string{"oldest", "unused"} {
		s.add(name, "ann", here, joins(s.bob))
	}
	s.add("short", "ann", here, joins(s.bob), lifetime(600))
	if done, err := s.end(s.handles["ended"]); !done || err != nil {
		t.Fatal(done, err)
	}
	delete(s.tokens, "ended")
	delete(s.tokens, "idle")
	for _, name := range []string{"oldest", "short", "bob", "key"} {
		s.Authenticate(s.tokens[name], true)
	}
	s.advance(1)
	return s
}

// limit sets one limit, of an account and of the whole with their one more than an
// address counts: the key.
func (s *scene) limit(name string, most int64, policy string) {
	d := &s.config.Defaults
	*d = unlimited().Defaults
	switch name {
	case config.LimitTotal:
		d.MaxSessions, d.OnSessionLimit.Total = most, policy
	case config.LimitPerIPAddress:
		d.MaxSessionsPerIPAddress, d.OnSessionLimit.PerIPAddress = most, policy
	case config.LimitPerUsername:
		d.MaxSessionsPerUsername, d.OnSessionLimit.PerUsername = most-1, policy // bob's is not ann's
	case config.LimitPerClient:
		d.MaxSessionsPerClient, d.OnSessionLimit.PerClient = most, policy
	}
}

func (s *scene) add(name, username string, options ...option) {
	s.t.Helper()
	v, token := s.issued(username, options...)
	s.handles[name], s.tokens[name] = v.Handle, token
	s.advance(1)
}

func (s *scene) caller(name string) *session.Caller {
	s.t.Helper()
	c, ok := s.Present(s.handles[name])
	if !ok {
		s.t.Fatalf("%s is dead", name)
	}
	return &c
}

// come has ann log in once more, on bob's browser.
func (s *scene) come() (session.View, string, error) {
	return s.issue("ann", from("192.0.2.1"), joins(s.bob))
}

func (s *scene) living() (names []string) {
	for name, token := range s.tokens {
		if s.lives(token) {
			names = append(names, name)
		}
	}
	return names
}

func joins(c *session.Caller) option { return func(n *session.NewSession) { n.Join = c } }

// evicted says that a session made room for another one, which is there.
func (w *world) evicted(h api.ID, limit string, successor api.ID) {
	w.t.Helper()
	v, err := w.Get(w.ctx(), h)
	if err != nil {
		w.t.Errorf("the evicted %s: %v", h, err)
		return
	}
	if v.Status() != session.Replaced || v.End.Reason != limit || v.End.By != session.HandleText(successor) {
		w.t.Errorf("%s ended as %s for %q by %s, want it replaced for %q by %s", h, v.Status(), v.End.Reason, v.End.By, limit, session.HandleText(successor))
	}
	if _, err := w.Get(w.ctx(), successor); err != nil {
		w.t.Errorf("its successor %s: %v", successor, err)
	}
	n := 0
	for _, e := range w.events(h) {
		if e.Kind == event.SessionEvicted && e.Reason == limit && e.By.SessionHandle == v.End.By && e.Status == "replaced" {
			n++
		}
	}
	if n != 1 {
		w.t.Errorf("%d events tell of the eviction of %s", n, h)
	}
}

// Of sessions that are equal to a policy the one whose handle sorts first goes.
func TestWhoMakesRoomOfEquals(t *testing.T) {
	for _, policy := range []string{config.EvictOldest, config.EvictLeastRecentlyUsed, config.EvictNextToExpire} {
		w := newWorld(t, unlimited())
		w.config.Defaults.MaxSessionsPerUsername, w.config.Defaults.OnSessionLimit.PerUsername = 8, policy
		var handles []api.ID
		for range 8 {
			v, _ := w.issued("ann", lifetime(600))
			handles = append(handles, v.Handle)
		}
		w.advance(1)
		slices.SortFunc(handles, func(a, b api.ID) int { return cmp.Compare(string(a[:]), string(b[:])) })
		for _, want := range handles[:4] {
			v, _ := w.issued("ann", lifetime(6000))
			w.evicted(want, config.LimitPerUsername, v.Handle)
		}
	}
}

// What a policy looks at, at its edges.
func TestWhatPoliciesCompare(t *testing.T) {
	for _, tt := range []struct {
		why, policy string
		prepare     func(w *world) (first, second api.ID)
	}{
		{"who has no end goes last", config.EvictNextToExpire, func(w *world) (api.ID, api.ID) {
			never, _ := w.issued("ann")
			w.advance(1)
			idles, _ := w.issued("ann", idle(100_000))
			return idles.Handle, never.Handle
		}},
		{"the idle time counts, when it comes before the lifetime", config.EvictNextToExpire, func(w *world) (api.ID, api.ID) {
			wall, _ := w.issued("ann", lifetime(100))
			idles, _ := w.issued("ann", lifetime(1000), idle(99))
			return idles.Handle, wall.Handle
		}},
		{"a use puts off the idle time", config.EvictNextToExpire, func(w *world) (api.ID, api.ID) {
			used, token := w.issued("ann", idle(99))
			left, _ := w.issued("ann", idle(100))
			w.advance(2)
			w.Authenticate(token, true)
			return left.Handle, used.Handle
		}},
		{"a use does not make younger", config.EvictOldest, func(w *world) (api.ID, api.ID) {
			used, token := w.issued("ann")
			w.advance(1)
			left, _ := w.issued("ann")
			w.advance(1)
			w.Authenticate(token, true)
			return used.Handle, left.Handle
		}},
		{"to look is no use", config.EvictLeastRecentlyUsed, func(w *world) (api.ID, api.ID) {
			looked, token := w.issued("ann")
			w.advance(1)
			left, _ := w.issued("ann")
			w.advance(1)
			w.Authenticate(token, false)
			return looked.Handle, left.Handle
		}},
	} {
		t.Run(tt.why, func(t *testing.T) {
			w := newWorld(t, unlimited())
			w.config.Defaults.MaxSessionsPerUsername, w.config.Defaults.OnSessionLimit.PerUsername = 2, tt.policy
			first, second := tt.prepare(w)
			for _, want := range []api.ID{first, second} {
				v, _ := w.issued("ann", lifetime(1_000_000))
				w.evicted(want, config.LimitPerUsername, v.Handle)
				w.advance(1)
				w.config.Defaults.MaxSessionsPerUsername = 1 // the second, and the new one that was first
				if want == first {
					if done, err := w.end(v.Handle); !done || err != nil {
						t.Fatal(done, err)
					}
				}
			}
		})
	}
}

// An address of IPv6 has three limits, and those who are in the network that is full
// make room, nobody else.
func TestWhoMakesRoomInANetwork(t *testing.T) {
	for _, tt := range []struct {
		why    string
		others []string // of bob, enough to fill the network
		ann    []string // the first is evicted
		comes  string
	}{
		{"an address of IPv4", nil, []string{"192.0.2.1", "192.0.2.2"}, "::ffff:192.0.2.1"},
		{"a /64", nil, []string{"2001:db8:0:1::1", "2001:db8:0:2::1"}, "2001:db8:0:1::ffff"},
		{"a /56", []string{"2001:db8:0:11::1", "2001:db8:0:12::1", "2001:db8:0:13::1"}, []string{"2001:db8:0:14::1", "2001:db8:0:100::1"}, "2001:db8:0:15::1"},
		{"a /48", thirteenTo56(), []string{"2001:db8:0:fff1::1", "2001:db8:1::1"}, "2001:db8:0:ffe0::1"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			w := newWorld(t, limited(session.Limits{PerAddress: 1}))
			w.config.Defaults.OnSessionLimit.PerIPAddress = config.EvictOldest
			var ann []session.View
			for i := len(tt.ann) - 1; i >= 0; i-- { // who is not to be evicted is older
				v, _ := w.issued("ann", from(tt.ann[i]))
				ann = append(ann, v)
				w.advance(1)
			}
			var others []string
			for _, a := range tt.others {
				_, token := w.issued("bob", from(a))
				others = append(others, token)
			}
			v, _ := w.issued("ann", from(tt.comes))
			w.evicted(ann[1].Handle, config.LimitPerIPAddress, v.Handle)
			if _, ok := w.Living(session.Reach{All: true}, ann[0].Handle); !ok {
				t.Error("one of another network made room")
			}
			for _, token := range others {
				if !w.lives(token) {
					t.Error("another account's session made room")
				}
			}
			w.recount()
		})
	}
}

// thirteenTo56 are fifteen addresses that leave one place in a /48.
func thirteenTo56() (all []string) {
	for i := range 15 {
		all = append(all, fmt.Sprintf("2001:db8:0:%x::1", (i+1)<<8))
	}
	return all
}

// Where there are not enough who may go, nobody goes.
func TestNobodyGoesInVain(t *testing.T) {
	for _, tt := range []struct {
		why     string
		limits  session.Limits
		prepare func(w *world)
		code    api.Code
		options []option
	}{
		{"all are of others", session.Limits{Total: 2}, func(w *world) { w.issued("bob"); w.issued("carol") }, api.SessionLimitReached, nil},
		{"all are keys", session.Limits{PerAccount: 2}, func(w *world) { w.issued("ann", permanent); w.issued("ann", permanent) }, api.SessionLimitPerUsername, nil},
		{"not enough, since it was lowered", session.Limits{Total: 2}, func(w *world) {
			w.config.Defaults.MaxSessions = 0
			for range 3 {
				w.issued("bob")
				w.issued("ann")
			}
			w.config.Defaults.MaxSessions = 2
		}, api.SessionLimitReached, nil},
		{"who comes is a key", session.Limits{PerAccount: 2}, func(w *world) { w.issued("ann"); w.issued("ann") }, api.SessionLimitPerUsername, []option{permanent}},
		{"the second limit has nobody", session.Limits{Total: 3, PerAddress: 2}, func(w *world) {
			w.issued("bob", from("192.0.2.1"))
			w.issued("bob", from("192.0.2.1"))
			w.issued("ann", from("192.0.2.2"))
		}, api.SessionLimitPerIPAddress, []option{from("192.0.2.1")}},
	} {
		for _, policy := range []string{config.EvictOldest, config.EvictAll} {
			t.Run(tt.why+" "+policy, func(t *testing.T) {
				w := newWorld(t, limited(tt.limits))
				w.config.Defaults.OnSessionLimit = config.OnLimit{Total: policy, PerIPAddress: policy, PerUsername: policy, PerClient: policy}
				tt.prepare(w)
				before := w.Count()
				_, _, err := w.issue("ann", tt.options...)
				if codeOf(err) != tt.code || w.Count() != before {
					t.Errorf("%v, and %d live of %d", err, w.Count(), before)
				}
				w.recount()
			})
		}
	}
}

// A limit that was lowered by far: all who are too many go, and tell who came.
func TestALoweredLimit(t *testing.T) {
	for _, policy := range []string{config.EvictOldest, config.EvictLeastRecentlyUsed, config.EvictNextToExpire, config.EvictAll} {
		for _, fault := range []struct {
			why string
			err error
		}{{"", nil}, {"refused", store.ErrFull}, {"tried twice", store.ErrConflict}} {
			t.Run(policy+" "+fault.why, func(t *testing.T) {
				inner := mem.New()
				h := &hook{Store: inner}
				w := newWorldOn(t, unlimited(), inner, h)
				var old []session.View
				for range 100 {
					v, _ := w.issued("ann")
					old = append(old, v)
					w.advance(1)
				}
				w.config.Defaults.MaxSessionsPerUsername, w.config.Defaults.OnSessionLimit.PerUsername = 10, policy
				faults := 0
				h.before = func(tx *store.Tx) error {
					if fault.err == nil || !puts(tx, session.LiveKeys) || errors.Is(fault.err, store.ErrConflict) && faults > 0 {
						return nil
					}
					faults++
					return fault.err
				}
				v, _, err := w.issue("ann")
				if errors.Is(fault.err, store.ErrFull) {
					if !errors.Is(err, store.ErrFull) || w.Count() != 100 || w.keys(session.EndKeys) != 0 {
						t.Fatalf("%v, and %d live, %d ends: nobody came, so nobody goes", err, w.Count(), w.keys(session.EndKeys))
					}
					h.before = nil
					v, _, err = w.issue("ann")
				}
				if err != nil {
					t.Fatal(err)
				}
				gone := old[:91]
				if policy == config.EvictAll {
					gone = old
				}
				if n := w.Count(); n != int64(101-len(gone)) {
					t.Errorf("%d live", n)
				}
				for i := range gone {
					w.evicted(gone[i].Handle, config.LimitPerUsername, v.Handle)
				}
				w.recount()
				w.maintain()
				w.restart()
				w.recount()
				if n := w.Count(); n != int64(101-len(gone)) {
					t.Errorf("%d live after a restart", n)
				}
			})
		}
	}
}

// Each one who goes tells of the limit that he went for.
func TestTwoLoweredLimits(t *testing.T) {
	w := newWorld(t, unlimited())
	var old []session.View
	for range 60 {
		v, _ := w.issued("ann")
		old = append(old, v)
		w.advance(1)
	}
	d := &w.config.Defaults
	d.MaxSessions, d.MaxSessionsPerUsername = 56, 10
	d.OnSessionLimit = config.OnLimit{Total: config.EvictOldest, PerUsername: config.EvictOldest}
	v, _ := w.issued("ann")
	for i := range 51 {
		limit := config.LimitTotal
		if i >= 5 {
			limit = config.LimitPerUsername
		}
		w.evicted(old[i].Handle, limit, v.Handle)
	}
	w.recount()
}

// An end that is under way makes room before a session that lives does.
func TestWhoIsEndingGoesFirst(t *testing.T) {
	for _, policy := range []string{config.EvictOldest, config.EvictLeastRecentlyUsed, config.EvictNextToExpire} {
		inner := mem.New()
		h := &hook{Store: inner}
		w := newWorldOn(t, limited(session.Limits{PerAccount: 3}), inner, h)
		w.config.Defaults.OnSessionLimit.PerUsername = policy
		_, first := w.issued("ann", lifetime(60))
		w.advance(1)
		_, second := w.issued("ann", lifetime(120))
		w.advance(1)
		third, _ := w.issued("ann", lifetime(600))
		h.before = refuse(session.EndKeys, store.ErrFull)
		if done, err := w.end(third.Handle); done || err == nil {
			t.Fatalf("end: %v, %v", done, err)
		}
		h.before = nil
		v, _ := w.issued("ann")
		if !w.lives(first) || !w.lives(second) {
			t.Errorf("%s: one that lives made room, though one was dead already", policy)
		}
		w.evicted(third.Handle, config.LimitPerUsername, v.Handle)
		w.recount()
	}
}

// However many come at once where the oldest makes room, everybody gets in, the
// limit is exact at each moment, and who went has a successor.
func TestEvictionsAreExact(t *testing.T) {
	const clients = 200
	for _, tt := range []struct {
		why  string
		on   config.OnLimit
		most session.Limits
		n    int // who live in the end
	}{
		{"per user name", config.OnLimit{PerUsername: config.EvictOldest}, session.Limits{PerAccount: 10}, 10},
		{"per user name, one", config.OnLimit{PerUsername: config.EvictOldest}, session.Limits{PerAccount: 1}, 1},
		{"per user name, the least recently used", config.OnLimit{PerUsername: config.EvictLeastRecentlyUsed}, session.Limits{PerAccount: 10}, 10},
		{"per user name, the next to expire", config.OnLimit{PerUsername: config.EvictNextToExpire}, session.Limits{PerAccount: 10}, 10},
		{"per address", config.OnLimit{PerIPAddress: config.EvictOldest}, session.Limits{PerAddress: 10}, 10},
		{"total", config.OnLimit{Total: config.EvictOldest}, session.Limits{Total: 10}, 10},
		{"all of them", config.OnLimit{Total: config.EvictOldest, PerIPAddress: config.EvictOldest, PerUsername: config.EvictOldest}, session.Limits{Total: 10, PerAddress: 7, PerAccount: 5}, 5},
	} {
		for _, before := range []int{0, tt.n} {
			t.Run(fmt.Sprint(tt.why, " of ", before), func(t *testing.T) {
				inner := mem.New()
				h := &hook{Store: inner}
				w := newWorldOn(t, limited(tt.most), inner, h)
				w.config.Defaults.OnSessionLimit = tt.on
				var mu sync.Mutex
				var all []api.ID
				for range before {
					v, _ := w.issued("ann", from("192.0.2.1"))
					all = append(all, v.Handle)
				}
				got := w.crowd(clients, api.OK, func(w *world, _ int) error {
					v, _, err := w.issue("ann", from("192.0.2.1"))
					if n := w.keys(session.LiveKeys) - w.keys(session.EndKeys); n > tt.n {
						t.Errorf("%d live, the limit is %d", n, tt.n)
					}
					if err == nil {
						mu.Lock()
						defer mu.Unlock()
						all = append(all, v.Handle)
					}
					return err
				})
				if got != clients {
					t.Errorf("%d of %d got in", got, clients)
				}
				for _, restart := range []bool{false, true} {
					if restart {
						w.restart()
					}
					if n := w.Count(); n != int64(tt.n) {
						t.Errorf("%d live, want %d", n, tt.n)
					}
					w.recount()
					w.succeeded(all)
					w.maintain()
				}
			})
		}
	}
}

// succeeded says of sessions that each lives, or made room for another of them.
func (w *world) succeeded(all []api.ID) {
	w.t.Helper()
	for _, h := range all {
		v, err := w.Get(w.ctx(), h)
		if err != nil {
			w.t.Errorf("%s: %v", h, err)
			continue
		}
		if v.Live {
			continue
		}
		by, ok := session.ParseHandle(v.End.By)
		if v.Status() != session.Replaced || !strings.HasPrefix(v.End.Reason, "maxJsonApiSessions") || !ok || !slices.Contains(all, by) {
			w.t.Errorf("%s is %s for %q by %s", h, v.Status(), v.End.Reason, v.End.By)
		}
	}
}

// Nobody goes for a log-in that surely failed; where nobody knows, who went has a
// successor.
func TestEvictionsOfFailedLogins(t *testing.T) {
	for _, plan := range []faultstore.Plan{
		{Op: faultstore.Commit, Err: store.ErrFull}, {Op: faultstore.Commit, Err: store.ErrBusy}, {Op: faultstore.Commit, Err: store.ErrStopped},
		{Op: faultstore.Commit, Err: store.ErrConflict}, {Op: faultstore.Commit}, {Op: faultstore.Commit, After: true}, {Op: faultstore.Get},
	} {
		calls := 6
		if plan.Op == faultstore.Get {
			calls = 80
		}
		for n := range calls { // some of them after the log-in
			inner := mem.New()
			w := newWorldOn(t, unlimited(), inner, inner)
			var all []api.ID
			for range 34 {
				v, _ := w.issued("ann")
				all = append(all, v.Handle)
				w.advance(1)
			}
			w.config.Defaults.MaxSessionsPerUsername, w.config.Defaults.OnSessionLimit.PerUsername = 2, config.EvictOldest
			w.Close()
			faulty := faultstore.New(inner, faultstore.Plan{})
			w.store = faulty
			w.open()
			plan.Call = faulty.Calls(plan.Op) + n + 1
			w.Close()
			w.store = faultstore.New(inner, plan)
			w.open()
			v, _, err := w.issue("ann")
			w.recount()
			switch ends := w.keys(session.EndKeys); {
			case err == nil:
				if n := len(w.OfAccount(v.AccountID)); n != 2 {
					t.Errorf("%+v: %d live", plan, n)
				}
				next, _, err := w.issue("ann") // has those make room whose end was refused
				if err != nil {
					break // the fault came now
				}
				if n := w.Count(); n != 2 {
					t.Errorf("%+v: %d live when another one has come", plan, n)
				}
				all = append(all, v.Handle, next.Handle)
			case store.NotApplied(err) && (ends != 0 || w.Count() != 34):
				t.Errorf("%+v: %v, and %d ended", plan, err, ends)
			case errors.Is(err, store.ErrUnknown) && ends != 0:
				w.recount()
				if w.keys(session.LiveKeys) != 35 {
					t.Errorf("%+v: %d ended and nobody came", plan, ends)
				}
			}
			w.store = inner
			w.restart()
			w.recount()
			if len(all) > 34 {
				w.succeeded(all)
			}
			if w.Close(); t.Failed() {
				return
			}
		}
	}
}

// Log-ins, log-outs, expiries and uses at once, under every policy.
func TestEvictionsInATurmoil(t *testing.T) {
	for _, policy := range []string{config.EvictOldest, config.EvictLeastRecentlyUsed, config.EvictNextToExpire, config.EvictAll} {
		t.Run(policy, func(t *testing.T) {
			w := newWorld(t, limited(session.Limits{Total: 30, PerAddress: 9, PerAccount: 7}))
			w.config.Defaults.MaxSessionsPerClient = 3
			w.config.Defaults.OnSessionLimit = config.OnLimit{Total: policy, PerIPAddress: policy, PerUsername: policy, PerClient: policy}
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					user, address := fmt.Sprint("user", i%3), from(fmt.Sprintf("2001:db8:0:%x::1", i%4))
					for n := range 40 {
						options := []option{address, idle(int64(3 + n%5))}
						if n%13 == 0 {
							options = append(options, permanent)
						}
						v, token, err := w.issue(user, options...)
						switch codeOf(err) {
						case api.OK:
						case api.SessionLimitReached, api.SessionLimitPerIPAddress, api.SessionLimitPerUsername:
							continue
						default:
							t.Errorf("create: %v", err)
							continue
						}
						caller, ok := w.Authenticate(token, true)
						if n%3 == 0 && ok && !v.Permanent {
							if _, _, err := w.issue(user, address, joins(&caller)); err != nil && codeOf(err) == api.Internal && !store.NotApplied(err) {
								t.Errorf("join: %v", err)
							}
						}
						if n%4 == 0 || v.Permanent {
							if _, err := w.end(v.Handle); err != nil {
								t.Errorf("end: %v", err)
							}
						}
						if n%5 == 0 {
							w.advance(1)
						}
						if n%7 == 0 {
							if err := w.Maintain(t.Context()); err != nil && !errors.Is(err, store.ErrConflict) {
								t.Errorf("maintain: %v", err)
							}
						}
					}
				})
			}
			wg.Wait()
			w.recount()
			living := w.Count()
			if living > 30 {
				t.Errorf("%d live", living)
			}
			w.maintain()
			w.restart()
			w.recount()
			if n := w.Count(); n != living {
				t.Errorf("%d live after a restart, %d before", n, living)
			}
		})
	}
}

// An operator has five places more, and beyond those makes room as everybody does.
func TestEvictionsOfOperators(t *testing.T) {
	w := newWorld(t, limited(session.Limits{PerAccount: 2}))
	w.config.Defaults.OnSessionLimit.PerUsername = config.EvictOldest
	w.account("olga", "operator")
	var all []session.View
	for range 9 {
		v, _, err := w.login("olga", rightPassword)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
		w.advance(1)
	}
	if n := w.Count(); n != 7 {
		t.Errorf("%d live", n)
	}
	w.evicted(all[0].Handle, config.LimitPerUsername, all[7].Handle)
	w.evicted(all[1].Handle, config.LimitPerUsername, all[8].Handle)
}

// What ends with a log-in anyway makes nobody else go.
func TestWhoLeavesMakesRoom(t *testing.T) {
	w := newWorld(t, limited(session.Limits{PerAccount: 2}))
	w.config.Defaults.MaxSessionsPerClient = 2
	w.config.Defaults.OnSessionLimit = config.OnLimit{PerUsername: config.EvictOldest}
	w.account("alice")
	first, token, err := w.login("alice", rightPassword)
	if err != nil {
		t.Fatal(err)
	}
	caller, _ := w.Authenticate(token, true)
	second, _, err := w.login("alice", rightPassword, joins(&caller))
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := w.login("alice", rightPassword, func(n *session.NewSession) {
		n.Instead = &session.Caller{Live: session.Live{Handle: second.Handle, AccountID: second.AccountID}}
		n.Inherit = func(old *session.Record) error { n.Client = old.ClientID(); return nil }
	})
	if err != nil {
		t.Fatal(err)
	}
	if !w.lives(token) || w.Count() != 2 {
		t.Error("who reauthenticates pushed another one out")
	}
	if v, err := w.Get(t.Context(), second.Handle); err != nil || v.End.Reason != session.ReasonReauthenticated {
		t.Errorf("%+v, %v", v.End, err)
	}
	changed, _, err := w.login("alice", rightPassword, joins(&caller), func(n *session.NewSession) { n.NewPassword = api.NewSecret(otherPassword) })
	if err != nil {
		t.Fatalf("a new password ends all others, so that there is a place: %v", err)
	}
	for _, h := range []api.ID{first.Handle, again.Handle} {
		if v, err := w.Get(t.Context(), h); err != nil || v.End.Reason != session.ReasonPasswordChanged {
			t.Errorf("%s: %+v, %v", h, v.End, err)
		}
	}
	if _, ok := w.Living(session.Reach{All: true}, changed.Handle); !ok || w.Count() != 1 {
		t.Errorf("%d live", w.Count())
	}
	w.recount()
}

package session_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
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
		{config.LimitPerUsername, 4, api.SessionLimitPerUsername},
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

// limit sets one limit and no other.
func (s *scene) limit(name string, most int64, policy string) {
	d := &s.config.Defaults
	*d = unlimited().Defaults
	switch name {
	case config.LimitTotal:
		d.MaxSessions, d.OnSessionLimit.Total = most, policy
	case config.LimitPerIPAddress:
		d.MaxSessionsPerIPAddress, d.OnSessionLimit.PerIPAddress = most, policy
	case config.LimitPerUsername:
		d.MaxSessionsPerUsername, d.OnSessionLimit.PerUsername = most, policy
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
			for _, address := range slices.Backward(tt.ann) { // who is not to be evicted is older
				v, _ := w.issued("ann", from(address))
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

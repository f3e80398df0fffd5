package session_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
)

// The keeper, its table and its maintenance against a map that knows nothing of
// any of them: after each step both agree on who lives, and counts, lists and
// limits are right.
func TestKeeperBehavesLikeAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		t.Repeat(map[string]func(*rapid.T){
			"issue":       m.issue,
			"log in":      m.login,
			"use":         m.use,
			"use wrongly": m.useWrongly,
			"alter":       m.alter,
			"end":         m.end,
			"end again":   m.end,
			"end account": m.endAccount,
			"raise epoch": m.raise,
			"wait":        m.wait,
			"clock back":  m.back,
			"maintain":    func(*rapid.T) { m.w.maintain() },
			"sweep":       func(t *rapid.T) { m.part(t) },
			"look aside":  m.secondKeeper,
			"restart":     m.restart,
			"":            m.check,
		})
	})
}

// A modelled session; times are Unix seconds.
type modelled struct {
	handle    api.ID
	token     string
	realm     string
	user      string
	address   string // what it counts by; empty: nothing
	permanent bool
	idle      int64
	wall      int64
	used      int64
	epochs    session.Epochs
	altered   int
	dead      session.Status // by its end; 0: not ended
	reason    string
}

type epochs struct{ temporary, all uint64 }

func (e *epochs) of(permanent bool) uint64 {
	if permanent {
		return e.all
	}
	return e.temporary
}

func (e *epochs) rise(all bool) {
	e.temporary++
	if all {
		e.all++
	}
}

type model struct {
	w        *world
	now      int64
	sessions []*modelled
	server   epochs
	realms   map[string]*epochs
	accounts map[string]*epochs // by realm/user
}

var modelLimits = session.Limits{Total: 9, PerAddress: 4, PerAccount: 3}

func newModel(t *rapid.T) *model {
	w := newWorld(t, limited(modelLimits))
	w.account("alice")
	w.account("oscar", "operator")
	return &model{
		w: w, now: w.unix(),
		realms:   map[string]*epochs{"native": {}, "web": {}},
		accounts: map[string]*epochs{},
	}
}

func (m *model) account(realm, user string) *epochs {
	key := realm + "/" + user
	if m.accounts[key] == nil {
		m.accounts[key] = &epochs{}
	}
	return m.accounts[key]
}

func (m *model) lives(s *modelled) bool {
	status, _ := m.status(s)
	return status == session.Active
}

// status returns where a session stands and why.
func (m *model) status(s *modelled) (session.Status, string) {
	switch {
	case s.dead != 0:
		return s.dead, s.reason
	case s.wall != 0 && m.now >= s.wall && (s.idle == 0 || s.wall <= s.used+s.idle):
		return session.Expired, session.ReasonLifetime
	case s.idle != 0 && m.now >= s.used+s.idle:
		return session.Expired, session.ReasonIdle
	case s.epochs != (session.Epochs{Server: m.server.of(s.permanent), Realm: m.realms[s.realm].of(s.permanent), Account: m.account(s.realm, s.user).of(s.permanent)}):
		return session.Revoked, ""
	}
	return session.Active, ""
}

// settle fixes the deaths of the moment, so that what comes later does not
// change their causes.
func (m *model) settle() {
	for _, s := range m.sessions {
		if s.dead == 0 {
			if status, reason := m.status(s); status != session.Active {
				s.dead, s.reason = status, reason
			}
		}
	}
}

func (m *model) count(of func(*modelled) bool) (n int64) {
	for _, s := range m.sessions {
		if m.lives(s) && of(s) {
			n++
		}
	}
	return n
}

// refusal returns the limit that keeps a session out; 0 none.
func (m *model) refusal(s *modelled, reserve int64) api.Code {
	total := m.count(func(*modelled) bool { return true })
	address := m.count(func(o *modelled) bool { return s.address != "" && o.address == s.address })
	switch {
	case total >= modelLimits.Total+reserve:
		return api.SessionLimitReached
	case address >= modelLimits.PerAddress+reserve:
		return api.SessionLimitPerIPAddress
	case m.count(func(o *modelled) bool { return o.realm == s.realm && o.user == s.user }) >= modelLimits.PerAccount+reserve:
		return api.SessionLimitPerUsername
	}
	return api.OK
}

func (m *model) issue(t *rapid.T) {
	m.create(t, &modelled{realm: "web", user: rapid.SampledFrom([]string{"ann", "bob", "cat"}).Draw(t, "user")}, 0, m.w.issue)
}

func (m *model) login(t *rapid.T) {
	s := &modelled{realm: "native", user: rapid.SampledFrom([]string{"alice", "oscar"}).Draw(t, "user")}
	reserve := int64(0)
	if s.user == "oscar" {
		reserve = 5
	}
	m.create(t, s, reserve, func(username string, options ...option) (session.View, string, error) {
		return m.w.login(username, rightPassword, options...)
	})
}

func (m *model) create(t *rapid.T, s *modelled, reserve int64, do func(string, ...option) (session.View, string, error)) {
	address := rapid.SampledFrom([]string{"", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"}).Draw(t, "address")
	s.permanent = rapid.Bool().Draw(t, "permanent")
	if !s.permanent {
		s.address = map[bool]string{true: "2001:db8::/64", false: address}[len(address) > 10]
	}
	s.idle = rapid.SampledFrom([]int64{0, 1, 7, 60, 600}).Draw(t, "idle")
	max := rapid.SampledFrom([]int64{0, 100, 1000}).Draw(t, "lifetime")
	options := []option{idle(s.idle), lifetime(max), func(n *session.NewSession) { n.Permanent = s.permanent }}
	if address != "" {
		options = append(options, from(address))
	}
	want := m.refusal(s, reserve)
	v, token, err := do(s.user, options...)
	if codeOf(err) != want {
		t.Fatalf("create for %s from %q: %v, want %d", s.user, address, err, want)
	}
	if err != nil {
		return
	}
	s.handle, s.token, s.used = v.Handle, token, m.now
	if max != 0 {
		s.wall = m.now + max
	}
	s.epochs = session.Epochs{Server: m.server.of(s.permanent), Realm: m.realms[s.realm].of(s.permanent), Account: m.account(s.realm, s.user).of(s.permanent)}
	if !v.Live || v.Permanent != s.permanent || v.MaxAt != s.wall || v.Username != s.user {
		t.Fatalf("created as %+v", v)
	}
	m.sessions = append(m.sessions, s)
}

func (m *model) any(t *rapid.T) *modelled {
	if len(m.sessions) == 0 {
		t.Skip("nobody is in")
	}
	return rapid.SampledFrom(m.sessions).Draw(t, "session")
}

func (m *model) use(t *rapid.T) {
	s, touch := m.any(t), rapid.Bool().Draw(t, "touch")
	want := m.lives(s)
	if rapid.Bool().Draw(t, "by handle") {
		m.w.Touch(s.handle)
		touch = true
	} else if _, ok := m.w.Authenticate(s.token, touch); ok != want {
		t.Fatalf("authenticated: %v, want %v", ok, want)
	}
	if want && touch {
		s.used = m.now
	}
}

// useWrongly shows the secret of another session.
func (m *model) useWrongly(t *rapid.T) {
	s, other := m.any(t), m.any(t)
	if s == other || s.permanent != other.permanent {
		t.Skip("the same")
	}
	if m.w.lives(withChecksum(s.token[:28] + other.token[28:58])) {
		t.Fatalf("in with the secret of another")
	}
}

func (m *model) alter(t *rapid.T) {
	s := m.any(t)
	to := rapid.SampledFrom([]int64{0, 1, 7, 60, 600}).Draw(t, "idle")
	want := m.lives(s)
	v, err := m.w.Alter(t.Context(), s.handle, event.Actor{}, func(r *session.Record) error {
		r.IdleSeconds = to
		r.MaxSeconds *= 2 // which is a wall
		return nil
	})
	if (err == nil) != want || err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("altered: %v, want %v", err, want)
	}
	if want {
		s.idle = to
		s.altered++
		if v.Revision != uint64(s.altered)+1 {
			t.Fatalf("revision %d after %d alterations", v.Revision, s.altered)
		}
	}
	m.settle() // a shorter idle time may be over already
}

func (m *model) end(t *rapid.T) {
	s := m.any(t)
	want := m.lives(s)
	done, err := m.w.end(s.handle)
	if done != want || err != nil {
		t.Fatalf("ended: %v, %v, want %v", done, err, want)
	}
	if want {
		s.dead, s.reason = session.Ended, session.ReasonLogout
	}
}

func (m *model) endAccount(t *rapid.T) {
	s := m.any(t)
	permanent := rapid.Bool().Draw(t, "keys too")
	how := &session.AccountChange{Reason: "spring cleaning"}
	var spared *modelled
	if m.lives(s) && rapid.Bool().Draw(t, "spare") {
		spared = s
		c, _ := m.w.Authenticate(s.token, false)
		how.Spare = &c
	}
	want := 0
	for _, o := range m.sessions {
		if m.lives(o) && o.realm == s.realm && o.user == s.user && (permanent || !o.permanent) && o != spared {
			o.dead = session.Revoked
			want++
		}
	}
	if n, err := m.w.EndAccount(t.Context(), s.realm, s.user, permanent, how); n != want || err != nil {
		t.Fatalf("ended %d, %v, want %d", n, err, want)
	}
	m.account(s.realm, s.user).rise(permanent)
	if spared != nil {
		spared.epochs.Account = m.account(s.realm, s.user).of(spared.permanent)
	}
}

func (m *model) raise(t *rapid.T) {
	permanent := rapid.Bool().Draw(t, "keys too")
	key, e := session.ServerEpoch, &m.server
	if realm := rapid.SampledFrom([]string{"", "web", "native"}).Draw(t, "realm"); realm != "" {
		key, e = session.RealmEpoch(realm), m.realms[realm]
	}
	m.w.raise(key, permanent)
	e.rise(permanent)
	m.settle()
}

func (m *model) wait(t *rapid.T) {
	seconds := rapid.SampledFrom([]int64{1, 1, 3, 6, 59, 60, 100, 599, 5000}).Draw(t, "seconds")
	m.w.advance(seconds)
	m.now = max(m.now, m.w.unix())
	m.settle()
}

func (m *model) back(t *rapid.T) {
	m.w.advance(-rapid.Int64Range(1, 100).Draw(t, "seconds"))
}

// part does a part of the maintenance.
func (m *model) part(t *rapid.T) {
	parts := []func() error{
		func() error { return m.w.Sweep(t.Context()) },
		func() error { return m.w.FoldEnds(t.Context()) },
		func() error { return m.w.FlushTouches(t.Context()) },
		func() error { return m.w.FoldTouches(t.Context()) },
	}
	if err := rapid.SampledFrom(parts).Draw(t, "part")(); err != nil {
		t.Fatalf("maintain: %v", err)
	}
}

// secondKeeper compares what another keeper loads from the same store.
func (m *model) secondKeeper(t *rapid.T) {
	first := m.w.Keeper
	m.reload(t)
	second := m.w.Keeper
	m.w.Keeper = first
	second.Close()
}

// restart goes on with what was loaded.
func (m *model) restart(t *rapid.T) {
	m.w.Close()
	for _, s := range m.reload(t) {
		s.used = m.used(t, s)
	}
	m.settle()
}

// reload opens another keeper, as a process does that begins now, and returns
// the sessions of which the last use was not written: they may be dead for it,
// but only where that use would have kept them alive.
func (m *model) reload(t *rapid.T) (behind []*modelled) {
	m.w.advance(m.now - m.w.unix())
	if err := m.w.FlushTouches(t.Context()); err != nil {
		t.Fatalf("flush: %v", err)
	}
	was := m.w.Keeper
	m.w.open()
	if err := m.w.Table().Recount(); err != nil {
		t.Fatalf("after loading: %v", err)
	}
	alive := int64(0)
	for _, s := range m.sessions {
		live, ok := m.w.Authenticate(s.token, false)
		if ok {
			alive++
		}
		want, wantOK := was.Authenticate(s.token, false)
		late := want.LastAccess - live.LastAccess
		switch {
		case ok && !wantOK:
			t.Fatalf("%s revives", s.handle)
		case !ok && wantOK:
			// Its last use that was written lies so far back that it is idle.
			if used := m.used(t, s); s.idle == 0 || used+s.idle > m.now || used+was.Accuracy(s.idle) < s.used {
				t.Fatalf("%s is lost: used %d s ago, %d s ago as written", s.handle, m.now-s.used, m.now-used)
			}
			behind = append(behind, s)
		case ok && (late < 0 || late > was.Accuracy(s.idle)):
			t.Fatalf("%s was used %d s later than is known", s.handle, late)
		case ok:
			if late > 0 {
				behind = append(behind, s)
			}
			if want.IdleAt != 0 {
				want.IdleAt -= late
			}
			want.LastAccess, want.Settings, live.Settings = live.LastAccess, nil, nil
			if want != live {
				t.Fatalf("loaded as %+v, was %+v", live, want)
			}
		}
	}
	if n := m.w.Count(); n != alive {
		t.Fatalf("%d are counted after loading, %d live", n, alive)
	}
	return behind
}

// used returns a session's last use as the store has it.
func (m *model) used(t *rapid.T, s *modelled) int64 {
	view, err := m.w.Get(t.Context(), s.handle)
	if err != nil {
		t.Fatalf("%s: %v", s.handle, err)
	}
	return view.LastAccess
}

// check is what holds after every step.
func (m *model) check(t *rapid.T) {
	lists := map[api.ID][]api.ID{}
	living := int64(0)
	for _, s := range m.sessions {
		status, reason := m.status(s)
		live, ok := m.w.Authenticate(s.token, false)
		if ok != (status == session.Active) {
			t.Fatalf("%s of %s lives: %v, want %v", s.handle, s.user, ok, !ok)
		}
		view, err := m.w.Get(t.Context(), s.handle)
		if status == session.Revoked && view.Status() == session.Expired {
			status = session.Expired // both, before anybody swept: when an epoch rose is known of the last time only
		}
		if err != nil || view.Status() != status || view.Live != ok || reason != "" && view.End.Reason != reason {
			t.Fatalf("%s is shown as %v for %q, %v, want %v for %q", s.handle, view.Status(), view.End.Reason, err, status, reason)
		}
		if !ok {
			continue
		}
		living++
		lists[live.AccountID] = append(lists[live.AccountID], s.handle)
		idleAt := int64(0)
		if s.idle != 0 {
			idleAt = s.used + s.idle
		}
		if live.LastAccess != s.used || live.IdleAt != idleAt || live.MaxAt != s.wall || live.Permanent != s.permanent {
			t.Fatalf("it is %+v, want %+v", live, s)
		}
		if roles := fmt.Sprint(view.Roles, view.RealmRoles); roles != map[string]string{"alice": "[] []", "oscar": "[operator] []"}[s.user] && roles != "[] [shopper]" {
			t.Fatalf("%s has the roles %s", s.user, roles)
		}
	}
	if n := m.w.Count(); n != living {
		t.Fatalf("%d are counted, %d live", n, living)
	}
	for account, want := range lists {
		var got []api.ID
		for _, live := range m.w.OfAccount(account) {
			got = append(got, live.Handle)
		}
		slices.SortFunc(want, func(a, b api.ID) int { return cmp.Compare(string(a[:]), string(b[:])) })
		if !slices.Equal(got, want) {
			t.Fatalf("the account's list is %v, want %v", got, want)
		}
	}
	if err := m.w.Table().Recount(); err != nil {
		t.Fatalf("the table's counts: %v", err)
	}
}

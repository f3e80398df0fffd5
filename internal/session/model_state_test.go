package session_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
)

// A model is what a keeper should know, with the keeper. Times are Unix seconds.
type model struct {
	w        *world
	reopen   opener
	seen     tally
	taken    int   // steps
	now      int64 // the latest that the clock has shown
	sessions []*modelled
	server   epochs
	realms   map[string]*epochs
	accounts map[string]*modelAccount // by realm/user
	ids      map[api.ID]*modelAccount
	keys     map[repetition]*modelled // made by a log-in that can be repeated
	tickets  []*modelTicket
	clients  map[api.ID]*modelClient
}

type modelAccount struct {
	id       api.ID // zero: there is none yet, or no more
	epochs   epochs
	disabled bool

	passwords int // that it has had
}

type repetition struct {
	of  *modelAccount
	key string
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

// A modelled session.
type modelled struct {
	handle     api.ID
	tokens     []modelToken // the newest first
	realm      string
	user       string
	of         *modelAccount
	address    string // what it counts by; empty: nothing
	permanent  bool
	idle       int64
	tolerance  int64
	abandon    int64
	created    int64
	wall       int64
	used       int64
	epochs     session.Epochs
	key        string
	clientOf   api.ID // what its client is named after; zero: itself
	revision   uint64
	properties map[string]string

	theft    bool         // a stolen token was shown, and nothing of that is written yet
	outdated *session.End // by which an epoch ended it first
	fixed    *session.End // it is written how it ended
	purged   bool
}

type modelToken struct {
	text  string
	until int64 // from when on it is good no more; of one that was replaced
	known bool  // it is known that the token was replaced
}

func newModel(t *rapid.T, reopen opener, seen tally) *model {
	s, err := reopen()
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	w := newWorldOn(t, modelConfig(t), s, s)
	t.Cleanup(func() { _ = w.inner.Close() })
	w.account("alice")
	w.account("oscar", "operator")
	m := &model{
		w: w, reopen: reopen, seen: seen, now: w.unix(), taken: -1, // it is checked before the first step
		realms: map[string]*epochs{"native": {}, "web": {}}, accounts: map[string]*modelAccount{}, ids: map[api.ID]*modelAccount{}, keys: map[repetition]*modelled{},
		clients: map[api.ID]*modelClient{},
	}
	return m
}

func (m *model) account(realm, user string) *modelAccount {
	key := realm + "/" + user
	if m.accounts[key] == nil {
		m.accounts[key] = &modelAccount{}
	}
	return m.accounts[key]
}

// end returns how a session ended, nil if it did not: as it is written, or by what
// came first.
func (m *model) end(s *modelled) *session.End {
	if s.fixed != nil {
		return s.fixed
	}
	expired := s.expiry(m.now)
	if expired != nil && (s.outdated == nil || expired.At <= s.outdated.At) {
		return expired
	}
	return s.outdated
}

func (s *modelled) expiry(now int64) *session.End {
	idle := s.used + s.idle + s.tolerance
	switch {
	case s.wall != 0 && now >= s.wall && (s.idle == 0 || s.wall <= idle):
		return &session.End{Status: session.Expired, At: s.wall, Reason: session.ReasonLifetime}
	case s.idle != 0 && now >= idle:
		return &session.End{Status: session.Expired, At: idle, Reason: session.ReasonIdle}
	}
	return nil
}

// holds reports whether a session takes a place of the limits: until its end is
// durable, or it is over by itself.
func (m *model) holds(s *modelled) bool { return m.end(s) == nil }

func (m *model) lives(s *modelled) bool { return m.holds(s) && !s.theft }

func (m *model) count(of func(*modelled) bool) (n int64) {
	for _, s := range m.sessions {
		if m.holds(s) && of(s) {
			n++
		}
	}
	return n
}

// good reports whether a token of a session is good, and has the effect of showing
// it.
func (m *model) good(s *modelled, token int) bool {
	switch old := s.tokens[token]; {
	case token == 0:
		return m.lives(s)
	case !old.known:
		m.seen.saw("validate old: forgotten")
		return false
	case m.now < old.until:
		return m.lives(s)
	case s.permanent:
		m.seen.saw("validate old: dead key")
	case m.lives(s):
		m.seen.saw("validate old: theft")
		s.theft = true
	}
	return false
}

func (m *model) any(t *rapid.T) *modelled {
	if len(m.sessions) == 0 {
		t.Skip("nobody is in")
	}
	return rapid.SampledFrom(m.sessions).Draw(t, "session")
}

// one is any, and rather one that has not ended.
func (m *model) one(t *rapid.T) *modelled {
	var present []*modelled
	for _, s := range m.sessions {
		if m.holds(s) {
			present = append(present, s)
		}
	}
	if len(present) == 0 || rapid.IntRange(0, 7).Draw(t, "any") == 7 {
		return m.any(t)
	}
	return rapid.SampledFrom(present).Draw(t, "present session")
}

// caller is who has the session.
func (s *modelled) caller() *session.Caller {
	return &session.Caller{Live: session.Live{Handle: s.handle, AccountID: s.of.id, Permanent: s.permanent}}
}

// GoString is how rapid shows a draw.
func (s *modelled) GoString() string {
	return fmt.Sprintf("%s of %s/%s (permanent: %v, idle %d, wall %d, used %d)", s.handle, s.realm, s.user, s.permanent, s.idle, s.wall, s.used)
}

func (s *modelled) text() string { return session.HandleText(s.handle) }

// check is what holds after every step.
func (m *model) check(t *rapid.T) {
	m.taken++
	lists := map[api.ID][]api.ID{}
	living := int64(0)
	for _, s := range m.sessions {
		if m.holds(s) {
			living++
		}
		if m.lives(s) {
			lists[s.of.id] = append(lists[s.of.id], s.handle)
		}
		m.checkTokens(t, s)
		m.checkView(t, s)
	}
	if n := m.w.Count(); n != living {
		t.Fatalf("%d are counted, %d live", n, living)
	}
	for account, want := range lists {
		var got []api.ID
		for _, live := range m.w.OfAccount(account) {
			got = append(got, live.Handle)
		}
		if sorted(want); !slices.Equal(got, want) {
			t.Fatalf("the account's list is %v, want %v", got, want)
		}
	}
	if err := m.w.Table().Recount(); err != nil {
		t.Fatalf("the table's counts: %v", err)
	}
}

func sorted(handles []api.ID) {
	slices.SortFunc(handles, func(a, b api.ID) int { return strings.Compare(string(a[:]), string(b[:])) })
}

// checkTokens shows those tokens that prove no theft.
func (m *model) checkTokens(t *rapid.T, s *modelled) {
	for i, token := range s.tokens {
		if i > 0 && token.known && m.now >= token.until && !s.permanent {
			continue
		}
		live, ok := m.w.Authenticate(token.text, false)
		if want := m.lives(s) && (i == 0 || token.known && m.now < token.until); ok != want {
			t.Fatalf("token %d of %s of %s is good: %v, want %v", i, s.handle, s.user, ok, want)
		}
		if !ok {
			continue
		}
		idleAt := int64(0)
		if s.idle != 0 {
			idleAt = s.used + s.idle
		}
		if live.Handle != s.handle || live.AccountID != s.of.id || live.LastAccess != s.used || live.IdleAt != idleAt || live.MaxAt != s.wall || live.Permanent != s.permanent {
			t.Fatalf("it is %+v, want %+v", live, s)
		}
	}
}

var modelRoles = map[string]string{"alice": "[] []", "oscar": "[operator] []"}

func (m *model) checkView(t *rapid.T, s *modelled) {
	view, err := m.w.Get(t.Context(), s.handle)
	if s.purged {
		if !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("%s is there after the retention: %v", s.handle, err)
		}
		return
	}
	if err != nil || view.Live != m.lives(s) {
		t.Fatalf("%s of %s lives: %v, %v", s.handle, s.user, view.Live, err)
	}
	if view.LastAccess != s.used || view.Revision != s.revision || !maps.Equal(view.Properties, s.properties) || view.Username != s.user || view.Created != s.created {
		t.Fatalf("%s is shown as %+v, want %+v", s.handle, view.Record, s)
	}
	end := m.end(s)
	switch {
	case end == nil && s.theft: // which is not written yet
		if view.End.Status != session.Revoked || view.End.Reason != session.ReasonTokenTheft {
			t.Fatalf("%s, whose token was stolen, ended as %+v", s.handle, view.End)
		}
	case end == nil:
		if roles := fmt.Sprint(view.Roles, view.RealmRoles); roles != modelRoles[s.user] && roles != "[] [shopper]" {
			t.Fatalf("%s has the roles %s", s.user, roles)
		}
	case view.End != *end:
		t.Fatalf("%s of %s ended as %+v, want %+v", s.handle, s.user, view.End, *end)
	}
	status := view.End.Status
	if view.Live {
		status = session.Active
	} else if status == session.Expired && s.abandon != 0 && m.now >= s.used+s.abandon {
		status = session.Abandoned
		m.seen.saw("shown as abandoned")
	}
	if view.Status() != status {
		t.Fatalf("%s is shown as %s, want %s", s.handle, view.Status(), status)
	}
}

// list compares what a scan finds.
func (m *model) list(t *rapid.T) {
	scan := session.Scan{Ended: rapid.Bool().Draw(t, "ended ones too"), Newest: rapid.Bool().Draw(t, "newest first")}
	m.seen.saw("list: %s", map[bool]string{true: "all", false: "living"}[scan.Ended])
	var want, got []api.ID
	for _, s := range m.sessions {
		if m.lives(s) || scan.Ended && !s.purged {
			want = append(want, s.handle)
		}
	}
	if sorted(want); scan.Newest {
		slices.Reverse(want)
	}
	err := m.w.Each(t.Context(), scan, func(v *session.View) bool {
		got = append(got, v.Handle)
		return true
	})
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("a scan %+v finds %v, %v, want %v", scan, got, err, want)
	}
}

package session_test

import (
	"errors"
	"maps"
	"slices"

	"pgregory.net/rapid"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
)

// What creates sessions.

var modelUsers = map[string][]string{"web": {"ann", "bob", "cat"}, "native": {"alice", "oscar"}}

// A wish is a session that is to be created, and how.
type wish struct {
	*modelled

	instead *modelled    // re-authentication of this one
	join    *modelled    // on the browser or device of this one
	ticket  *modelTicket // in place of the password, to end choice
	choice  *modelled
}

// leaving reports whether a session ends with the creation, whatever the limits say.
func (w *wish) leaving(s *modelled) bool { return s == w.instead || s == w.choice }

func (m *model) issue(t *rapid.T) { m.create(t, "issue", wish{modelled: m.newcomer(t, "web")}) }
func (m *model) login(t *rapid.T) { m.create(t, "log in", wish{modelled: m.newcomer(t, "native")}) }

func (m *model) newcomer(t *rapid.T, realm string) *modelled {
	s := &modelled{realm: realm, user: rapid.SampledFrom(modelUsers[realm]).Draw(t, "user")}
	s.key = rapid.SampledFrom([]string{"", "", "", "k", "l"}).Draw(t, "idempotency key")
	return s
}

// reauthenticate has a new session of the same account take an old one's place.
func (m *model) reauthenticate(t *rapid.T) {
	old := m.one(t)
	s := &modelled{realm: old.realm, user: old.user}
	if rapid.IntRange(0, 5).Draw(t, "another account") == 5 {
		s.user = rapid.SampledFrom(modelUsers[s.realm]).Draw(t, "user")
	}
	m.create(t, "reauthenticate", wish{modelled: s, instead: old})
}

// join has a new session join the browser or device of another one.
func (m *model) join(t *rapid.T) {
	other := m.one(t)
	if other.permanent {
		t.Skip("an API key is on none")
	}
	user := rapid.SampledFrom(modelUsers["native"]).Draw(t, "user")
	m.create(t, "join", wish{modelled: &modelled{realm: "native", user: user}, join: other})
}

// redeem goes on with a log-in that was refused with a ticket.
func (m *model) redeem(t *rapid.T) {
	if len(m.tickets) == 0 {
		t.Skip("there is no ticket")
	}
	ticket := m.tickets[len(m.tickets)-1]
	if rapid.IntRange(0, 3).Draw(t, "any") == 3 {
		ticket = rapid.SampledFrom(m.tickets).Draw(t, "ticket")
	}
	choice := m.one(t)
	if own := m.ofAccount(ticket.of); len(own) > 0 && rapid.IntRange(0, 3).Draw(t, "anybody's") < 3 {
		choice = rapid.SampledFrom(own).Draw(t, "choice")
	}
	m.create(t, "redeem", wish{modelled: &modelled{realm: ticket.realm, user: ticket.user}, ticket: ticket, choice: choice})
}

// create creates a session, if it may be.
func (m *model) create(t *rapid.T, op string, w wish) {
	s := w.modelled
	address := rapid.SampledFrom([]string{"192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2", ""}).Draw(t, "address")
	s.abandon = rapid.SampledFrom([]int64{0, 700}).Draw(t, "abandoned after")
	s.permanent = w.join == nil && rapid.IntRange(0, 2).Draw(t, "permanent") == 2
	if !s.permanent {
		s.tolerance = modelTolerance
		s.address = map[bool]string{true: "2001:db8::/64", false: address}[len(address) > 10]
	}
	s.idle = rapid.SampledFrom([]int64{0, 600, 60, 7, 1}).Draw(t, "idle")
	lifetime := rapid.SampledFrom([]int64{0, 100, 1000}).Draw(t, "lifetime")
	s.of = m.account(s.realm, s.user)
	s.properties = map[string]string{"theme": rapid.SampledFrom([]string{"dark", "light"}).Draw(t, "theme")}
	options := []option{idle(s.idle), func(n *session.NewSession) {
		n.Max, n.Abandon, n.Permanent, n.IdempotencyKey, n.Properties = lifetime, s.abandon, s.permanent, s.key, maps.Clone(s.properties)
		w.fill(n)
	}}
	if address != "" {
		options = append(options, from(address))
	}
	want := m.admits(&w)
	v, token, err := m.w.begin(s, options...)
	if codeOf(err) != want.code {
		t.Fatalf("%s for %s from %q: %v, want %d", op, s.user, address, err, want.code)
	}
	if m.refused(t, &w, err, want); err != nil {
		m.seen.saw("%s: %s", op, want.code.Info().Name)
		return
	}
	if (want.same != nil) != v.Repeated {
		t.Fatalf("%s for %s: repeated: %v", op, s.user, v.Repeated)
	}
	if v.Repeated {
		m.seen.saw("%s: repeated", op)
		m.repeated(t, want.same, &v, token)
		return
	}
	m.seen.saw("%s: ok", op)
	replaced := session.End{Status: session.Replaced, At: m.now, By: session.HandleText(v.Handle)}
	if w.instead != nil {
		s.properties = maps.Clone(w.instead.properties)
		m.replaced(w.instead, replaced, session.ReasonReauthenticated)
	}
	for _, e := range want.evicted {
		m.seen.saw("evicted: %s", e.policy)
		m.replaced(e.modelled, replaced, e.limit)
	}
	m.began(t, &w, &v, token)
	if lifetime != 0 {
		s.wall = m.now + lifetime
	}
	if !v.Live || v.Permanent != s.permanent || v.MaxAt != s.wall || v.Username != s.user {
		t.Fatalf("created as %+v", v)
	}
}

func (m *model) replaced(s *modelled, end session.End, reason string) {
	end.Reason = reason
	m.ended(s, end)
}

func (w *wish) fill(n *session.NewSession) {
	if w.instead != nil {
		n.Instead = w.instead.caller()
		n.Inherit = func(old *session.Record) error {
			n.Properties, n.Client = old.Properties, old.ClientID()
			return nil
		}
	}
	if w.join != nil {
		n.Join = w.join.caller()
	}
	if w.ticket != nil {
		n.Ticket, n.Choice, n.Password = w.ticket.text, w.choice.handle, api.Secret{}
	}
}

// begin creates a session in the way of its realm.
func (w *world) begin(s *modelled, options ...option) (session.View, string, error) {
	if s.realm == "web" {
		return w.issue(s.user, options...)
	}
	return w.login(s.user, rightPassword, options...)
}

// A verdict is what becomes of a creation.
type verdict struct {
	code    api.Code
	same    *modelled // the session that is made already
	evicted []evicted
	asks    bool // the refusal has a ticket
	late    bool // it is refused where a ticket has been taken
}

// admits returns what becomes of a creation, by the order in which it is looked at.
func (m *model) admits(w *wish) (v verdict) {
	s := w.modelled
	if made := m.keys[repetition{s.of, s.key}]; s.key != "" && made != nil && m.now < made.created+modelRepeats && m.lives(made) {
		v.same = made
	}
	first := m.reached(w, 5, w.leaving)
	if first != nil && !first.perAccount && !first.evicts() && (v.same == nil || s.of.disabled) { // a repetition takes no place
		return verdict{code: first.code}
	}
	switch {
	case w.ticket != nil && !m.isGood(w.ticket, s):
		return verdict{code: api.LoginFailed}
	case w.ticket != nil && (w.choice.purged || w.choice.of != s.of || w.choice.permanent):
		return verdict{code: api.NotFound}
	case s.of.disabled:
		return verdict{code: api.LoginFailed, late: true}
	case w.instead != nil && w.instead.of != s.of:
		return verdict{code: api.BadParam}
	case v.same != nil && v.same.permanent != s.permanent:
		return verdict{code: api.Conflict}
	case v.same != nil:
		return v
	case w.instead != nil && !m.lives(w.instead), w.join != nil && !m.lives(w.join):
		return verdict{code: api.InvalidAuthToken}
	}
	return m.makeRoom(w)
}

// began takes a new session over.
func (m *model) began(t *rapid.T, w *wish, v *session.View, token string) {
	s := w.modelled
	s.handle, s.created, s.used, s.revision = v.Handle, m.now, m.now, 1
	s.tokens = []modelToken{{text: token}}
	s.epochs = session.Epochs{Server: m.server.of(s.permanent), Realm: m.realms[s.realm].of(s.permanent), Account: s.of.epochs.of(s.permanent)}
	m.sessions = append(m.sessions, s)
	if s.key != "" {
		m.keys[repetition{s.of, s.key}] = s
	}
	if w.ticket != nil {
		w.ticket.good = false
	}
	m.settleOn(w)
	switch known := m.ids[v.AccountID]; {
	case known == s.of:
	case known != nil || !s.of.id.IsZero():
		t.Fatalf("%s has the account %s", s.user, v.AccountID)
	default:
		s.of.id, m.ids[v.AccountID] = v.AccountID, s.of
		m.renamed(s)
	}
}

// renamed notes that a dropped account's name is another one's, who changes nothing
// about how its sessions ended.
func (m *model) renamed(by *modelled) {
	for _, o := range m.sessions {
		if o.realm == by.realm && o.user == by.user && o.of != by.of {
			m.seen.saw("drop: created anew")
		}
	}
}

// repeated checks the answer to a log-in that was made already. Its former tokens,
// which nobody received, are nothing any more.
func (m *model) repeated(t *rapid.T, s *modelled, v *session.View, token string) {
	for i := range s.tokens {
		if s.tokens[i].known = false; s.tokens[i].text == token {
			t.Fatalf("a repeated log-in is answered an old token")
		}
	}
	s.tokens = slices.Insert(s.tokens, 0, modelToken{text: token})
	s.revision++
	if v.Handle != s.handle {
		t.Fatalf("a repeated log-in is answered %s, want %s", v.Handle, s.handle)
	}
}

// A modelTicket stands for a log-in that may go on.
type modelTicket struct {
	text   api.Secret
	realm  string
	user   string
	of     *modelAccount
	serial int // of the password
	until  int64
	good   bool // it was not used, and there is no newer one of the account
}

func (m *model) isGood(ticket *modelTicket, s *modelled) bool {
	return ticket.good && m.now < ticket.until && ticket.of == s.of && ticket.serial == s.of.passwords && !s.of.disabled
}

// refused follows what a refusal does to tickets.
func (m *model) refused(t *rapid.T, w *wish, err error, want verdict) {
	choice, asked := errors.AsType[*session.ChoiceError](err)
	if asked != want.asks {
		t.Fatalf("%s of %s is asked: %v", w.user, w.realm, err)
	}
	if w.ticket != nil && err != nil && (want.late || asked || w.ticket.of == w.of && want.code == api.LoginFailed) {
		w.ticket.good = false // it was taken, and is not given back
	}
	if !asked {
		return
	}
	m.seen.saw("asked")
	var got, listed []api.ID
	for _, v := range choice.Sessions {
		got = append(got, v.Handle)
	}
	for _, s := range m.ofAccount(w.of) {
		if m.lives(s) && !s.permanent {
			listed = append(listed, s.handle)
		}
	}
	if sorted(listed); !slices.Equal(got, listed) {
		t.Fatalf("to choose from are %v, want %v", got, listed)
	}
	for _, old := range m.tickets {
		if old.of == w.of {
			old.good = false
		}
	}
	m.tickets = append(m.tickets, &modelTicket{
		text: choice.Ticket, realm: w.realm, user: w.user, of: w.of, serial: w.of.passwords, until: m.now + modelTickets, good: true,
	})
}

var policies = []string{config.Deny, config.EvictOldest, config.EvictLeastRecentlyUsed, config.EvictNextToExpire, config.EvictAll}

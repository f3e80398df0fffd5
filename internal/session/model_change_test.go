package session_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
)

// What creates, uses and changes one session.

var modelUsers = map[string][]string{"web": {"ann", "bob", "cat"}, "native": {"alice", "oscar"}}

func (m *model) issue(t *rapid.T) { m.create(t, "issue", m.newcomer(t, "web"), nil) }
func (m *model) login(t *rapid.T) { m.create(t, "log in", m.newcomer(t, "native"), nil) }

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
	m.create(t, "reauthenticate", s, old)
}

// create creates a session as it was begun, if it may be.
func (m *model) create(t *rapid.T, op string, s, instead *modelled) {
	address := rapid.SampledFrom([]string{"192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2", ""}).Draw(t, "address")
	s.abandon = rapid.SampledFrom([]int64{0, 700}).Draw(t, "abandoned after")
	s.permanent = rapid.IntRange(0, 2).Draw(t, "permanent") == 2
	if !s.permanent {
		s.tolerance = modelTolerance
		s.address = map[bool]string{true: "2001:db8::/64", false: address}[len(address) > 10]
	}
	s.idle = rapid.SampledFrom([]int64{0, 600, 60, 7, 1}).Draw(t, "idle")
	lifetime := rapid.SampledFrom([]int64{0, 100, 1000}).Draw(t, "lifetime")
	s.of = m.account(s.realm, s.user)
	properties := map[string]string{"theme": rapid.SampledFrom([]string{"dark", "light"}).Draw(t, "theme")}
	options := []option{idle(s.idle), func(n *session.NewSession) {
		n.Max, n.Abandon, n.Permanent, n.IdempotencyKey, n.Properties = lifetime, s.abandon, s.permanent, s.key, properties
		if instead != nil {
			n.Instead = instead.caller()
			n.Inherit = func(old *session.Record) error {
				n.Properties = old.Properties
				return nil
			}
		}
	}}
	if address != "" {
		options = append(options, from(address))
	}
	want, same := m.admits(s, instead)
	v, token, err := m.w.begin(s, options...)
	if codeOf(err) != want {
		t.Fatalf("%s for %s from %q: %v, want %d", op, s.user, address, err, want)
	}
	if err != nil {
		m.seen.saw("%s: %s", op, want.Info().Name)
		return
	}
	if (same != nil) != v.Repeated {
		t.Fatalf("%s for %s: repeated: %v", op, s.user, v.Repeated)
	}
	if v.Repeated {
		m.seen.saw("%s: repeated", op)
		m.repeated(t, same, &v, token)
		return
	}
	m.seen.saw("%s: ok", op)
	if instead != nil {
		properties = instead.properties
		instead.fixed = &session.End{Status: session.Replaced, At: m.now, Reason: session.ReasonReauthenticated, By: session.HandleText(v.Handle)}
		m.seen.saw("died: replaced")
	}
	m.began(t, s, &v, token)
	s.properties = maps.Clone(properties)
	if lifetime != 0 {
		s.wall = m.now + lifetime
	}
	if !v.Live || v.Permanent != s.permanent || v.MaxAt != s.wall || v.Username != s.user {
		t.Fatalf("created as %+v", v)
	}
}

// begin creates a session in the way of its realm.
func (w *world) begin(s *modelled, options ...option) (session.View, string, error) {
	if s.realm == "web" {
		return w.issue(s.user, options...)
	}
	return w.login(s.user, rightPassword, options...)
}

// admits returns what a creation is refused for, or the session that is made
// already.
func (m *model) admits(s, instead *modelled) (code api.Code, same *modelled) {
	reserve := int64(0)
	if s.user == "oscar" {
		reserve = 5
	}
	if made := m.keys[repetition{s.of, s.key}]; s.key != "" && made != nil && m.now < made.created+modelRepeats && m.lives(made) {
		same = made
	}
	switch code := m.full(s, 5, instead); {
	case code != api.OK && (same == nil || s.of.disabled): // a repetition takes no place
		return code, nil
	case s.of.disabled:
		return api.LoginFailed, nil
	case instead != nil && instead.of != s.of:
		return api.BadParam, nil
	case same != nil && same.permanent != s.permanent:
		return api.Conflict, nil
	case same != nil:
		return api.OK, same
	case instead != nil && !m.lives(instead):
		return api.InvalidAuthToken, nil
	}
	return m.accountFull(s, reserve, instead), nil
}

// began takes a new session over.
func (m *model) began(t *rapid.T, s *modelled, v *session.View, token string) {
	s.handle, s.created, s.used, s.revision = v.Handle, m.now, m.now, 1
	s.tokens = []modelToken{{text: token}}
	s.epochs = session.Epochs{Server: m.server.of(s.permanent), Realm: m.realms[s.realm].of(s.permanent), Account: s.of.epochs.of(s.permanent)}
	m.sessions = append(m.sessions, s)
	if s.key != "" {
		m.keys[repetition{s.of, s.key}] = s
	}
	switch known := m.ids[v.AccountID]; {
	case known == s.of:
	case known != nil || !s.of.id.IsZero():
		t.Fatalf("%s has the account %s", s.user, v.AccountID)
	default:
		s.of.id, m.ids[v.AccountID] = v.AccountID, s.of
		m.renamed(s)
	}
}

// renamed notes that a dropped account's name is another one's: of sessions that
// it had, no more is known than that.
func (m *model) renamed(by *modelled) {
	for _, o := range m.sessions {
		if o.realm == by.realm && o.user == by.user && o.of != by.of {
			m.seen.saw("drop: created anew")
			o.vague = true
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

// use shows a token, the present one or an old one, to be counted as a use or not.
func (m *model) use(t *rapid.T) {
	s, touch := m.one(t), rapid.Bool().Draw(t, "touch")
	i := rapid.IntRange(0, min(len(s.tokens)-1, modelOld+2)).Draw(t, "token")
	want := m.good(s, i)
	if what := map[bool]string{true: "good", false: "dead"}[want]; i == 0 || want {
		m.seen.saw("validate%s: %s", map[bool]string{true: " old"}[i > 0], what)
	}
	live, _, ok := m.w.Check(m.w.unix(), s.tokens[i].text, touch, nil)
	if ok != want || ok && live.Handle != s.handle {
		t.Fatalf("token %d of %s is good: %v, want %v", i, s.handle, ok, want)
	}
	if want && touch {
		s.used = m.now
	}
}

// refresh counts a use of a session by its handle.
func (m *model) refresh(t *rapid.T) {
	s := m.one(t)
	m.w.TouchAt(m.w.unix(), s.handle)
	m.seen.saw("refresh: %s", map[bool]string{true: "ok", false: "dead"}[m.lives(s)])
	if m.lives(s) {
		s.used = m.now
	}
}

// useWrongly shows the secret of another session, which proves nothing.
func (m *model) useWrongly(t *rapid.T) {
	s, other := m.any(t), m.any(t)
	if s == other || s.permanent != other.permanent {
		t.Skip("the same")
	}
	if m.w.lives(withChecksum(s.tokens[0].text[:28] + other.tokens[0].text[28:58])) {
		t.Fatalf("in with the secret of another")
	}
}

// usedFrom tells an address, which is written later and changes nothing else.
func (m *model) usedFrom(t *rapid.T) {
	s := m.any(t)
	m.w.UsedFrom(s.handle, netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(1, 9).Draw(t, "address"))}), "")
}

func (m *model) rotate(t *rapid.T) {
	s := m.one(t)
	i := rapid.IntRange(0, min(len(s.tokens)-1, modelOld+1)).Draw(t, "token")
	lived := m.lives(s)
	want := m.good(s, i)
	v, next, err := m.w.Rotate(t.Context(), api.NewSecret(s.tokens[i].text), event.Actor{})
	switch {
	case !want:
		m.seen.saw("rotate: %s", map[bool]string{true: "theft", false: "dead"}[lived && s.theft])
		if !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("rotated what is dead: %v", err)
		}
		return
	case err != nil:
		t.Fatalf("rotate: %v", err)
	case i > 0:
		m.seen.saw("rotate: same successor")
		if next.Reveal() != s.tokens[i-1].text {
			t.Fatalf("asked again, the successor is another one")
		}
	default:
		m.seen.saw("rotate: %s", map[bool]string{true: "key", false: "ok"}[s.permanent])
		s.tokens[0].until, s.tokens[0].known = m.now+modelGrace, true
		if s.tokens = slices.Insert(s.tokens, 0, modelToken{text: next.Reveal()}); len(s.tokens) > modelOld+1 {
			s.tokens[modelOld+1].known = false
		}
		s.revision++
	}
	if v.Handle != s.handle || v.Revision != s.revision || v.LastAccess != s.used {
		t.Fatalf("rotated to %+v, want %+v", v.Record, s)
	}
}

var errUnwanted = errors.New("the caller does not want this alteration")

// alter changes the idle time and properties, on the condition of a revision
// perhaps.
func (m *model) alter(t *rapid.T) {
	s := m.one(t)
	to := rapid.SampledFrom([]int64{0, 1, 7, 60, 600}).Draw(t, "idle")
	if rapid.Bool().Draw(t, "leave idle") {
		to = s.idle
	}
	revision := s.revision + uint64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "another revision"))
	refuse := rapid.IntRange(0, 5).Draw(t, "refuse") == 5
	change := session.PropertyChange{}
	for _, name := range rapid.SliceOfN(rapid.SampledFrom([]string{"cart", "theme", "tour"}), 0, 2).Draw(t, "properties") {
		change[name] = nil
		if text := fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "text")); rapid.Bool().Draw(t, "set") {
			change[name] = &text
		}
	}
	lived := m.lives(s)
	v, err := m.w.Alter(t.Context(), s.handle, event.Actor{}, func(r *session.Record) (err error) {
		if refuse || r.Revision != revision {
			return errUnwanted
		}
		r.IdleSeconds = to
		r.MaxSeconds *= 2 // which is a wall
		r.Properties, err = change.On(r.Properties)
		return err
	})
	switch {
	case !lived:
		m.seen.saw("alter: dead")
		if !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("altered what is dead: %v", err)
		}
		return
	case refuse || revision != s.revision:
		m.seen.saw("alter: %s", map[bool]string{true: "refused by the caller", false: "another revision"}[refuse])
		if !errors.Is(err, errUnwanted) {
			t.Fatalf("altered though it is refused: %v", err)
		}
		return
	case err != nil:
		t.Fatalf("alter: %v", err)
	}
	m.seen.saw("alter: ok")
	s.idle = to
	s.revision++
	for name, text := range change {
		if delete(s.properties, name); text != nil {
			s.properties[name] = *text
		}
	}
	if !m.lives(s) {
		m.seen.saw("alter: idle at once")
	}
	if v.Live != m.lives(s) || v.Revision != s.revision || !maps.Equal(v.Properties, s.properties) {
		t.Fatalf("altered to %+v, want %+v", v.Record, s)
	}
}

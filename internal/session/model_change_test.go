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

// What uses and changes one session.

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

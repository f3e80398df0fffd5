package session_test

import (
	"errors"
	"slices"

	"pgregory.net/rapid"

	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
)

// Browsers and devices with several sessions.

// A modelClient is one that a session has joined.
type modelClient struct {
	members []*modelled // in the order in which they joined
	active  *modelled
}

// clientID returns what a session's client is named after: the first session that
// it held.
func (s *modelled) clientID() api.ID {
	if s.clientOf.IsZero() {
		return s.handle
	}
	return s.clientOf
}

// client returns a session's client: the session alone until another one joins.
func (m *model) client(s *modelled) modelClient {
	if c := m.clients[s.clientID()]; c != nil {
		return *c
	}
	return modelClient{members: []*modelled{s}}
}

// settleOn puts a new session on its client.
func (m *model) settleOn(w *wish) {
	old := w.join
	if w.instead != nil {
		old = w.instead
	}
	if old == nil {
		return
	}
	w.clientOf = old.clientID()
	if m.clients[w.clientOf] == nil && w.join == nil {
		return
	}
	c := m.client(old)
	m.clients[w.clientOf] = &modelClient{members: append(slices.Clone(c.members), w.modelled), active: w.modelled}
}

// forgotten takes what is purged off the clients.
func (m *model) forgotten() {
	for id, c := range m.clients {
		if c.members = slices.DeleteFunc(c.members, func(s *modelled) bool { return s.purged }); len(c.members) == 0 {
			delete(m.clients, id)
		}
	}
}

// removed reports whether a session was taken off its client.
func (s *modelled) removed() bool { return s.fixed != nil && s.fixed.Status == session.Removed }

// listClient compares the list of a session's client.
func (m *model) listClient(t *rapid.T) {
	s := m.any(t)
	got, err := m.w.ClientOf(t.Context(), s.handle)
	if s.purged {
		m.seen.saw("list client: purged")
		if !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("the client of what is gone: %v", err)
		}
		return
	}
	c := m.client(s)
	var active *modelled
	var want, handles []api.ID
	for _, o := range c.members {
		if o.purged || o.removed() {
			continue
		}
		want = append(want, o.handle)
		if m.lives(o) && (active == nil || o == c.active || active != c.active && o.used >= active.used) {
			active = o
		}
	}
	for _, v := range got.Sessions {
		handles = append(handles, v.Handle)
	}
	if err != nil || got.ID != s.clientID() || !slices.Equal(handles, want) {
		t.Fatalf("the client %s of %s has %v, %v, want %v", got.ID, s.handle, handles, err, want)
	}
	if (active == nil) != got.Active.IsZero() || active != nil && active.handle != got.Active {
		t.Fatalf("the active session is %s, want %#v", got.Active, active)
	}
	m.seen.saw("list client: %s", map[bool]string{true: "shared", false: "alone"}[len(want) > 1])
	other := m.any(t)
	if !m.lives(s) {
		return
	}
	shares := s == other || slices.Contains(c.members, other) && !other.purged && !other.removed()
	if got, err := m.w.Shares(t.Context(), s.handle, other.handle); got != shares || err != nil {
		t.Fatalf("%s and %s share a client: %v, %v", s.handle, other.handle, got, err)
	}
}

// activate makes a session the one in use.
func (m *model) activate(t *rapid.T) {
	s := m.one(t)
	if !m.lives(s) {
		t.Skip("only its own token does it")
	}
	if err := m.w.Activate(t.Context(), s.handle); err != nil {
		t.Fatalf("activate: %v", err)
	}
	s.used = m.now
	if c := m.clients[s.clientID()]; c != nil {
		m.seen.saw("activate: shared")
		c.active = s
	}
}

// remove takes a session off its client, and ends it.
func (m *model) remove(t *rapid.T) {
	s, by := m.any(t), m.any(t)
	held := m.holds(s)
	v, err := m.w.Remove(t.Context(), s.handle, by.caller())
	switch {
	case s.purged:
		m.seen.saw("remove: purged")
		if !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("removed what is gone: %v", err)
		}
		return
	case err != nil || v.Status() != session.Removed:
		t.Fatalf("removed: %s, %v", v.Status(), err)
	case held:
		m.seen.saw("remove: living")
		m.ended(s, session.End{Status: session.Removed, At: m.now, Reason: session.ReasonLogout, By: by.text()})
		return
	}
	m.seen.saw("remove: ended")
	end := *m.end(s)
	end.Status = session.Removed
	s.fixed = &end
}

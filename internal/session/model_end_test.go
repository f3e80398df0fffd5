package session_test

import (
	"cmp"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

// What ends sessions.

// ended fixes an end that is durable.
func (m *model) ended(s *modelled, end session.End) {
	s.fixed = &end
	m.seen.saw("died: %s", end.Status)
}

// outdate ends those sessions that an epoch is above: the temporary ones, or with
// permanent all, but for one. It returns how many that are.
func (m *model) outdate(end session.End, permanent bool, spared *modelled, above func(*modelled) bool) (n int) {
	end.Status, end.At = session.Revoked, m.now
	for _, s := range m.sessions {
		switch {
		case s.fixed != nil || !above(s):
		case s.outdated != nil:
			m.seen.saw("died: revoked again")
		case m.holds(s) && (permanent || !s.permanent) && s != spared:
			s.outdated = &end
			n++
			m.seen.saw("died: revoked")
		}
	}
	return n
}

func (m *model) logout(t *rapid.T) {
	s := m.one(t)
	want := m.holds(s)
	m.seen.saw("log out: %s", map[bool]string{true: "ok", false: "dead"}[want])
	done, err := m.w.End(t.Context(), s.handle, m.w.NewEnd(session.Ended, session.ReasonLogout, s.caller()), event.Actor{})
	if done != want || err != nil {
		t.Fatalf("ended: %v, %v, want %v", done, err, want)
	}
	if want {
		m.ended(s, session.End{Status: session.Ended, At: m.now, Reason: session.ReasonLogout, By: s.text()})
	}
}

// endSome revokes sessions by their handles, in one call.
func (m *model) endSome(t *rapid.T) {
	var some []*modelled
	for range rapid.IntRange(1, 3).Draw(t, "how many") {
		if s := m.one(t); !slices.Contains(some, s) {
			some = append(some, s)
		}
	}
	by := m.any(t)
	want, handles := make([]bool, len(some)), make([]api.ID, len(some))
	for i, s := range some {
		want[i], handles[i] = m.holds(s), s.handle
		m.seen.saw("end some: %s", map[bool]string{true: "ok", false: "dead"}[want[i]])
		if want[i] && s.theft {
			m.seen.saw("end some: a pending theft")
		}
		if want[i] {
			m.ended(s, session.End{Status: session.Revoked, At: m.now, Reason: session.ReasonRevoked, By: by.text()})
		}
	}
	done, err := m.w.EndAll(t.Context(), handles, m.w.NewEnd(session.Revoked, session.ReasonRevoked, by.caller()), event.Actor{})
	if err != nil || !slices.Equal(done, want) {
		t.Fatalf("ended %v, %v, want %v", done, err, want)
	}
}

// endMany ends sessions by what is above them.
func (m *model) endMany(t *rapid.T) {
	rapid.SampledFrom([]func(*rapid.T){m.endAccount, m.drop, m.endEverywhere, m.changePassword, m.disable}).Draw(t, "how")(t)
}

// endAccount ends an account's sessions but perhaps one.
func (m *model) endAccount(t *rapid.T) {
	realm := rapid.SampledFrom([]string{"web", "native"}).Draw(t, "realm")
	user := rapid.SampledFrom(modelUsers[realm]).Draw(t, "user")
	of := m.account(realm, user)
	permanent := rapid.Bool().Draw(t, "keys too")
	how := &session.AccountChange{Reason: "spring cleaning"}
	var spared *modelled
	if own := m.ofAccount(of); len(own) > 0 && rapid.Bool().Draw(t, "spare") {
		s := rapid.SampledFrom(own).Draw(t, "spared")
		how.Spare, how.By.SessionHandle = s.caller(), s.text()
		if m.holds(s) && (permanent || !s.permanent) {
			spared = s
		}
	}
	if of.id.IsZero() && realm == "web" {
		m.seen.saw("end account: notFound")
		if _, err := m.w.EndAccount(t.Context(), realm, user, permanent, how); codeOf(err) != api.NotFound {
			t.Fatalf("ended the sessions of nobody: %v", err)
		}
		return
	}
	want := m.outdate(session.End{Reason: how.Reason, By: how.By.SessionHandle}, permanent, spared, func(o *modelled) bool { return o.of == of })
	if n, err := m.w.EndAccount(t.Context(), realm, user, permanent, how); n != want || err != nil {
		t.Fatalf("ended %d, %v, want %d", n, err, want)
	}
	m.seen.saw("end account: %s", map[bool]string{true: "some", false: "none"}[want > 0])
	of.epochs.rise(permanent)
	if spared != nil {
		m.seen.saw("end account: spared")
		spared.epochs.Account = of.epochs.of(spared.permanent)
	}
}

// ofAccount returns an account's sessions, the dead ones too.
func (m *model) ofAccount(of *modelAccount) (own []*modelled) {
	for _, s := range m.sessions {
		if s.of == of {
			own = append(own, s)
		}
	}
	return own
}

// endEverywhere ends the sessions of the server or of a realm.
func (m *model) endEverywhere(t *rapid.T) {
	permanent := rapid.Bool().Draw(t, "keys too")
	realm := rapid.SampledFrom([]string{"", "web", "native"}).Draw(t, "realm")
	by := m.one(t)
	how := session.EndEverywhere{
		Realm: realm, Permanent: permanent, Reason: "drill", By: event.Actor{SessionHandle: by.text(), Realm: by.realm},
		DryRun: rapid.IntRange(0, 3).Draw(t, "dry run") == 3,
	}
	is := func(o *modelled) bool { return realm == "" || o.realm == realm }
	var spared *modelled
	if m.lives(by) && rapid.Bool().Draw(t, "spare") {
		how.Spare = by.caller()
		how.Spare.LastAccess = by.used
		if is(by) && (permanent || !by.permanent) {
			spared = by
		}
	}
	want := m.count(func(o *modelled) bool { return is(o) && (permanent || !o.permanent) && o != spared })
	left := m.count(func(o *modelled) bool { return is(o) && !permanent && o.permanent })
	n, keys, err := m.w.EndEverywhere(t.Context(), how)
	if n != want || keys != left || err != nil {
		t.Fatalf("ended %d and left %d keys, %v, want %d and %d", n, keys, err, want, left)
	}
	level := map[bool]string{true: "server", false: "realm"}[realm == ""]
	if how.DryRun {
		m.seen.saw("end %s: dry run", level)
		return
	}
	if want > 0 {
		m.seen.saw("end %s: some", level)
	}
	m.outdate(session.End{Reason: how.Reason, By: by.text()}, permanent, spared, is)
	e := &m.server
	if realm != "" {
		e = m.realms[realm]
	}
	e.rise(permanent)
	if spared != nil {
		m.seen.saw("end %s: spared", level)
		spared.epochs.Server, spared.epochs.Realm = m.server.of(spared.permanent), m.realms[spared.realm].of(spared.permanent)
	}
}

// changePassword ends an account's temporary sessions but perhaps the one that
// does it, which has to live.
func (m *model) changePassword(t *rapid.T) {
	user := rapid.SampledFrom(modelUsers["native"]).Draw(t, "user")
	of := m.account("native", user)
	c := session.PasswordChange{Realm: "native", Username: user, Password: api.NewSecret(rightPassword)}
	var spared *modelled
	if own := slices.DeleteFunc(m.ofAccount(of), func(s *modelled) bool { return s.permanent }); len(own) > 0 && rapid.Bool().Draw(t, "spare") {
		spared = rapid.SampledFrom(own).Draw(t, "spared")
		c.Spare = spared.caller()
		c.By.SessionHandle = spared.text()
	}
	if spared != nil && !m.holds(spared) {
		m.seen.saw("change password: invalidAuthToken")
		if _, err := m.w.ChangePassword(t.Context(), c); codeOf(err) != api.InvalidAuthToken {
			t.Fatalf("a dead session changed the password: %v", err)
		}
		return
	}
	want := m.outdate(session.End{Reason: session.ReasonPasswordChanged, By: c.By.SessionHandle}, false, spared, func(o *modelled) bool { return o.of == of })
	if n, err := m.w.ChangePassword(t.Context(), c); n != want || err != nil {
		t.Fatalf("a new password ended %d, %v, want %d", n, err, want)
	}
	m.seen.saw("change password: ok")
	of.passwords++
	of.epochs.rise(false)
	if spared != nil {
		m.seen.saw("change password: spared")
		spared.epochs.Account = of.epochs.of(false)
	}
}

// disable disables an account, or enables it again; either gives it a fresh start.
func (m *model) disable(t *rapid.T) {
	of := m.account("web", "bob")
	if of.id.IsZero() {
		t.Skip("nobody is in")
	}
	change := &session.AccountChange{Change: func(a *account.Account) error {
		a.Disabled = !of.disabled
		return nil
	}}
	want := m.outdate(session.End{Reason: session.ReasonAccountDisabled}, true, nil, func(o *modelled) bool { return o.of == of })
	_, n, err := m.w.AlterAccount(t.Context(), "web", "bob", change)
	if n != want || err != nil {
		t.Fatalf("disabling it ended %d, %v, want %d", n, err, want)
	}
	if of.disabled = !of.disabled; !of.disabled {
		m.seen.saw("enable")
	} else if want > 0 {
		m.seen.saw("disable: some")
	}
	of.epochs.rise(true)
}

// drop drops an account. Who comes by its name later is somebody else.
func (m *model) drop(t *rapid.T) {
	user := rapid.SampledFrom(modelUsers["web"]).Draw(t, "user")
	of := m.account("web", user)
	want := m.outdate(session.End{Reason: session.ReasonAccountDropped}, true, nil, func(o *modelled) bool { return o.of == of })
	nothing := &session.AccountChange{Change: func(*account.Account) error { return nil }}
	_, missing, n, err := m.w.DropAccounts(t.Context(), "web", []string{user}, nothing)
	if n != want || err != nil || (len(missing) > 0) != of.id.IsZero() {
		t.Fatalf("dropping it ended %d, missing %v, %v, want %d", n, missing, err, want)
	}
	if len(missing) > 0 {
		m.seen.saw("drop: missing")
		return
	}
	if want > 0 {
		m.seen.saw("drop: some")
	}
	delete(m.accounts, "web/"+user)
}

// stolen ends the sessions of which stolen tokens were shown.
func (m *model) stolen() {
	for _, s := range m.sessions {
		if s.theft && m.holds(s) {
			m.ended(s, session.End{Status: session.Revoked, At: m.now, Reason: session.ReasonTokenTheft})
			m.seen.saw("died: theft")
		}
	}
}

// swept fixes the ends of all that are dead.
func (m *model) swept() {
	for _, s := range m.sessions {
		end := m.end(s)
		if s.fixed != nil || end == nil {
			continue
		}
		s.fixed = end
		if end.Status == session.Expired {
			m.seen.saw("died: expired")
			m.seen.saw("died: %s", map[bool]string{true: "idle", false: "wall"}[end.Reason == session.ReasonIdle])
		}
	}
}

// maintain does all that is done by and by, and forgets what is old.
func (m *model) maintain(*rapid.T) {
	m.w.maintain()
	m.stolen()
	m.swept()
	for _, s := range m.sessions {
		if s.fixed != nil && !s.purged && m.isOld(s.fixed) {
			s.purged = true
			m.seen.saw("died: purged")
		}
	}
	m.forgotten()
}

func (m *model) isOld(end *session.End) bool { return end.At < m.w.unix()-modelRetention }

// maintainPartly does a part of the maintenance.
func (m *model) maintainPartly(t *rapid.T) {
	var err error
	switch rapid.SampledFrom([]string{"sweep", "fold ends", "flush", "fold touches", "a second's"}).Draw(t, "part") {
	case "sweep":
		err = m.w.Sweep(t.Context())
		m.swept()
	case "fold ends":
		err = m.w.FoldEnds(t.Context())
	case "flush":
		err = m.w.FlushTouches(t.Context())
	case "fold touches":
		err = m.w.FoldTouches(t.Context())
	default:
		err = m.w.Maintenance(t.Context(), 1)
		m.stolen()
		m.swept()
	}
	if err != nil {
		t.Fatalf("maintain: %v", err)
	}
}

// wait lets time pass: some, or until about the moment at which something changes
// by itself.
func (m *model) wait(t *rapid.T) {
	seconds := rapid.SampledFrom([]int64{1, 29, 30, 3, 6, 59, 60, 100, 599, 5000}).Draw(t, "seconds")
	if len(m.sessions) > 0 && rapid.Bool().Draw(t, "until a moment") {
		s := m.one(t)
		moments := []int64{s.used + s.idle + s.tolerance, s.wall, s.created + modelRepeats}
		if len(s.tokens) > 1 {
			moments = append(moments, s.tokens[1].until)
		}
		seconds = max(1, rapid.SampledFrom(moments).Draw(t, "moment")+rapid.Int64Range(-1, 1).Draw(t, "after")-m.w.unix())
	}
	m.w.advance(seconds)
	m.now = max(m.now, m.w.unix())
}

func (m *model) back(t *rapid.T) {
	m.seen.saw("clock back")
	m.w.advance(-rapid.Int64Range(1, 100).Draw(t, "seconds"))
}

// secondKeeper compares what another keeper loads from the same store.
func (m *model) secondKeeper(t *rapid.T) {
	first := m.w.Keeper
	m.prepare(t)
	m.w.open()
	m.reloaded(t, first.Accuracy)
	second := m.w.Keeper
	m.w.Keeper = first
	second.Close()
}

// prepare writes what is written every few seconds, and lets the clock catch up
// with what it has shown: a process that begins knows of nothing later.
func (m *model) prepare(t *rapid.T) {
	m.w.advance(m.now - m.w.unix())
	if err := m.w.FlushTouches(t.Context()); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

// restart goes on with what a crash leaves: what was in memory alone is lost.
func (m *model) restart(t *rapid.T) {
	m.seen.saw("restart: crash")
	m.prepare(t)
	accuracy := m.w.Accuracy
	m.w.Close()
	if rapid.Bool().Draw(t, "down for a while") {
		m.wait(t)
	}
	inner, err := m.reopen()
	if err != nil {
		t.Fatalf("open anew: %v", err)
	}
	m.w.inner, m.w.store = inner, inner
	m.w.open()
	for s, used := range m.reloaded(t, accuracy) {
		if used != s.used {
			m.seen.saw("restart: behind")
			if lived := m.lives(s); lived {
				if s.used = used; !m.lives(s) {
					m.seen.saw("restart: ended while it was down")
				}
			}
			s.used = used
		}
		if s.theft && m.holds(s) {
			m.seen.saw("restart: a theft forgotten")
		}
		s.theft = false
	}
	m.remember()
}

// reloaded compares what was loaded, and returns when those sessions were used
// last whose ends are not written: that may lie back as far as the accuracy says.
func (m *model) reloaded(t *rapid.T, accuracy func(int64) int64) map[*modelled]int64 {
	if err := m.w.Table().Recount(); err != nil {
		t.Fatalf("after loading: %v", err)
	}
	used := map[*modelled]int64{}
	for _, s := range m.sessions {
		if s.fixed != nil {
			continue
		}
		view, err := m.w.Get(t.Context(), s.handle)
		if late := s.used - view.LastAccess; err != nil || late < 0 || late > accuracy(s.idle) {
			t.Fatalf("%s was used %d s later than is known, %v", s.handle, late, err)
		}
		used[s] = view.LastAccess
		as := *s
		as.used, as.theft = view.LastAccess, false
		if live, ok := m.w.Authenticate(s.tokens[0].text, false); ok != m.lives(&as) || ok && (live.LastAccess != view.LastAccess || live.MaxAt != s.wall) {
			t.Fatalf("%s is loaded as %+v, which lives: %v, want %+v", s.handle, live, ok, as)
		}
	}
	return used
}

// remember finds the log-ins again that can be repeated, the last one of each key.
func (m *model) remember() {
	for _, ticket := range m.tickets { // which nobody writes
		ticket.good = false
	}
	var made []*modelled
	for _, s := range m.sessions {
		if s.key != "" && s.fixed == nil {
			made = append(made, s)
		}
	}
	slices.SortFunc(made, func(a, b *modelled) int {
		return cmp.Or(cmp.Compare(a.created, b.created), strings.Compare(string(a.handle[:]), string(b.handle[:])))
	})
	clear(m.keys)
	for _, s := range made {
		m.keys[repetition{s.of, s.key}] = s
	}
}

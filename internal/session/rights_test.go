package session_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

// caller returns who shows a token.
func (w *world) caller(token string) *session.Caller {
	w.t.Helper()
	c, ok := w.Authenticate(token, false)
	if !ok {
		w.t.Fatalf("the caller is dead")
	}
	return &c
}

func (w *world) in(username string, options ...option) (session.View, string) {
	w.t.Helper()
	v, token, err := w.login(username, rightPassword, options...)
	if err != nil {
		w.t.Fatalf("log in as %s: %v", username, err)
	}
	return v, token
}

func (w *world) alter(username string, change func(*account.Account)) int {
	w.t.Helper()
	_, ended, err := w.AlterAccount(w.ctx(), "native", username, &session.AccountChange{
		Change: func(a *account.Account) error { change(a); return nil }, Event: event.Event{Kind: event.AccountAltered},
	})
	if err != nil {
		w.t.Fatalf("alter %s: %v", username, err)
	}
	return ended
}

func (w *world) createRole(permissions ...string) {
	w.t.Helper()
	if _, err := w.accounts.CreateRole(w.ctx(), event.Actor{}, account.NewRole{Name: "clerk", Permissions: permissions}); err != nil {
		w.t.Fatalf("create a role: %v", err)
	}
}

func (w *world) give(role, username string) {
	w.t.Helper()
	_, err := w.accounts.AssignRoles(w.ctx(), event.Actor{}, account.Assignment{
		Add: []account.RoleGrant{{Realm: "native", Usernames: []string{username}, Roles: []string{role}}}, Allow: func(*account.Role, *account.Account, bool) error { return nil },
	})
	if err != nil {
		w.t.Fatalf("give a role: %v", err)
	}
}

// What changes about roles acts on running sessions at once, but for sessions that
// keep those of their log-in; a restart changes nothing about it.
func TestRolesOfRunningSessions(t *testing.T) {
	const read, validate = "sessiond.sessions.read", "sessiond.sessions.validate"
	alterRole := func(w *world, permissions ...string) {
		if _, err := w.accounts.AlterRole(w.ctx(), event.Actor{}, "clerk", account.RoleChange{Permissions: &permissions, Allow: func(*account.Role) error { return nil }}); err != nil {
			w.t.Fatalf("alter a role: %v", err)
		}
	}
	drop := func(w *world) {
		if _, err := w.accounts.DropRoles(w.ctx(), event.Actor{}, []string{"clerk"}, nil, func(*account.Role) error { return nil }); err != nil {
			w.t.Fatalf("drop a role: %v", err)
		}
	}
	take := func(w *world) {
		w.alter("alice", func(a *account.Account) { a.Roles = nil })
	}
	for _, tt := range []struct {
		why    string
		change func(*world)
		want   string // roles and permissions afterwards, of what is live
		key    string // of an API key, which gains nothing; empty: the same
	}{
		{"nothing", func(*world) {}, "[clerk] [" + read + "]", ""},
		{"the role allows something else", func(w *world) { alterRole(w, validate) }, "[clerk] [" + validate + "]", "[clerk] []"},
		{"the role allows nothing", func(w *world) { alterRole(w) }, "[clerk] []", ""},
		{"the role is dropped", drop, "[] []", ""},
		{"the role is dropped, and another created under its name", func(w *world) { drop(w); w.createRole("sessiond.*") }, "[] []", ""},
		{"the role is taken from the account", take, "[] []", ""},
		{"another role is given", func(w *world) { w.give("gateway", "alice") }, "[clerk gateway] [" + read + " " + validate + "]", "[clerk gateway] [" + read + "]"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			w := newWorld(t, unlimited())
			w.account("alice")
			w.createRole(read)
			w.give("clerk", "alice")
			_, live := w.in("alice")
			w.config.RolesMode = config.FrozenRoles
			_, frozen := w.in("alice")
			_, key := w.in("alice", func(n *session.NewSession) { n.Permanent = true })
			tt.change(w)
			for _, when := range []string{"at once", "after a restart"} {
				for name, token := range map[string]string{"live": live, "key": key, "frozen": frozen} {
					want, mode := tt.want, config.LiveRoles
					if name == "frozen" {
						want, mode = "[clerk] ["+read+"]", config.FrozenRoles
					}
					if name == "key" {
						want = cmp.Or(tt.key, want)
					}
					c := w.caller(token)
					v, err := w.Get(t.Context(), c.Handle)
					if err != nil {
						t.Fatal(err)
					}
					if got := fmt.Sprint(v.Roles, c.Permissions.Names()); got != want || v.RolesMode() != mode {
						t.Errorf("%s, %s: %s, %s, want %s", when, name, got, v.RolesMode(), want)
					}
				}
				w.restart()
			}
		})
	}
}

// Of a frozen session nothing stays behind when it ends.
func TestFrozenSessionsAreForgotten(t *testing.T) {
	w := newWorld(t, unlimited())
	w.config.RolesMode = config.FrozenRoles
	w.account("alice")
	for range 50 {
		v, _ := w.in("alice")
		if _, err := w.End(t.Context(), v.Handle, w.NewEnd(session.Ended, session.ReasonLogout, nil), event.Actor{}); err != nil {
			t.Fatal(err)
		}
	}
	if frozen, sets := w.Table().Frozen(); frozen != 0 || sets != 0 {
		t.Errorf("%d frozen sessions and %d sets are left", frozen, sets)
	}
}

// An account that may not have sessions has none, whatever it had, and gets none
// of them back.
func TestAccountsThatMayNot(t *testing.T) {
	for _, tt := range []struct {
		why    string
		bar    func(w *world)
		unbar  func(a *account.Account)
		reason string
		at     int64 // seconds after the log-in
	}{
		{"disabled", func(w *world) { w.alter("alice", func(a *account.Account) { a.Disabled = true }) }, func(a *account.Account) { a.Disabled = false }, "accountDisabled", 10},
		{"not yet", func(w *world) {
			w.alter("alice", func(a *account.Account) { a.EnableAt = w.clock.Now().Add(time.Hour) })
		}, func(a *account.Account) { a.EnableAt = time.Time{} }, "accountDisabled", 10},
		{"no more", func(w *world) {
			w.alter("alice", func(a *account.Account) { a.DisableAt = w.clock.Now().Add(50 * time.Second) })
			w.advance(49)
			if w.Count() != 2 {
				w.t.Errorf("a second before the time %d live", w.Count())
			}
			w.advance(1)
		}, func(a *account.Account) { a.DisableAt = time.Time{} }, "accountDisabled", 60},
		{"dropped", func(w *world) {
			if names, _, ended, err := w.DropAccounts(w.ctx(), "native", []string{"ALICE"}, &session.AccountChange{Change: func(*account.Account) error { return nil }}); err != nil || ended != 2 || len(names) != 1 {
				w.t.Errorf("dropped %v, ended %d, %v", names, ended, err)
			}
		}, nil, "accountDropped", 10},
	} {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.why, restarted), func(t *testing.T) {
				w := newWorld(t, unlimited())
				w.account("alice")
				first, session1 := w.in("alice", func(n *session.NewSession) { n.Idle = 0 })
				_, key := w.in("alice", func(n *session.NewSession) { n.Permanent = true })
				w.advance(10)
				tt.bar(w)
				if restarted {
					w.restart()
				}
				dead := func(when string) {
					t.Helper()
					if w.lives(session1) || w.lives(key) || w.Count() != 0 {
						t.Errorf("%s: session %v, key %v, %d count", when, w.lives(session1), w.lives(key), w.Count())
					}
				}
				dead("barred")
				if _, _, err := w.login("alice", rightPassword); codeOf(err) != api.LoginFailed {
					t.Errorf("a log-in: %v", err)
				}
				if tt.unbar != nil {
					w.alter("alice", tt.unbar)
					dead("not barred any more")
					if _, again := w.in("alice"); !w.lives(again) {
						t.Error("a new session is dead")
					}
				}
				if err := w.Maintain(t.Context()); err != nil {
					t.Fatal(err)
				}
				v, err := w.Get(t.Context(), first.Handle)
				if err != nil || v.End.Reason != tt.reason || v.End.Status != session.Revoked || v.End.At != first.Created+tt.at {
					t.Errorf("the tombstone says %+v, %v", v.End, err)
				}
			})
		}
	}
}

// Of a dropped account nothing is left after the retention, and its name is free
// from the first moment on.
func TestDroppedAccountsAreForgotten(t *testing.T) {
	for _, again := range []bool{false, true} {
		w := newWorld(t, unlimited())
		w.config.Defaults.RetentionPolicy, w.config.Defaults.RetentionUnit, w.config.Defaults.RetentionPeriod = "autoPurge", "day", 1
		before := w.account("alice")
		w.in("alice", from("192.0.2.1"))
		drop := func() {
			if _, _, _, err := w.DropAccounts(t.Context(), "native", []string{"alice"}, &session.AccountChange{Change: func(*account.Account) error { return nil }}); err != nil {
				t.Fatal(err)
			}
		}
		drop()
		if again {
			if after := w.account("alice"); after.ID == before.ID {
				t.Error("the identifier came back")
			}
			drop()
			w.account("Alice")
		}
		w.advance(23 * 3600)
		if err := w.Maintain(t.Context()); err != nil || (!w.has("gone/") || !w.has("acct/")) {
			t.Errorf("before the retention is over something is forgotten, %v", err)
		}
		w.advance(2 * 3600)
		if err := w.Maintain(t.Context()); err != nil || w.has("gone/") || w.has("acct/") != again || w.has("source/") != again {
			t.Errorf("created again %v: gone %v, account %v, source %v, %v", again, w.has("gone/"), w.has("acct/"), w.has("source/"), err)
		}
	}
}

// One write ends everything, but for whoever is spared, and never anything of
// another realm.
func TestEndEverywhere(t *testing.T) {
	for _, tt := range []struct {
		why       string
		realm     string
		permanent bool
		spare     string
		want      string // who lives
		ended     int64
		left      int64
	}{
		{"the server", "", false, "", "alice-key ann-key", 4, 2},
		{"the server, keys too", "", true, "", "", 6, 0},
		{"the server but the caller", "", false, "alice", "alice alice-key ann-key", 3, 2},
		{"the server but the key that calls", "", true, "ann-key", "ann-key", 5, 0},
		{"the server, and a key that is not meant spares nothing more", "", false, "ann-key", "alice-key ann-key", 4, 2},
		{"a realm", "web", false, "", "alice alice2 alice-key ann-key", 2, 1},
		{"a realm, keys too", "web", true, "", "alice alice2 alice-key", 3, 0},
		{"a realm but the caller", "web", true, "ann", "alice alice2 alice-key ann", 2, 0},
		{"a realm that is not the caller's", "web", true, "alice", "alice alice2 alice-key", 3, 0},
	} {
		for _, dry := range []bool{true, false} {
			t.Run(fmt.Sprint(tt.why, dry), func(t *testing.T) {
				w := newWorld(t, unlimited())
				w.account("alice")
				tokens := map[string]string{}
				permanent := func(n *session.NewSession) { n.Permanent = true }
				_, tokens["alice"] = w.in("alice")
				_, tokens["alice2"] = w.in("alice")
				_, tokens["alice-key"] = w.in("alice", permanent)
				_, tokens["ann"] = w.issued("ann")
				_, tokens["bob"] = w.issued("bob")
				_, tokens["ann-key"] = w.issued("ann", permanent)
				how := session.EndEverywhere{Realm: tt.realm, Permanent: tt.permanent, Reason: "leak", DryRun: dry}
				if tt.spare != "" {
					how.Spare = w.caller(tokens[tt.spare])
					how.By = w.Actor(how.Spare)
				}
				rev := w.store.Rev()
				ended, left, err := w.EndEverywhere(t.Context(), how)
				if err != nil || ended != tt.ended || left != tt.left {
					t.Errorf("ended %d, left %d, %v, want %d and %d", ended, left, err, tt.ended, tt.left)
				}
				if writes := w.store.Rev() - rev; dry && writes != 0 || !dry && writes != 1 {
					t.Errorf("%d writes", writes)
				}
				if dry {
					if w.Count() != 6 {
						t.Errorf("a dry run leaves %d", w.Count())
					}
					return
				}
				for _, when := range []string{"at once", "swept", "after a restart"} {
					got := ""
					for _, name := range []string{"alice", "alice2", "alice-key", "ann", "ann-key", "bob"} {
						if w.lives(tokens[name]) {
							got += " " + name
						}
					}
					if got = got[min(1, len(got)):]; got != tt.want || w.Count() != 6-tt.ended {
						t.Errorf("%s %q live, want %q; %d count", when, got, tt.want, w.Count())
					}
					if err := w.Table().Recount(); err != nil {
						t.Error(err)
					}
					if when == "at once" {
						if err := w.Maintain(t.Context()); err != nil {
							t.Fatal(err)
						}
					} else {
						w.restart()
					}
				}
				if _, token := w.in("alice"); !w.lives(token) {
					t.Error("a new session is dead")
				}
			})
		}
	}
}

// Whoever is spared is never seen dead, in the midst of it neither.
func TestWhoIsSparedIsNeverDead(t *testing.T) {
	w := newWorld(t, unlimited())
	w.account("alice")
	_, token := w.in("alice", func(n *session.NewSession) { n.Idle = 0 })
	for _, realm := range []string{"", "native"} {
		stop, dead := make(chan struct{}), make(chan bool)
		go func() {
			for {
				select {
				case <-stop:
					dead <- false
					return
				default:
					if !w.lives(token) {
						dead <- true
						return
					}
				}
			}
		}()
		caller := w.caller(token)
		for range 2000 {
			if _, _, err := w.EndEverywhere(t.Context(), session.EndEverywhere{Realm: realm, Spare: caller, By: w.Actor(caller)}); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		if <-dead {
			t.Errorf("of the realm %q: the caller who was to be spared was dead for a moment", realm)
		}
	}
}

// A session that is replaced makes room for the one that replaces it, in the same
// commit, and what it was set to lives on.
func TestReauthentication(t *testing.T) {
	c := limited(session.Limits{Total: 1, PerAddress: 1, PerAccount: 1})
	w := newWorld(t, c)
	w.account("alice")
	old, token := w.in("alice", from("192.0.2.1"), func(n *session.NewSession) { n.Description, n.Settings.DefaultAPI = "laptop", "admin" })
	w.advance(60)
	caller := w.caller(token)
	again := func(n *session.NewSession) {
		n.Address = old.Address
		n.Instead, n.Inherit = caller, func(r *session.Record) error {
			n.Description, n.Settings = r.Description, r.Settings
			return nil
		}
	}
	rev := w.store.Rev()
	v, renewed, err := w.login("alice", rightPassword, again)
	if err != nil || v.Description != "laptop" || v.Settings.DefaultAPI != "admin" || v.Authenticated != old.Authenticated+60 {
		t.Fatalf("%+v, %v", v.Record, err)
	}
	if w.store.Rev() != rev+1 || w.lives(token) || !w.lives(renewed) || w.Count() != 1 {
		t.Errorf("%d commits; the old one lives: %v, the new one: %v; %d count", w.store.Rev()-rev, w.lives(token), w.lives(renewed), w.Count())
	}
	if _, _, err := w.login("alice", rightPassword, again); codeOf(err) != api.InvalidAuthToken {
		t.Errorf("the old session once more: %v", err)
	}
	if err := w.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	dead, err := w.Get(t.Context(), old.Handle)
	if err != nil || dead.End.Status != session.Replaced || dead.End.By != session.HandleText(v.Handle) {
		t.Errorf("the tombstone says %+v, %v", dead.End, err)
	}
	if err := w.Table().Recount(); err != nil {
		t.Error(err)
	}
	w.restart()
	if !w.lives(renewed) || w.Count() != 1 {
		t.Errorf("after a restart it lives: %v; %d count", w.lives(renewed), w.Count())
	}
}

// A password that has to be changed is changed by the log-in that shows it, in one
// commit, and ends what the old one had begun.
func TestLoginsThatChangeThePassword(t *testing.T) {
	const next = "incorrect mule cell tape"
	w := newWorld(t, unlimited())
	w.account("alice")
	_, before := w.in("alice")
	_, key := w.in("alice", func(n *session.NewSession) { n.Permanent = true })
	w.alter("alice", func(a *account.Account) { a.PasswordMaxDays = 1 })
	w.advance(24 * 3600)
	if _, _, err := w.login("alice", rightPassword); codeOf(err) != api.PasswordExpired {
		t.Errorf("with a password that is too old: %v", err)
	}
	with := func(text string) option {
		return func(n *session.NewSession) { n.NewPassword = api.NewSecret(text) }
	}
	for text, want := range map[string]api.Code{rightPassword: api.PasswordPolicy, "short": api.PasswordPolicy, "alice.alice.alice": api.PasswordPolicy} {
		if _, _, err := w.login("alice", rightPassword, with(text)); codeOf(err) != want {
			t.Errorf("with a new password that is no better: %v", err)
		}
	}
	rev := w.store.Rev()
	_, token, err := w.login("alice", rightPassword, with(next))
	if err != nil || w.store.Rev() != rev+1 || !w.lives(token) || w.lives(before) || !w.lives(key) {
		t.Fatalf("%v, %d commits; the new one lives: %v, one from before: %v, the key: %v", err, w.store.Rev()-rev, w.lives(token), w.lives(before), w.lives(key))
	}
	if _, _, err := w.login("alice", rightPassword); codeOf(err) != api.LoginFailed {
		t.Errorf("the old password: %v", err)
	}
	w.restart()
	if _, _, err := w.login("alice", next); err != nil || !w.lives(token) {
		t.Errorf("after a restart: %v, %v", err, w.lives(token))
	}
}

// The limit of an address is one of its /64, and four and sixteen times as much of
// the networks around it.
func TestLimitsOfNetworks(t *testing.T) {
	for _, tt := range []struct {
		format string // of the address, with a number
		want   int
	}{
		{"2001:db8:0:1::%x", 3},
		{"2001:db8:0:1%02x::1", 12},
		{"2001:db8:0:%x00::1", 48},
		{"2001:db8:%x::1", 100},
		{"192.0.2.%d", 100},
	} {
		w := newWorld(t, limited(session.Limits{PerAddress: 3}))
		var handles []api.ID
		for i := range 100 {
			v, _, err := w.issue(fmt.Sprint("user", i), from(fmt.Sprintf(tt.format, i)))
			if err == nil {
				handles = append(handles, v.Handle)
			} else if codeOf(err) != api.SessionLimitPerIPAddress {
				t.Fatal(err)
			}
		}
		if len(handles) != tt.want {
			t.Errorf("%s: %d sessions, want %d", tt.format, len(handles), tt.want)
		}
		if _, err := w.EndAll(t.Context(), handles, w.NewEnd(session.Ended, session.ReasonLogout, nil), event.Actor{}); err != nil {
			t.Fatal(err)
		}
		if err := w.Table().Recount(); err != nil {
			t.Error(err)
		}
		if n := w.Table().Addresses(); n != 0 {
			t.Errorf("%s: %d addresses are kept", tt.format, n)
		}
	}
}

// The last administrator stays, however two of them try at once.
func TestOneAdministratorIsLeft(t *testing.T) {
	for range 20 {
		w := newWorld(t, unlimited())
		w.account("ada", "admin")
		w.account("bea", "admin")
		drop := func(name string) error {
			_, _, _, err := w.DropAccounts(w.ctx(), "native", []string{name}, &session.AccountChange{Change: func(*account.Account) error { return nil }})
			return err
		}
		errs := make(chan error, 2)
		for _, name := range []string{"ada", "bea"} {
			go func() { errs <- drop(name) }()
		}
		codes := []api.Code{codeOf(<-errs), codeOf(<-errs)}
		if slices.Sort(codes); !slices.Equal(codes, []api.Code{api.OK, api.Conflict}) {
			t.Fatalf("both were dropped, or neither: %v", codes)
		}
	}
}

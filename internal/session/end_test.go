package session_test

import (
	"errors"
	"sync"
	"testing"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// What ends what: the sessions and keys of one account, of which a caller may be
// spared, and nobody else's.
func TestEndAccount(t *testing.T) {
	for _, tt := range []struct {
		why       string
		permanent bool
		spare     string // which of them calls
		want      map[string]bool
		ended     int
	}{
		{"the temporary ones", false, "", map[string]bool{"key": true}, 2},
		{"the temporary ones but the caller", false, "first", map[string]bool{"first": true, "key": true}, 1},
		{"all", true, "", map[string]bool{}, 3},
		{"all but the caller", true, "second", map[string]bool{"second": true}, 2},
		{"all but the key that calls", true, "key", map[string]bool{"key": true}, 2},
	} {
		t.Run(tt.why, func(t *testing.T) {
			w := newWorld(t, limited(session.Limits{PerAccount: 4}))
			tokens, handles := map[string]string{}, map[string]api.ID{}
			for _, name := range []string{"first", "second", "key"} {
				v, token := w.issued("ann", from("192.0.2.1"), func(n *session.NewSession) { n.Permanent = name == "key" })
				tokens[name], handles[name] = token, v.Handle
			}
			_, other := w.issued("bob")
			w.advance(30)
			how := &session.AccountChange{Reason: "spring cleaning", By: event.Actor{SessionHandle: "sh_x"}, Event: event.Event{Kind: event.AccountSessionsEnded}}
			if tt.spare != "" {
				c, ok := w.Authenticate(tokens[tt.spare], true)
				if !ok {
					t.Fatal("the caller is dead")
				}
				how.Spare = &c
			}
			if n, err := w.EndAccount(t.Context(), "web", "ann", tt.permanent, how); err != nil || n != tt.ended {
				t.Errorf("%d ended, %v, want %d", n, err, tt.ended)
			}
			check := func(when string) {
				t.Helper()
				for name, token := range tokens {
					if w.lives(token) != tt.want[name] {
						t.Errorf("%s: %s lives: %v", when, name, !tt.want[name])
					}
				}
				if !w.lives(other) || w.Count() != int64(len(tt.want)+1) {
					t.Errorf("%s: another's lives: %v, %d are counted", when, w.lives(other), w.Count())
				}
				w.recount()
			}
			check("at once")
			ended := w.unix()
			w.advance(5)
			w.maintain()
			check("after maintenance")
			for name, h := range handles {
				r, err := w.tombstone(h)
				if (err == nil) == tt.want[name] {
					t.Errorf("%s: tombstone %+v, %v", name, r, err)
				}
				if want := (session.End{Status: session.Revoked, At: ended, Reason: "spring cleaning", By: "sh_x"}); err == nil && r.End != want {
					t.Errorf("%s: %+v, want %+v", name, r.End, want)
				}
			}
			w.restart()
			check("after a restart")
			for i := len(tt.want); i < 4; i++ {
				w.issued("ann")
			}
			if _, _, err := w.issue("ann"); codeOf(err) != api.SessionLimitPerUsername {
				t.Errorf("one beyond the limit: %v", err)
			}
		})
	}
}

// A spared caller takes its place of the limits still, and is alive at every
// moment: its own next request is on its way.
func TestASparedCallerIsNeverDead(t *testing.T) {
	w := newWorld(t, limited(session.Limits{PerAccount: 2}))
	w.account("alice")
	_, token, err := w.login("alice", rightPassword)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				if !w.lives(token) {
					t.Error("the caller was dead")
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 500 {
		c, _ := w.Authenticate(token, false)
		if _, err := w.EndAccount(t.Context(), "native", "alice", false, &session.AccountChange{Reason: session.ReasonRevoked, Spare: &c}); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
	w.maintain()
	w.recount()
	if n := w.Count(); n != 1 {
		t.Errorf("%d are counted", n)
	}
}

func TestChangePassword(t *testing.T) {
	w := newWorld(t, unlimited())
	w.account("alice")
	tokens := map[string]string{}
	for _, name := range []string{"caller", "other", "key"} {
		_, token, err := w.login("alice", rightPassword, func(n *session.NewSession) { n.Permanent = name == "key" })
		if err != nil {
			t.Fatal(err)
		}
		tokens[name] = token
	}
	c, _ := w.Authenticate(tokens["caller"], false)
	change := func(password string) session.PasswordChange {
		return session.PasswordChange{Realm: "native", Username: "alice", Password: api.NewSecret(password), By: w.Actor(&c), Spare: &c}
	}
	if _, err := w.ChangePassword(t.Context(), change("short")); codeOf(err) != api.PasswordPolicy || !w.lives(tokens["other"]) {
		t.Errorf("a short password: %v, the other session lives: %v", err, w.lives(tokens["other"]))
	}
	n, err := w.ChangePassword(t.Context(), change(otherPassword))
	if err != nil || n != 1 {
		t.Fatalf("%d ended, %v", n, err)
	}
	for name, want := range map[string]bool{"caller": true, "other": false, "key": true} {
		if w.lives(tokens[name]) != want {
			t.Errorf("%s lives: %v", name, !want)
		}
	}
	if _, _, err := w.login("alice", rightPassword); codeOf(err) != api.LoginFailed {
		t.Errorf("with the old password: %v", err)
	}
	if _, _, err := w.login("alice", otherPassword); err != nil {
		t.Errorf("with the new password: %v", err)
	}
}

// Who loses a race ends the account's sessions all the same, and tells how many
// it was.
func TestEndAccountTriesAgain(t *testing.T) {
	inner := mem.New()
	h := &hook{Store: inner}
	w := newWorldOn(t, unlimited(), inner, h)
	a := w.account("alice")
	for range 3 {
		if _, _, err := w.login("alice", rightPassword); err != nil {
			t.Fatal(err)
		}
	}
	races := 2
	h.before = func(tx *store.Tx) error {
		if races == 0 || !puts(tx, account.KeyPrefix) {
			return nil
		}
		races--
		_, err := store.Update(t.Context(), inner, a.Key(), func(old []byte) ([]byte, error) { return old, nil })
		return err
	}
	n, err := w.EndAccount(t.Context(), "native", "alice", false, &session.AccountChange{Reason: session.ReasonRevoked})
	if n != 3 || err != nil || races != 0 || w.Count() != 0 {
		t.Errorf("%d ended, %v, %d live", n, err, w.Count())
	}
	races = 1000
	if _, err := w.EndAccount(t.Context(), "native", "alice", false, &session.AccountChange{Reason: session.ReasonRevoked}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("with races without end: %v", err)
	}
}

func TestEndOfWhatIsDead(t *testing.T) {
	for _, tt := range []struct {
		why string
		die func(w *world, v *session.View)
	}{
		{"ended", func(w *world, v *session.View) { _, _ = w.end(v.Handle) }},
		{"ended and folded", func(w *world, v *session.View) { _, _ = w.end(v.Handle); w.maintain() }},
		{"expired", func(w *world, _ *session.View) { w.advance(60) }},
		{"expired and swept", func(w *world, _ *session.View) { w.advance(60); w.maintain() }},
		{"ended by its realm", func(w *world, _ *session.View) { w.raise(session.RealmEpoch("web"), true) }},
		{"never there", func(_ *world, v *session.View) { v.Handle = api.ID{1} }},
	} {
		w := newWorld(t, unlimited())
		v, _ := w.issued("ann", idle(60))
		h := v.Handle
		tt.die(w, &v)
		before := w.inner.Rev()
		if done, err := w.end(v.Handle); done || err != nil || w.inner.Rev() != before {
			t.Errorf("%s: done %v, %v, %d commits", tt.why, done, err, w.inner.Rev()-before)
		}
		if v.Handle != h {
			continue
		}
		if _, err := w.Alter(t.Context(), h, event.Actor{}, func(*session.Record) error { return nil }); !errors.Is(err, store.ErrNotFound) || w.inner.Rev() != before {
			t.Errorf("%s: altered: %v", tt.why, err)
		}
		w.Touch(h)
		if view, err := w.Get(t.Context(), h); err != nil || view.Live || view.Status() <= session.Active {
			t.Errorf("%s: it is shown as %v, %v", tt.why, view.Status(), err)
		}
	}
}

func TestEndAll(t *testing.T) {
	w := newWorld(t, unlimited())
	var handles []api.ID
	for i := range 200 {
		v, _ := w.issued([]string{"ann", "bob"}[i%2])
		handles = append(handles, v.Handle)
	}
	if _, err := w.end(handles[7]); err != nil {
		t.Fatal(err)
	}
	handles = append(handles, api.ID{1}, handles[0])
	done, err := w.EndAll(t.Context(), handles, w.NewEnd(session.Revoked, session.ReasonRevoked, nil), event.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, ok := range done {
		if ok {
			n++
		}
	}
	if n != 199 || done[7] || done[200] || done[0] && done[201] || w.Count() != 0 {
		t.Errorf("%d ended, 7: %v, unknown: %v, twice: %v and %v, %d live", n, done[7], done[200], done[0], done[201], w.Count())
	}
	if done, err := w.EndAll(t.Context(), nil, session.End{Status: session.Revoked}, event.Actor{}); err != nil || len(done) != 0 {
		t.Errorf("of none: %v, %v", done, err)
	}
}

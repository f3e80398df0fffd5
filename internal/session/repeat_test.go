package session_test

import (
	"fmt"
	"sync"
	"testing"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

func keyed(key string) option { return func(n *session.NewSession) { n.IdempotencyKey = key } }

// Whatever became of the first log-in, after the second one there is one session,
// and its token is the one answered last.
func TestALoginIsRepeated(t *testing.T) {
	for _, tt := range []struct {
		why   string
		fault func(w *world, tx *store.Tx) error // of the first one's commit
		anew  bool                               // the server begins anew between them
		late  bool                               // the first one's commit comes before the second one's
		again bool                               // the second one finds a session
	}{
		{why: "it was answered", again: true},
		{why: "the server began anew", anew: true, again: true},
		{why: "it was refused", fault: func(*world, *store.Tx) error { return store.ErrFull }},
		{why: "its answer was lost, and it was done", fault: func(w *world, tx *store.Tx) error {
			if _, err := w.inner.Commit(w.ctx(), *tx); err != nil {
				w.t.Fatalf("commit: %v", err)
			}
			return store.ErrUnknown
		}, again: true},
		{why: "its answer was lost, and it was not done", fault: func(*world, *store.Tx) error { return store.ErrUnknown }},
		{why: "it is done while the second one is made", fault: func(*world, *store.Tx) error { return store.ErrUnknown }, late: true, again: true},
	} {
		t.Run(tt.why, func(t *testing.T) {
			inner := mem.New()
			h := &hook{Store: inner}
			w := newWorldOn(t, unlimited(), inner, h)
			a := w.account("alice")
			var failed store.Tx
			if tt.fault != nil {
				h.before = func(tx *store.Tx) error {
					if !puts(tx, session.LiveKeys) {
						return nil
					}
					h.before, failed = nil, *tx
					return tt.fault(w, tx)
				}
			}
			first, old, err := w.login("alice", rightPassword, keyed("k"))
			if (err != nil) != (tt.fault != nil) {
				t.Fatal(err)
			}
			if tt.anew {
				w.restart()
			}
			if tt.late {
				h.before = func(*store.Tx) error {
					h.before = nil
					_, err := inner.Commit(t.Context(), failed)
					return err
				}
			}
			second, token, err := w.login("alice", rightPassword, keyed("k"))
			if err != nil || second.Repeated != tt.again {
				t.Fatalf("repeated %t, %v", second.Repeated, err)
			}
			if tt.fault == nil && first.Handle != second.Handle {
				t.Error("it is another session")
			}
			if _, ok := w.Authenticate(old, false); ok {
				t.Error("the old token works")
			}
			if _, ok := w.Authenticate(token, false); !ok {
				t.Error("the new token does not work")
			}
			if n := len(w.OfAccount(a.ID)); n != 1 {
				t.Errorf("there are %d sessions", n)
			}
			w.restart()
			if _, ok := w.Authenticate(token, false); !ok || len(w.OfAccount(a.ID)) != 1 {
				t.Error("after a restart it is not so")
			}
		})
	}
}

func TestManyLoginsWithOneKey(t *testing.T) {
	for _, where := range []string{"native", "web"} { // an account that is there, and one that the first of them makes
		t.Run(where, func(t *testing.T) {
			w := newWorld(t, limited(session.Limits{PerAccount: 1}))
			if where == "native" {
				w.account("alice")
			}
			var (
				wg     sync.WaitGroup
				mu     sync.Mutex
				made   int
				tokens []string
			)
			for range 8 {
				wg.Go(func() {
					login := func() (session.View, string, error) { return w.issue("alice", keyed("k")) }
					if where == "native" {
						login = func() (session.View, string, error) { return w.login("alice", rightPassword, keyed("k")) }
					}
					v, token, err := login()
					mu.Lock()
					defer mu.Unlock()
					if tokens = append(tokens, token); err != nil {
						t.Error(err)
					} else if !v.Repeated {
						made++
					}
				})
			}
			wg.Wait()
			good := 0
			for _, token := range tokens {
				if _, ok := w.Authenticate(token, false); ok {
					good++
				}
			}
			if n := w.Count(); n != 1 || made != 1 || good != 1 {
				t.Errorf("%d sessions, %d of them made, and %d tokens work", n, made, good)
			}
		})
	}
}

// A repetition needs no place. To who lacks the password a full server, or address,
// says the same whether or not there is something to repeat.
func TestALoginIsRepeatedOnAFullServer(t *testing.T) {
	for _, l := range []session.Limits{{Total: 1}, {PerAddress: 1}} {
		w := newWorld(t, limited(l))
		w.account("alice")
		w.account("bob")
		login := func(name, password, key string) (session.View, error) {
			v, _, err := w.login(name, password, keyed(key), from("192.0.2.1"))
			return v, err
		}
		if _, err := login("alice", rightPassword, "k"); err != nil {
			t.Fatal(err)
		}
		for i := range 5 { // the operators' reserve
			w.issued(fmt.Sprint("carol", i), in(w, "staff"), from("192.0.2.1"))
		}
		_, full := login("alice", rightPassword, "another")
		if code := codeOf(full); code != api.SessionLimitReached && code != api.SessionLimitPerIPAddress {
			t.Fatalf("it is not full: %v", full)
		}
		for why, err := range map[string]error{
			"a wrong password":  second(login("alice", "wrong", "k")),
			"another account":   second(login("bob", rightPassword, "k")),
			"an unknown name":   second(login("nobody", rightPassword, "k")),
			"no name":           second(login("a b", rightPassword, "k")),
			"a forgotten login": second(login("alice", rightPassword, "K")),
		} {
			if err == nil || err.Error() != full.Error() {
				t.Errorf("%s: %v", why, err)
			}
		}
		if v, err := login("alice", rightPassword, "k"); err != nil || !v.Repeated {
			t.Errorf("repeated %t, %v", v.Repeated, err)
		}
		w.advance(600)
		if _, err := login("alice", rightPassword, "k"); err == nil || err.Error() != full.Error() {
			t.Errorf("after ten minutes: %v", err)
		}
		w.recount()
	}
}

func second[A, B any](_ A, b B) B { return b }

func TestWhatIsNoRepetition(t *testing.T) {
	w := newWorld(t, unlimited())
	w.account("alice")
	w.account("bob")
	login := func(name, key string, options ...option) (session.View, error) {
		v, _, err := w.login(name, rightPassword, append(options, keyed(key))...)
		return v, err
	}
	first, err := login("alice", "k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := login("alice", "k", permanent); codeOf(err) != api.Conflict {
		t.Errorf("of the other kind: %v", err)
	}
	for why, again := range map[string]func() (session.View, error){
		"another key":     func() (session.View, error) { return login("alice", "K") },
		"no key":          func() (session.View, error) { return login("alice", "") },
		"another account": func() (session.View, error) { return login("bob", "k") },
		"another issuer": func() (session.View, error) {
			if _, _, err := w.issue("carol", keyed("k")); err != nil {
				return session.View{}, err
			}
			v, _, err := w.issue("carol", keyed("k"), func(n *session.NewSession) {
				n.Issuer = &session.Caller{Live: session.Live{AccountID: api.ID{1}, Permissions: account.AllPermissions}}
			})
			return v, err
		},
	} {
		if v, err := again(); err != nil || v.Repeated || v.Handle == first.Handle {
			t.Errorf("%s: repeated %t, %v", why, v.Repeated, err)
		}
	}
	w.advance(600)
	if v, err := login("alice", "k"); err != nil || v.Repeated {
		t.Errorf("after ten minutes: repeated %t, %v", v.Repeated, err)
	}
}

// Where the clock was put back, the last log-in counts after a restart as before, and
// each for its time.
func TestRepetitionsAfterTheClockWentBack(t *testing.T) {
	w := newWorld(t, unlimited())
	old, _ := w.issued("alice", keyed("k"))
	if _, err := w.end(old.Handle); err != nil {
		t.Fatal(err)
	}
	first, _ := w.issued("bob", keyed("k"))
	w.advance(1)
	w.Count() // which sees the time
	w.advance(-8)
	last, _ := w.issued("alice", keyed("k"))
	w.advance(7)
	w.restart()
	if again, _ := w.issued("alice", keyed("k")); again.Handle != last.Handle {
		t.Errorf("repeated %t: it is another one", again.Repeated)
	}
	w.advance(600)
	if again, _ := w.issued("bob", keyed("k")); again.Handle == first.Handle {
		t.Error("it is repeated after ten minutes")
	}
}

func TestFewRepetitionsAreRemembered(t *testing.T) {
	w := newWorld(t, unlimited())
	for i := range 20 {
		w.issued("alice", keyed(fmt.Sprint("key ", i)))
	}
	if n := w.Repetitions(); n != 20 {
		t.Errorf("%d are remembered", n)
	}
	w.advance(600)
	w.issued("alice", keyed("another"))
	if n := w.Repetitions(); n != 1 {
		t.Errorf("%d are remembered after their time", n)
	}
}

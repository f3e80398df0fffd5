package session_test

import (
	"fmt"
	"testing"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

// A cause is something that ends a session of the account web/ann, in words.
type cause struct {
	why string
	do  func(*world) error
}

const killer = "sh_0000000000000000000007"

func byAccount(reason string, keys bool) cause {
	return cause{reason, func(w *world) error {
		_, err := w.EndAccount(w.ctx(), "web", "ann", keys, &session.AccountChange{Reason: reason, By: event.Actor{SessionHandle: killer}})
		return err
	}}
}

func everywhere(reason, realm string, keys bool) cause {
	return cause{reason, func(w *world) error {
		_, _, err := w.EndEverywhere(w.ctx(), session.EndEverywhere{Realm: realm, Permanent: keys, Reason: reason, By: event.Actor{SessionHandle: killer}})
		return err
	}}
}

func altered(why string, change func(*world, *account.Account)) cause {
	return cause{why, func(w *world) error {
		_, _, err := w.AlterAccount(w.ctx(), "web", "ann", &session.AccountChange{
			Change: func(a *account.Account) error { change(w, a); return nil }, By: event.Actor{SessionHandle: killer},
		})
		return err
	}}
}

func waiting(seconds int64) cause {
	return cause{fmt.Sprintf("%d s", seconds), func(w *world) error {
		w.advance(seconds)
		w.Count() // by which the keeper knows how late it is
		return nil
	}}
}

// What ended a session first stands on its tombstone and in its event, whatever came
// after it before that was written.
func TestTheFirstCauseOfAnEnd(t *testing.T) {
	leak, drill, fire := byAccount("leak", true), everywhere("drill", "web", true), everywhere("fire", "", true)
	password := altered("passwordChanged", func(_ *world, a *account.Account) {
		a.SetPassword(api.NewSecret("$argon2id$another"), morning, time.Time{})
	})
	disabled := altered("accountDisabled", func(_ *world, a *account.Account) { a.Disabled = true })
	enabled := altered("enabled", func(_ *world, a *account.Account) { a.Disabled, a.DisableAt = false, time.Time{} })
	until := func(seconds int64) cause {
		return altered(fmt.Sprintf("until %d s from now", seconds), func(w *world, a *account.Account) {
			a.DisableAt = w.clock.Now().Add(time.Duration(seconds) * time.Second)
		})
	}
	dropped := cause{"accountDropped", func(w *world) error {
		_, _, _, err := w.DropAccounts(w.ctx(), "web", []string{"ann"}, &session.AccountChange{
			Change: func(*account.Account) error { return nil }, By: event.Actor{SessionHandle: killer},
		})
		return err
	}}
	anew := cause{"created anew", func(w *world) error {
		_, _, err := w.issue("ann")
		return err
	}}
	restart := cause{"restart", func(w *world) error {
		w.restart()
		return nil
	}}
	backward := cause{"the clock goes back", func(w *world) error {
		w.clock.Advance(-time.Hour)
		return nil
	}}
	many := func(n int) (all []cause) {
		for i := range n {
			all = append(all, waiting(1), byAccount(fmt.Sprintf("no %d", i), true))
		}
		return all
	}
	for _, tt := range []struct {
		what   string
		key    bool
		causes []cause
		want   string
		at     int64 // seconds from the creation
		byNone bool
	}{
		{"an account, twice", false, []cause{leak, waiting(1), password}, "leak", 0, false},
		{"an account, twice, in the other order", false, []cause{password, waiting(1), leak}, "passwordChanged", 0, false},
		{"an account, twice at once", false, []cause{waiting(5), leak, password}, "leak", 5, false},
		{"an account, twice at once, in the other order", false, []cause{waiting(5), password, leak}, "passwordChanged", 5, false},
		{"an account, a restart between", false, []cause{leak, restart, password}, "leak", 0, false},
		{"a key, which a password spares", true, []cause{password, waiting(1), leak, waiting(1), drill}, "leak", 1, false},
		{"a key, which those before spared", true, []cause{byAccount("no", false), everywhere("no", "web", false), everywhere("no", "", false), waiting(1), fire, leak}, "fire", 1, false},
		{"a key, which its account ended before a restart", true, []cause{byAccount("no", false), leak, restart, fire}, "leak", 0, false},

		{"account, realm, server", false, []cause{leak, drill, fire}, "leak", 0, false},
		{"account, server, realm", false, []cause{leak, fire, drill}, "leak", 0, false},
		{"realm, account, server", false, []cause{drill, leak, fire}, "drill", 0, false},
		{"realm, server, account", false, []cause{drill, fire, leak}, "drill", 0, false},
		{"server, account, realm", false, []cause{fire, leak, drill}, "fire", 0, false},
		{"server, realm, account", false, []cause{fire, drill, leak}, "fire", 0, false},
		{"three levels, with restarts", false, []cause{waiting(3), fire, restart, drill, restart, leak, restart}, "fire", 3, false},
		{"three levels after the clock went back", false, []cause{waiting(9), backward, drill, leak, fire}, "drill", 9, false},
		{"a realm, twice", false, []cause{drill, waiting(1), everywhere("again", "web", true)}, "drill", 0, false},
		{"the server, twice", false, []cause{fire, waiting(1), restart, everywhere("again", "", true)}, "fire", 0, false},
		{"another realm before", false, []cause{everywhere("no", "staff", true), waiting(1), drill}, "drill", 1, false},

		{"idle, and then an account", false, []cause{waiting(120), leak}, "idleTimeout", 120, true},
		{"idle long before an account", false, []cause{waiting(200), restart, leak}, "idleTimeout", 120, true},
		{"an account, and then idle", false, []cause{waiting(119), leak, waiting(1), password}, "leak", 119, false},
		{"the server, and then idle, and then its account", false, []cause{waiting(1), fire, waiting(500), restart, leak}, "fire", 1, false},

		{"disabled, and enabled", false, []cause{waiting(1), disabled, waiting(1), enabled, leak}, "accountDisabled", 1, false},
		{"a realm, and then disabled", false, []cause{drill, waiting(1), disabled}, "drill", 0, false},
		{"disabled, and then a realm", false, []cause{disabled, waiting(1), drill}, "accountDisabled", 0, false},
		{"its account's time", false, []cause{until(7), waiting(20)}, "accountDisabled", 7, true},
		{"its account's time, and then the account", false, []cause{until(7), waiting(20), leak}, "accountDisabled", 7, true},
		{"its account's time, and then the realm", false, []cause{until(7), waiting(20), drill}, "accountDisabled", 7, true},
		{"the realm, and then its account's time", false, []cause{until(7), waiting(6), drill, waiting(20)}, "drill", 6, false},
		{"the account, and then its account's time", false, []cause{until(7), waiting(6), leak, waiting(20), enabled}, "leak", 6, false},
		{"its account's time, which is moved too late", false, []cause{until(7), waiting(20), until(50), waiting(1)}, "accountDisabled", 7, true},
		{"its account's time, and enabled", false, []cause{until(7), waiting(20), enabled, leak}, "accountDisabled", 7, true},
		{"its account's time, and disabled without one", true, []cause{until(7), waiting(20), altered("", func(_ *world, a *account.Account) { a.Disabled, a.DisableAt = true, time.Time{} })}, "accountDisabled", 7, true},
		{"its account's time, and dropped", false, []cause{until(7), waiting(20), dropped, anew}, "accountDisabled", 7, true},
		{"idle, and then its account's time", false, []cause{until(121), waiting(130)}, "idleTimeout", 120, true},
		{"its account's time, set to be over", false, []cause{waiting(10), until(-5), waiting(1), leak}, "accountDisabled", 10, false},

		{"dropped", false, []cause{waiting(1), dropped, waiting(9)}, "accountDropped", 1, false},
		{"dropped and created anew", false, []cause{waiting(1), dropped, waiting(9), anew}, "accountDropped", 1, false},
		{"ended, dropped and created anew", false, []cause{leak, waiting(1), dropped, waiting(9), anew}, "leak", 0, false},
		{"dropped and created anew and ended", false, []cause{waiting(1), dropped, anew, leak, restart, password}, "accountDropped", 1, false},
		{"dropped and created anew, twice", true, []cause{waiting(1), dropped, anew, waiting(1), dropped, anew, waiting(1), dropped}, "accountDropped", 1, false},
		{"the server, and then dropped and created anew", false, []cause{fire, waiting(1), dropped, anew}, "fire", 0, false},

		{"sixteen times", false, many(16), "no 0", 1, false},
		{"more often than is kept", false, many(20), "no 4", 5, false},
		{"the server, and then more often than is kept", false, append([]cause{fire}, many(20)...), "fire", 0, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t, unlimited())
			options := []option{idle(120)}
			if tt.key {
				options = []option{permanent}
			}
			v, token := w.issued("ann", options...)
			for _, c := range tt.causes {
				if err := c.do(w); err != nil {
					t.Fatalf("%s: %v", c.why, err)
				}
			}
			want := session.End{Status: session.Revoked, At: morning.Unix() + tt.at, Reason: tt.want, By: killer}
			if tt.byNone {
				want.By = ""
			}
			if tt.want == session.ReasonIdle {
				want.Status = session.Expired
			}
			if w.lives(token) {
				t.Fatal("it lives")
			}
			for _, when := range []string{"before it is written", "after a restart", "as it is written", "when all is said"} {
				got, err := w.Get(t.Context(), v.Handle)
				if err != nil || got.End != want {
					t.Errorf("%s: %+v, %v, want %+v", when, got.End, err, want)
				}
				switch when {
				case "before it is written":
					w.restart()
				case "after a restart":
					w.maintain()
				}
			}
			log := w.events(v.Handle)
			if e := log[len(log)-1]; len(log) != 2 || e.Reason != tt.want || e.By.SessionHandle != want.By || e.Status != want.Status.String() {
				t.Errorf("the log has %+v", log)
			}
		})
	}
}

// An epoch keeps why it rose as long as somebody's tombstone has to name it.
func TestRisesAreForgotten(t *testing.T) {
	w := newWorld(t, unlimited())
	leak, drill := byAccount("leak", true), everywhere("drill", "web", true)
	kept := func() string {
		t.Helper()
		a, err := w.accounts.Named(t.Context(), "web", "ann")
		if err != nil {
			t.Fatal(err)
		}
		item, err := w.inner.Get(t.Context(), session.RealmEpoch("web"))
		if err != nil {
			t.Fatal(err)
		}
		g, err := session.DecodeGeneration(item)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d %d", len(a.Epoch.Rises), len(g.Rises))
	}
	w.issued("ann")
	for _, step := range []struct {
		do   []cause
		want string
	}{
		{[]cause{leak, drill}, "1 1"},
		{[]cause{leak, drill}, "2 2"},
		{[]cause{{"maintain", func(w *world) error { return w.Maintain(w.ctx()) }}, leak, drill}, "1 1"},
		{[]cause{leak, drill}, "1 1"}, // nobody was in
		{[]cause{{"somebody", func(w *world) error { w.issued("bob", idle(60)); return nil }}, waiting(60), leak, drill}, "2 2"},
	} {
		for _, c := range step.do {
			if err := c.do(w); err != nil {
				t.Fatalf("%s: %v", c.why, err)
			}
		}
		if got := kept(); got != step.want {
			t.Errorf("%s rises are kept of the account and of the realm, want %s", got, step.want)
		}
	}
}

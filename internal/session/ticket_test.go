package session_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/faultstore"
	"sessiond/store/mem"
)

// A ticket is for the account and the password of its log-in, once, and for the time
// that the refusal tells; whether it is good after what refused it depends on whether
// something may have changed.
func TestWhatATicketIsGoodFor(t *testing.T) {
	for _, tt := range []struct {
		why       string
		meanwhile func(d *door)
		options   []option
		want      api.Code
		still     api.Code // of a proper use after it
	}{
		{"its log-in", nil, nil, api.OK, api.LoginFailed},
		{"whatever case the name has", nil, []option{as("ALICE")}, api.OK, api.LoginFailed},
		{"until its last second", func(d *door) { d.advance(d.ask.Until - d.unix() - 1) }, nil, api.OK, api.LoginFailed},
		{"not in the next one", func(d *door) { d.advance(d.ask.Until - d.unix()) }, nil, api.LoginFailed, api.LoginFailed},
		{"five minutes, not more", func(d *door) { d.advance(300) }, nil, api.LoginFailed, api.LoginFailed},
		{"not after a restart", func(d *door) { d.restart() }, nil, api.LoginFailed, api.LoginFailed},
		{"not another account", nil, []option{as("bob")}, api.LoginFailed, api.OK},
		{"nobody", nil, []option{as("nobody")}, api.LoginFailed, api.OK},
		{"not the same name elsewhere", nil, []option{func(n *session.NewSession) { n.Issuer, n.Realm = issuer(), &config.Realm{Name: "web", Type: "trusted"} }}, api.LoginFailed, api.OK},
		{"not once there is a new password", func(d *door) { d.must((*world).newPassword(d.world)) }, nil, api.LoginFailed, api.LoginFailed},
		{"not while it is disabled", func(d *door) { d.disable(true) }, nil, api.LoginFailed, api.LoginFailed},
		{"not a new account of that name", func(d *door) {
			_, _, _, err := d.DropAccounts(d.ctx(), "native", []string{"alice"}, &session.AccountChange{Change: func(*account.Account) error { return nil }})
			d.must(err)
			d.account("alice")
		}, nil, api.LoginFailed, api.LoginFailed},
		{"not once there is a newer one", func(d *door) {
			old := d.ask
			d.again()
			d.ask = old
		}, nil, api.LoginFailed, api.LoginFailed},
		{"not another account's session", nil, []option{choosing("bob")}, api.NotFound, api.OK},
		{"not a key", nil, []option{choosing("key")}, api.NotFound, api.OK},
		{"not what is none", nil, []option{func(n *session.NewSession) { n.Choice = api.ID{1} }}, api.NotFound, api.OK},
		{"not what is nothing", nil, []option{func(n *session.NewSession) { n.Choice = api.ID{} }}, api.NotFound, api.OK},
		{"where another limit is reached too", func(d *door) { d.config.Defaults.MaxSessions = 1 }, nil, api.SessionLimitReached, api.SessionLimitReached},
		{"another one who took the place asks again", func(d *door) {
			d.ends("second")
			d.config.Defaults.OnSessionLimit = config.OnLimit{}
			d.add("third")
			d.config.Defaults.OnSessionLimit.PerUsername = config.Ask
		}, []option{choosing("second")}, api.SessionLimitPerUsername, api.LoginFailed},
		{"what has ended already", func(d *door) { d.ends("first") }, nil, api.OK, api.LoginFailed},
	} {
		t.Run(tt.why, func(t *testing.T) {
			d := newDoor(t, mem.New())
			if tt.meanwhile != nil {
				tt.meanwhile(d)
			}
			before := d.Count()
			_, err := d.use(tt.options...)
			if codeOf(err) != tt.want || err != nil && d.Count() != before {
				t.Errorf("%v, want %d; %d live, %d did", err, tt.want, d.Count(), before)
			}
			v, err := d.use()
			if codeOf(err) != tt.still {
				t.Errorf("after it: %v, want %d", err, tt.still)
			}
			if err == nil {
				d.evicted(d.handles["first"], config.LimitPerUsername, v.Handle)
			}
			d.recount()
		})
	}
}

// A door is where alice is asked: she has two sessions and a key, and may have three.
type door struct {
	*world
	handles map[string]api.ID
	ask     *session.ChoiceError
}

func newDoor(t *testing.T, inner store.Store) *door {
	t.Helper()
	d := &door{world: newWorldOn(t, limited(session.Limits{PerAccount: 3}), inner, inner), handles: map[string]api.ID{}}
	d.config.Defaults.OnSessionLimit.PerUsername = config.Ask
	d.account("alice")
	d.account("bob")
	d.add("first")
	d.advance(1)
	d.add("second")
	d.add("key", permanent)
	d.add("bob", as("bob"))
	d.again()
	return d
}

func (d *door) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatalf("%v", err)
	}
}

func (d *door) add(name string, options ...option) {
	d.t.Helper()
	v, _, err := d.login("alice", rightPassword, options...)
	d.must(err)
	d.handles[name] = v.Handle
}

func (d *door) ends(name string) {
	d.t.Helper()
	if done, err := d.end(d.handles[name]); !done || err != nil {
		d.t.Fatalf("end %s: %v, %v", name, done, err)
	}
}

func (d *door) disable(yes bool) {
	d.t.Helper()
	_, _, err := d.AlterAccount(d.ctx(), "native", "alice", &session.AccountChange{
		Change: func(a *account.Account) error { a.Disabled = yes; return nil }, Event: event.Event{Kind: event.AccountAltered},
	})
	d.must(err)
}

// again logs in with the password, to be asked.
func (d *door) again() {
	d.t.Helper()
	_, _, err := d.login("alice", rightPassword)
	ask, ok := errors.AsType[*session.ChoiceError](err)
	if !ok || codeOf(err) != api.SessionLimitPerUsername {
		d.t.Fatalf("log in: %v", err)
	}
	d.ask = ask
}

// use goes on with the ticket, and ends the first session.
func (d *door) use(options ...option) (session.View, error) {
	n := &session.NewSession{Realm: d.realm("native"), Username: "alice", Ticket: d.ask.Ticket, Choice: d.handles["first"]}
	for _, o := range options {
		o(n)
	}
	if name, ok := strings.CutPrefix(n.Description, "choose "); ok {
		n.Choice, n.Description = d.handles[name], ""
	}
	v, _, err := d.Create(d.ctx(), n)
	return v, err
}

func as(name string) option { return func(n *session.NewSession) { n.Username = name } }

func choosing(name string) option {
	return func(n *session.NewSession) { n.Description = "choose " + name }
}

func TestATicketIsGoodOnce(t *testing.T) {
	for range 5 {
		d := newDoor(t, mem.New())
		before := d.Count()
		if got := d.crowd(100, api.LoginFailed, func(*world, int) error { _, err := d.use(); return err }); got != 1 {
			t.Errorf("%d got in", got)
		}
		if d.Count() != before {
			t.Errorf("%d live, %d did", d.Count(), before)
		}
		d.recount()
	}
}

// After a failure a ticket is good exactly if surely nothing was changed.
func TestTicketsOfFailedLogins(t *testing.T) {
	for _, tt := range []struct {
		plan faultstore.Plan
		good bool
	}{
		{faultstore.Plan{Op: faultstore.Commit, Err: store.ErrFull}, true},
		{faultstore.Plan{Op: faultstore.Commit, Err: store.ErrBusy}, true},
		{faultstore.Plan{Op: faultstore.Commit, Err: store.ErrStopped}, true},
		{faultstore.Plan{Op: faultstore.Commit}, false},
		{faultstore.Plan{Op: faultstore.Commit, After: true}, false},
	} {
		inner := mem.New()
		d := newDoor(t, inner)
		d.Close()
		faulty := faultstore.New(inner, faultstore.Plan{})
		d.store = faulty
		d.open()
		d.again()
		tt.plan.Call = faulty.Calls(tt.plan.Op) + 1
		d.Close()
		d.store = faultstore.New(inner, tt.plan)
		d.open()
		d.again()
		if _, err := d.use(); err == nil {
			t.Fatalf("%+v: no fault came", tt.plan)
		}
		if n := d.keys(session.EndKeys); !tt.plan.After && n != 0 {
			t.Errorf("%+v: nobody came, and %d ended", tt.plan, n)
		}
		if _, err := d.use(); (err == nil) != tt.good || err != nil && codeOf(err) != api.LoginFailed {
			t.Errorf("%+v: the ticket after it: %v", tt.plan, err)
		}
		d.recount()
	}
}

// A log-in that fails with its ticket leaves alone the newer one that was given out
// meanwhile.
func TestANewerTicketStays(t *testing.T) {
	inner := mem.New()
	d := newDoor(t, inner)
	d.Close()
	waiting := newGate(session.EndKeys)
	d.store = &hook{Store: inner, before: func(tx *store.Tx) error {
		if !puts(tx, session.EndKeys) {
			return nil
		}
		select {
		case <-waiting.arrived:
			return nil
		default:
		}
		if err := waiting.hold(tx); err != nil {
			return err
		}
		return store.ErrFull
	}}
	d.open()
	d.again()
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { _, err = d.use() })
	<-waiting.arrived
	old := *d
	d.config.Defaults.MaxSessionsPerUsername = 2 // the place of the one that waits is taken
	d.again()
	close(waiting.opened)
	wg.Wait()
	if !errors.Is(err, store.ErrFull) {
		t.Fatalf("the first: %v", err)
	}
	if _, err := old.use(); codeOf(err) != api.LoginFailed {
		t.Errorf("the old ticket: %v", err)
	}
	d.config.Defaults.MaxSessionsPerUsername = 3
	if _, err := d.use(); err != nil {
		t.Errorf("the newer one: %v", err)
	}
}

// Who does not prove to be the account gets no ticket and no list, nor does who could
// not use them.
func TestWhoGetsNoTicket(t *testing.T) {
	for _, tt := range []struct {
		why     string
		prepare func(d *door)
		login   func(d *door) error
		want    api.Code
	}{
		{"a wrong password", nil, func(d *door) error { _, _, err := d.login("alice", otherPassword); return err }, api.LoginFailed},
		{"an unknown account", nil, func(d *door) error { _, _, err := d.login("nobody", otherPassword); return err }, api.LoginFailed},
		{"a disabled account", func(d *door) { d.disable(true) }, func(d *door) error { _, _, err := d.login("alice", rightPassword); return err }, api.LoginFailed},
		{"who wants a key", nil, func(d *door) error { _, _, err := d.login("alice", rightPassword, permanent); return err }, api.SessionLimitPerUsername},
		{"an account with keys alone", func(d *door) {
			d.ends("first")
			d.ends("second")
			d.add("key 2", permanent)
			d.add("key 3", permanent)
		}, func(d *door) error { _, _, err := d.login("alice", rightPassword); return err }, api.SessionLimitPerUsername},
		{"whom another limit refuses", func(d *door) { d.config.Defaults.MaxSessions = 1 }, func(d *door) error { _, _, err := d.login("alice", rightPassword); return err }, api.SessionLimitReached},
		{"who has to change the password", func(d *door) {
			_, _, err := d.AlterAccount(d.ctx(), "native", "alice", &session.AccountChange{
				Change: func(a *account.Account) error {
					a.PasswordMaxDays, a.PasswordChanged = 1, morning.AddDate(0, 0, -2)
					return nil
				}, Event: event.Event{Kind: event.AccountAltered},
			})
			d.must(err)
		}, func(d *door) error { _, _, err := d.login("alice", rightPassword); return err }, api.PasswordExpired},
	} {
		t.Run(tt.why, func(t *testing.T) {
			d := newDoor(t, mem.New())
			if tt.prepare != nil {
				tt.prepare(d)
			}
			d.restart() // forgets the ticket of before
			err := tt.login(d)
			if _, asked := errors.AsType[*session.ChoiceError](err); asked || codeOf(err) != tt.want || d.Tickets() != 0 {
				t.Errorf("%v, want %d; %d tickets", err, tt.want, d.Tickets())
			}
		})
	}
}

// What a refusal shows: the account's living temporary sessions, the oldest first, up
// to a hundred; its words do not hold the ticket.
func TestWhatARefusalShows(t *testing.T) {
	d := newDoor(t, mem.New())
	shown := func() (handles []api.ID) {
		for i := range d.ask.Sessions {
			handles = append(handles, d.ask.Sessions[i].Handle)
		}
		return handles
	}
	if want := []api.ID{d.handles["first"], d.handles["second"]}; !slices.Equal(shown(), want) {
		t.Errorf("%v, want %v", shown(), want)
	}
	text := fmt.Sprintf("%v %+v %s %q %v", d.ask, d.ask, d.ask.Refusal, d.ask, api.FromError(d.ask).Data)
	if secret := d.ask.Ticket.Reveal(); !strings.HasPrefix(secret, "sdtkt_") || len(secret) != 64 || strings.Contains(text, secret[28:]) {
		t.Errorf("a ticket of %d characters, in %s", len(secret), text)
	}
	d.config.Defaults.MaxSessionsPerUsername = 150
	for range 147 {
		d.add("another")
	}
	d.again()
	if got := shown(); len(got) != 100 || got[0] != d.handles["first"] {
		t.Errorf("%d are shown", len(got))
	}
}

// A ticket is no token, and a token no ticket.
func TestATicketIsNoToken(t *testing.T) {
	d := newDoor(t, mem.New())
	if _, ok := d.Authenticate(d.ask.Ticket.Reveal(), true); ok {
		t.Error("the ticket authenticates")
	}
	_, token := d.issued("ann")
	good := d.ask.Ticket
	for _, text := range []string{token, "", "sdtkt_", good.Reveal() + "x", good.Reveal()[:63]} {
		d.ask.Ticket = api.NewSecret(text)
		if _, err := d.use(); codeOf(err) != api.LoginFailed {
			t.Errorf("%.6s… of %d: %v", text, len(text), err)
		}
	}
	d.ask.Ticket = good
	if _, err := d.use(); err != nil {
		t.Error(err)
	}
}

// Of more than 65,536 tickets the oldest are forgotten; an account that asks again and
// again takes the place of none but its own.
func TestTicketsAreBounded(t *testing.T) {
	const most = 1 << 16
	var tickets session.Tickets
	now := morning.Unix()
	id := func(n int) api.ID { return api.ID{byte(n >> 16), byte(n >> 8), byte(n), 1} }
	for n := range most {
		tickets.Put(n, id(n), now)
	}
	for n := range most {
		tickets.Put(most+n, id(0), now)
		if n%1000 == 0 {
			tickets.Take(1, now)
			tickets.GiveBack(1)
		}
	}
	for _, n := range []int{1, 2, most - 1, 2*most - 1} {
		if !tickets.Take(n, now) {
			t.Errorf("ticket %d is forgotten", n)
		}
	}
	if tickets.Take(0, now) || tickets.Take(most, now) {
		t.Error("an account has two")
	}
	for n := range 10 {
		tickets.Put(-1-n, id(most+n), now)
	}
	if tickets.Take(3, now) || tickets.Take(10, now) || !tickets.Take(11, now) {
		t.Error("not the oldest were forgotten")
	}
	if n := tickets.Kept(); n > 2*most+64 {
		t.Errorf("%d are kept", n)
	}
	tickets.Put(-100, id(0), now+301)
	if n := tickets.Kept(); n != 1 {
		t.Errorf("%d are kept that are good for nothing", n-1)
	}
}

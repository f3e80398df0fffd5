package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// morning is when the tests' clocks start.
var morning = time.Date(2026, 3, 2, 8, 15, 0, 0, time.UTC)

const (
	rightPassword = "correct horse battery staple"
	otherPassword = "incorrect donkey charger pin"
)

// tb is what rapid's tests and others have in common.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Context() context.Context
	Cleanup(func())
}

// A world is a keeper with all that it needs, over a store in memory.
type world struct {
	*session.Keeper
	t        tb
	clock    *clock.Fake
	system   *clock.System // that tells the time instead, if there is one
	inner    store.Store
	store    store.Store // what the keeper sees
	accounts *account.Directory
	config   *config.Config
	hasher   *account.Hasher
}

// realms are those of the tests' configuration: the users of staff are operators.
func realms() []config.Realm {
	return []config.Realm{
		{Name: "native", Type: "native"},
		{Name: "web", Type: "trusted", Roles: []string{"shopper"}},
		{Name: "staff", Type: "trusted", Roles: []string{"operator"}, AllowServerRoles: true},
	}
}

// unlimited is the tests' configuration: no limits but those that a test sets.
func unlimited() *config.Config {
	return &config.Config{Realms: realms(), Defaults: config.Defaults{
		LatestAccessSeconds: 60, RetentionPolicy: "autoPurge", RetentionUnit: "week", RetentionPeriod: 4,
	}}
}

func limited(l session.Limits) *config.Config {
	c := unlimited()
	c.Defaults.MaxSessions, c.Defaults.MaxSessionsPerIPAddress, c.Defaults.MaxSessionsPerUsername = l.Total, l.PerAddress, l.PerAccount
	return c
}

func newWorld(t tb, c *config.Config) *world {
	t.Helper()
	inner := mem.New()
	return newWorldOn(t, c, inner, inner)
}

// newWorldOn puts a keeper on a store that has already lived, perhaps; s is inner,
// or in front of it.
func newWorldOn(t tb, c *config.Config, inner, s store.Store) *world {
	t.Helper()
	hasher := account.NewHasherCost(2, 1024, account.Cost{MemoryKiB: 8, Iterations: 1, Parallelism: 1})
	t.Cleanup(hasher.Close)
	w := &world{t: t, clock: clock.NewFake(morning), inner: inner, store: s, config: c, hasher: hasher}
	w.open()
	return w
}

// open opens a keeper on the world's store; one that is open already stays so.
func (w *world) open() {
	w.t.Helper()
	if err := w.tryOpen(); err != nil {
		w.t.Fatalf("open: %v", err)
	}
}

func (w *world) tryOpen() error {
	told := clock.Clock(w.clock)
	if w.system != nil {
		told = w.system
	}
	w.accounts = account.New(account.Deps{Store: w.store, Clock: told, Hasher: w.hasher})
	k, err := session.Open(w.t.Context(), session.Deps{
		Store: w.store, Accounts: w.accounts, Clock: told, Config: config.NewHolder(w.config),
		Failed: func(err error) { w.t.Errorf("the table could not follow: %v", err) },
	}, nil)
	if err != nil {
		return err
	}
	w.Keeper = k
	w.t.Cleanup(k.Close)
	return nil
}

// restart is a new process on the same store, right now.
func (w *world) restart() {
	w.t.Helper()
	w.Close()
	w.open()
}

func (w *world) ctx() context.Context { return w.t.Context() }

func (w *world) advance(seconds int64) { w.clock.Advance(time.Duration(seconds) * time.Second) }

func (w *world) unix() int64 { return w.clock.Now().Unix() }

// issuer stands for a gateway that vouches for users.
func issuer() *session.Caller {
	return &session.Caller{Live: session.Live{Permissions: account.AllPermissions}}
}

func (w *world) realm(name string) *config.Realm {
	for i := range w.config.Realms {
		if w.config.Realms[i].Name == name {
			return &w.config.Realms[i]
		}
	}
	w.t.Fatalf("there is no realm %s", name)
	return nil
}

type option func(*session.NewSession)

func permanent(n *session.NewSession) { n.Permanent = true }

func idle(seconds int64) option     { return func(n *session.NewSession) { n.Idle = seconds } }
func lifetime(seconds int64) option { return func(n *session.NewSession) { n.Max = seconds } }
func in(w *world, realm string) option {
	return func(n *session.NewSession) { n.Realm = w.realm(realm) }
}

func from(address string) option {
	return func(n *session.NewSession) { n.Address = netip.MustParseAddr(address) }
}

// issue creates a session for a user of the realm web, whose word is trusted.
func (w *world) issue(username string, options ...option) (session.View, string, error) {
	n := &session.NewSession{Realm: w.realm("web"), Username: username, Issuer: issuer()}
	for _, o := range options {
		o(n)
	}
	v, token, err := w.Create(w.ctx(), n)
	return v, token.Reveal(), err
}

// issued is issue, which has to succeed.
func (w *world) issued(username string, options ...option) (session.View, string) {
	w.t.Helper()
	v, token, err := w.issue(username, options...)
	if err != nil {
		w.t.Fatalf("issue a session for %s: %v", username, err)
	}
	return v, token
}

// login creates a session by a password; whom the queue turns away tries again.
func (w *world) login(username, password string, options ...option) (session.View, string, error) {
	n := &session.NewSession{Realm: w.realm("native"), Username: username, Password: api.NewSecret(password)}
	for _, o := range options {
		o(n)
	}
	for {
		v, token, err := w.Create(w.ctx(), n)
		if codeOf(err) != api.Overloaded {
			return v, token.Reveal(), err
		}
	}
}

func (w *world) account(username string, roles ...string) *account.Account {
	w.t.Helper()
	a, err := w.accounts.Create(w.ctx(), event.Actor{}, account.NewAccount{Realm: "native", Username: username, Roles: roles, Password: api.NewSecret(rightPassword)})
	if err != nil {
		w.t.Fatalf("create the account %s: %v", username, err)
	}
	return a
}

// raise ends sessions of the server, or of a realm: all, or the temporary ones.
func (w *world) raise(key string, all bool) {
	w.t.Helper()
	_, err := store.Update(w.ctx(), w.inner, key, func(old []byte) ([]byte, error) {
		g, err := session.DecodeGeneration(store.Item{Value: old})
		g.Raise(all, account.Why{})
		return g.Encode(), err
	})
	if err != nil {
		w.t.Fatalf("raise %s: %v", key, err)
	}
}

func (w *world) lives(token string) bool {
	_, ok := w.Authenticate(token, false)
	return ok
}

// ended ends a session as its user does.
func (w *world) end(h api.ID) (bool, error) {
	return w.End(w.ctx(), h, w.NewEnd(session.Ended, session.ReasonLogout, nil), event.Actor{})
}

func (w *world) maintain() {
	w.t.Helper()
	if err := w.Maintain(w.ctx()); err != nil {
		w.t.Fatalf("maintain: %v", err)
	}
}

func (w *world) recount() {
	w.t.Helper()
	if err := w.Table().Recount(); err != nil {
		w.t.Errorf("the table's counts: %v", err)
	}
}

// tombstone returns the stored tombstone of a session.
func (w *world) tombstone(h api.ID) (*session.Record, error) {
	item, err := w.inner.Get(w.ctx(), session.PastKey(h))
	if err != nil {
		return nil, err
	}
	return session.DecodeRecord(h, item.Value)
}

// keys counts the stored keys of a kind.
func (w *world) keys(kind string) int {
	w.t.Helper()
	n, r := 0, store.Range{Prefix: kind}
	for {
		items, err := w.inner.List(w.ctx(), r)
		if err != nil {
			w.t.Fatalf("list %s: %v", kind, err)
		}
		if n += len(items); len(items) < 1000 {
			return n
		}
		r.After = items[len(items)-1].Key
	}
}

// events returns what the log holds about a session, oldest first.
func (w *world) events(h api.ID) []event.Logged {
	w.t.Helper()
	page, _, err := event.Read(w.ctx(), w.inner, event.Query{SessionHandle: session.HandleText(h), Oldest: true, Limit: event.MaxPage})
	if err != nil {
		w.t.Fatalf("read events: %v", err)
	}
	return page
}

func codeOf(err error) api.Code {
	if err == nil {
		return api.OK
	}
	return api.FromError(err).Code
}

// A hook is a store that calls before with each commit ahead of it.
type hook struct {
	store.Store
	before func(tx *store.Tx) error
}

func (h *hook) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	if h.before != nil {
		if err := h.before(&tx); err != nil {
			return 0, err
		}
	}
	return h.Store.Commit(ctx, tx)
}

// puts reports whether a commit writes a key of a kind.
func puts(tx *store.Tx, kind string) bool {
	for i := range tx.Put {
		if store.Kind(tx.Put[i].Key)+"/" == kind {
			return true
		}
	}
	return false
}

// A gate stops the first commit that writes a key of its kind until it is opened.
type gate struct {
	kind    string
	arrived chan struct{}
	opened  chan struct{}
}

func newGate(kind string) *gate {
	return &gate{kind: kind, arrived: make(chan struct{}), opened: make(chan struct{})}
}

func (g *gate) hold(tx *store.Tx) error {
	if !puts(tx, g.kind) {
		return nil
	}
	select {
	case <-g.arrived: // it has stopped one already
	default:
		close(g.arrived)
		<-g.opened
	}
	return nil
}

var errRefused = errors.New("the test refuses this commit")

// refuse makes the commits that write a key of a kind fail with err.
func refuse(kind string, err error) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		if puts(tx, kind) {
			return fmt.Errorf("%w: %w", errRefused, err)
		}
		return nil
	}
}

var (
	_ tb          = (*testing.T)(nil)
	_ store.Store = (*hook)(nil)
)

// has reports whether the store has a key that begins so.
func (w *world) has(prefix string) bool {
	w.t.Helper()
	items, err := w.inner.List(w.ctx(), store.Range{Prefix: prefix, Limit: 1})
	if err != nil {
		w.t.Fatalf("list: %v", err)
	}
	return len(items) > 0
}

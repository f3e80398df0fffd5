package session

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"slices"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/store"
)

// NewSession is what a session is created from. Durations are in seconds.
type NewSession struct {
	Config      *config.Config // the snapshot that the request sees; nil: the one in force
	Realm       *config.Realm
	Username    string
	Password    api.Secret // for a realm that checks passwords
	NewPassword api.Secret // replaces Password in the same commit; zero: it stays
	Issuer      *Caller    // for a trusted realm: who vouches for the user, by his session, or without a handle the server itself

	Instead *Caller             // re-authentication: the account's session that this one replaces; nil: none
	Inherit func(*Record) error // sets here what is taken over from it; may be called more than once
	Join    *Caller             // a session whose browser or device this one joins; nil: none

	Ticket api.Secret // of a refusal, see ChoiceError, in place of the password; zero: none
	Choice api.ID     // the session that is ended with it

	IdempotencyKey string // by which the log-in can be repeated; empty: it can't

	Permanent   bool
	RememberMe  bool
	Description string
	Settings    config.Settings
	Properties  map[string]string
	Client      api.ID
	Idle        int64
	Max         int64
	Abandon     int64
	Cursor      int64
	Address     netip.Addr // of the person behind, as far as it is known
	UserAgent   string
}

// Create logs an account in, or issues a session for it, and returns the new
// session with its token: the only time that it is shown. Errors are *api.Error
// of the codes of log-in and of limits, or come from the store. A log-in that is
// repeated with its key gets the session that is there already, see View.Repeated.
func (k *Keeper) Create(ctx context.Context, n *NewSession) (_ View, _ api.Secret, failure error) {
	if n.Config == nil {
		n.Config = k.config.Get()
	}
	c := &creation{NewSession: n, limits: limitsOf(&n.Config.Defaults), counted: addressFor(n.Address, n.Permanent)}
	if n.Issuer != nil && !n.Issuer.Handle.IsZero() {
		c.may = k.Authority(n.Issuer)
	}
	c.key = n.repetitionKey()
	full := k.table.Full(c.counted, c.leaving(), c.limits, k.now())
	if full != nil && !k.mayRepeat(ctx, c) {
		return View{}, api.Secret{}, full
	}
	a, isNew, giveBack, err := k.admit(ctx, n)
	defer func() {
		if c.keepsTicket(failure) {
			giveBack()
		}
	}()
	if _, ok := errors.AsType[*api.Error](err); ok && full != nil {
		return View{}, api.Secret{}, full // whoever lacks the password is told what he would be without the key
	}
	if err == nil {
		err = k.prepare(ctx, c, a)
	}
	if err != nil {
		return View{}, api.Secret{}, err
	}
	leave, err := k.takeTurn(ctx, c, a)
	if err != nil {
		return View{}, api.Secret{}, err
	}
	defer leave()
	var token api.Secret
	again := isNew && c.limits.evicts() // whoever had his turn before may have made the account
	err = store.Retry(func() error {
		if again {
			if a, isNew, err = k.identifyAgain(ctx, n, a); err != nil {
				return err
			}
		}
		again = true
		token, err = k.createOnce(ctx, c, a, isNew)
		return err
	})
	if err != nil {
		return View{}, api.Secret{}, err
	}
	if c.repeated {
		v, ok := k.complete(c.record)
		if !ok {
			return View{}, api.Secret{}, store.ErrConflict
		}
		v.Repeated = true
		return v, token, nil
	}
	v := View{Record: c.record, Live: true, IdleAt: c.record.idleAt(), MaxAt: int64(c.record.wall())}
	v.Roles, v.RealmRoles = c.own.names, c.inRealm.names
	return v, token, nil
}

// takeTurn waits until no log-in is under way that must not be at once with this one:
// of the same key, where sessions may have to make room of the same account, and where
// a browser or device is joined on the same one.
func (k *Keeper) takeTurn(ctx context.Context, c *creation, a *account.Account) (leave func(), err error) {
	var held []func()
	leave = func() {
		for _, next := range slices.Backward(held) {
			next()
		}
	}
	wait := func(of string, key hash) {
		if err != nil {
			return
		}
		var next func()
		if next, err = k.table.repeats.enter(ctx, of, key); err == nil {
			held = append(held, next)
		}
	}
	if c.key != (hash{}) {
		wait(a.Key(), c.key)
	}
	if c.limits.evicts() {
		wait(a.Key(), hash{})
	}
	if c.Join != nil {
		if r, _, err := k.read(ctx, c.Join.Handle); err == nil { // else it is refused when it is looked at
			wait(clientKey(r.ClientID()), hash{})
		}
	}
	if err != nil {
		leave()
	}
	return leave, err
}

// creation is a session on its way.
type creation struct {
	*NewSession

	limits       Limits
	counted      netip.Addr        // what it counts by
	newHash      api.Secret        // of NewPassword
	may          account.Authority // of the issuer
	record       *Record
	own, inRealm *held

	key      hash   // of IdempotencyKey; zero: none
	doubtful api.ID // a session that it may have made before; none is made beside it
	repeated bool   // the session was there already

	committed bool // perhaps, where that failed
}

// leaving returns the sessions that end with the creation of the new one, whatever the
// limits say.
func (c *creation) leaving() (handles []api.ID) {
	if c.Instead != nil {
		handles = append(handles, c.Instead.Handle)
	}
	if !c.Choice.IsZero() {
		handles = append(handles, c.Choice)
	}
	return handles
}

// prepare does what comes between the check of the password and the commit.
func (k *Keeper) prepare(ctx context.Context, c *creation, a *account.Account) error {
	switch {
	case c.Instead != nil && c.Instead.AccountID != a.ID:
		return api.Errorf(api.BadParam, "to reauthenticate, log in to the account of the session that is shown").At("/params/username")
	case c.Issuer != nil:
		return nil
	case c.NewPassword.IsZero() && a.MustChange(k.clock.Now()):
		return api.Errorf(api.PasswordExpired, "the password is right, but has to be changed: send the log-in again, with a newPassword beside it")
	case c.NewPassword.IsZero():
		return nil
	case account.SamePassword(c.NewPassword, c.Password):
		return account.PresentPassword().At("/params/newPassword")
	}
	var err error
	c.newHash, err = k.accounts.NewHash(ctx, a.Realm, a.Username, c.NewPassword)
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.At("/params/newPassword")
	}
	return err
}

// admit finds out which account the session is for, by the password, a ticket or an
// issuer's word. giveBack makes the ticket good again.
func (k *Keeper) admit(ctx context.Context, n *NewSession) (a *account.Account, isNew bool, giveBack func(), err error) {
	giveBack = func() {}
	if !n.Ticket.IsZero() || !n.Choice.IsZero() { // nobody chooses without a ticket
		if a, giveBack, err = k.redeem(ctx, n); err != nil || n.Issuer == nil {
			return a, false, giveBack, err
		}
	}
	a, isNew, err = k.identify(ctx, n)
	return a, isNew, giveBack, err
}

// identify finds out which account the session is for: by its password, or by
// the word of an issuer.
func (k *Keeper) identify(ctx context.Context, n *NewSession) (a *account.Account, isNew bool, err error) {
	if n.Issuer == nil {
		a, err = k.accounts.Verify(ctx, n.Realm.Name, n.Username, n.Password, n.Address)
		return a, false, err
	}
	a, err = k.accounts.Find(ctx, n.Realm.Name, n.Username)
	if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.NotFound {
		a, err = k.accounts.Fresh(ctx, n.Realm.Name, n.Username, nil)
		isNew = err == nil
	}
	if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.AlreadyExists { // at this moment
		a, err = k.accounts.Find(ctx, n.Realm.Name, n.Username)
	}
	switch {
	case err != nil:
		return nil, false, err
	case !a.Active(k.clock.Now()):
		return nil, false, account.LoginFailed()
	case !a.AllowsFrom(n.Address):
		return nil, false, api.Errorf(api.AddressNotAllowed, "the account may not be used from the client's address: clientIpAddress tells it")
	}
	return a, isNew, k.issuable(n, a)
}

// issuable refuses an issuer who would gain by the session: permissions of the
// server that he lacks, or, for an API key, any: a session may do what keys may
// not.
func (k *Keeper) issuable(n *NewSession, a *account.Account) error {
	if !n.Realm.AllowServerRoles {
		return nil
	}
	holds := k.holdsIn(n.Realm, a)
	if holds&^n.Issuer.Permissions != 0 || (holds != 0 && n.Issuer.IsKey()) {
		return api.Errorf(api.PermissionDenied, "the account holds permissions of the server that the issuer lacks, or the issuer is an API key: the account has to be one without them")
	}
	return nil
}

// holdsIn returns the permissions that an account and its realm give.
func (k *Keeper) holdsIn(realm *config.Realm, a *account.Account) account.Permissions {
	roles := k.accounts.Roles()
	return account.Effective(roles.Held(a.Roles)) | account.Effective(roles.Named(realm.Roles))
}

// identifyAgain reads the account that changed while its session was created. A
// password that was right under the old record counts as long as it is still
// the account's.
func (k *Keeper) identifyAgain(ctx context.Context, n *NewSession, was *account.Account) (*account.Account, bool, error) {
	if n.Issuer != nil {
		return k.identify(ctx, n)
	}
	a, err := k.accounts.Find(ctx, was.Realm, was.Username)
	if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.NotFound {
		return nil, false, account.LoginFailed()
	}
	if err != nil {
		return nil, false, err
	}
	if !a.Active(k.clock.Now()) || !a.AllowsFrom(n.Address) || a.ID != was.ID || a.PasswordSerial != was.PasswordSerial {
		return nil, false, account.LoginFailed()
	}
	return a, false, nil
}

// create takes a place and commits the session on the condition that neither
// its account nor an epoch above it has changed.
func (k *Keeper) create(ctx context.Context, c *creation, a *account.Account, isNew bool) (api.Secret, error) {
	server, realm, err := k.generations(ctx, a.Realm)
	if err != nil {
		return api.Secret{}, err
	}
	tx := store.Tx{If: []store.Cond{a.Cond(), {Key: serverEpoch, Rev: server.Rev}, {Key: realmEpoch(a.Realm), Rev: realm.Rev}}}
	may, err := c.may.Conds(ctx)
	if err != nil {
		return api.Secret{}, err
	}
	tx.If = append(tx.If, may...)
	if !c.doubtful.IsZero() {
		tx.If = append(tx.If, store.Cond{Key: liveKey(c.doubtful)})
	}
	h, err := k.newHandle()
	if err == nil {
		err = k.replace(ctx, c, h, &tx)
	}
	var evicted []eviction
	if err == nil {
		evicted, err = k.join(ctx, c, a, h, &tx)
	}
	if err != nil {
		return api.Secret{}, err
	}
	if _, ok := k.Endable(Reach{Account: a.ID}, c.Choice); ok { // else it has ended by itself
		evicted = append(evicted, eviction{c.Choice, config.LimitPerUsername})
	}
	prefix := prefixSession
	if c.Permanent {
		prefix = prefixKey
	}
	token, err := newToken(prefix, h, k.random)
	if err != nil {
		return api.Secret{}, err
	}
	now := k.now()
	life, err := k.lifetime(c)
	if err != nil {
		return api.Secret{}, err
	}
	stored := a // the table knows nothing but what is committed
	a, changed := k.loggedIn(c, a.Clone(), k.clock.Now(), h)
	more, err := k.table.reserve(c.claim(h, stored, evicted), now)
	if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.SessionLimitPerUsername && c.limits.On.PerUsername == config.Ask && !c.Permanent {
		err = k.ask(ctx, stored, e)
	}
	by := event.Actor{SessionHandle: HandleText(h), Realm: a.Realm, Username: a.Username}
	var rest []eviction
	if err == nil {
		rest, err = k.evict(ctx, append(evicted, more...), by, &tx)
	}
	if err != nil {
		k.table.Free(h)
		return api.Secret{}, err
	}
	r := &Record{
		Handle: h, Prefix: prefix, Secrets: []Secret{secretOf(token)},
		AccountID: a.ID, Realm: a.Realm, Username: a.Username,
		Permanent: c.Permanent, RememberMe: c.RememberMe, Description: c.Description, Settings: c.Settings, Properties: c.Properties, Client: c.Client,
		IdleSeconds: c.Idle, MaxSeconds: life, AbandonAfter: c.Abandon, CursorSeconds: c.Cursor,
		Tolerance: c.tolerance(), Created: now, Authenticated: now, LastAccess: now, Methods: ByPassword,
		Address: c.Address, UserAgent: c.UserAgent, Revision: 1, Repeat: c.key,
		Epochs: Epochs{server.For(c.Permanent), realm.For(c.Permanent), a.Epoch.For(c.Permanent)},
	}
	c.record = r
	k.holds(c, a)
	e := event.Event{
		Time: k.clock.Now(), Kind: event.SessionCreated, SessionHandle: HandleText(h), AccountID: a.ID.String(), Realm: a.Realm, Username: a.Username,
		Status: Active.String(), Permanent: c.Permanent, ClientIPAddress: addressText(c.Address),
		By: k.creator(c, a, h),
	}
	if c.Issuer != nil {
		r.Methods = ByIssuer
	}
	tx.Put = append(tx.Put, store.Put{Key: liveKey(h), Value: r.encode()})
	if err := k.remember(ctx, c, a, isNew || changed, &tx); err != nil {
		k.table.Free(h)
		return api.Secret{}, err
	}
	about := event.Event{Time: e.Time, AccountID: e.AccountID, Realm: a.Realm, Username: a.Username, By: e.By}
	if isNew {
		about.Kind = event.AccountCreated
		event.Append(&tx, about)
	}
	if !c.newHash.IsZero() {
		about.Kind = event.PasswordChanged
		event.Append(&tx, about)
	}
	event.Append(&tx, e)
	same := repetition{a.ID, c.key}
	var before madeSession
	if c.key != (hash{}) {
		before = k.table.repeats.note(same, h, now, now)
	}
	_, err = k.store.Commit(ctx, tx)
	if c.committed = !store.NotApplied(err); err != nil {
		if !c.committed { // else the session may exist after all, and keeps its place
			k.table.Free(h)
			k.table.repeats.undo(same, h, before)
		}
		return api.Secret{}, err
	}
	k.evictRest(ctx, rest, by)
	return token, nil
}

// lifetime returns the seconds that a session lives at the most: shorter, at random,
// than was asked for, so that sessions that were created together do not expire
// together. An API key lives as long as was asked for.
func (k *Keeper) lifetime(c *creation) (int64, error) {
	span := c.Max * c.Config.Defaults.ExpiryJitterPercent / 100
	if c.Permanent || span == 0 {
		return c.Max, nil
	}
	var b [8]byte
	if _, err := io.ReadFull(k.random, b[:]); err != nil {
		return 0, err
	}
	return c.Max - int64(binary.BigEndian.Uint64(b[:])%uint64(span+1)), nil //nolint:gosec // at most a quarter of a lifetime
}

// tolerance returns the seconds after its idle time in which a session still lives.
func (c *creation) tolerance() int64 {
	if c.Permanent {
		return 0
	}
	return min(c.Config.Defaults.IdleToleranceSeconds, maxTolerance)
}

// claim asks for a place for the session h beside those that are evicted already.
func (c *creation) claim(h api.ID, a *account.Account, evicted []eviction) *claim {
	asks := &claim{handle: h, account: a, address: c.counted, permanent: c.Permanent, endsOthers: !c.NewPassword.IsZero(), leaving: c.leaving(), limits: c.limits}
	for i := range evicted {
		asks.leaving = append(asks.leaving, evicted[i].handle)
	}
	if c.Join != nil {
		asks.keep = c.Join.Handle
	}
	return asks
}

// loggedIn does to an account what its log-in, as the session h, does, and reports
// whether its record changed.
func (k *Keeper) loggedIn(c *creation, a *account.Account, now time.Time, h api.ID) (_ *account.Account, changed bool) {
	if c.Issuer != nil {
		return a, false
	}
	changed = a.NoteLogin(now)
	if !c.newHash.IsZero() {
		a.SetPassword(c.newHash, now, time.Time{})
		if k.table.isSettled(a, k.now()) {
			a.Epoch.Forget()
		}
		a.Epoch.Raise(false, account.Why{At: k.moment(), Reason: ReasonPasswordChanged, By: HandleText(h)})
		changed = true
	}
	return a, changed
}

// holds notes what roles the session has, and keeps them with it where they are to
// be frozen. An API key never lives on rights that its account has lost, nor gains
// by those that it is given later; nor does a session whom somebody else vouched
// for: both may have been made by others, while the account was worth little.
func (k *Keeper) holds(c *creation, a *account.Account) {
	c.own, c.inRealm = k.table.heldBy(a.Roles), k.table.heldIn(c.Realm.Roles)
	switch {
	case c.Config.RolesMode == config.FrozenRoles && !c.Permanent:
		c.record.Frozen = freeze(c.own, c.inRealm)
	case c.Permanent || c.Issuer != nil && c.Realm.AllowServerRoles:
		c.record.Frozen = &Frozen{Ceiling: true, Permissions: c.own.perms | c.inRealm.perms}
	}
}

// replace ends, in the commit of its successor, the session that is replaced, if
// one is.
func (k *Keeper) replace(ctx context.Context, c *creation, successor api.ID, tx *store.Tx) error {
	if c.Instead == nil {
		return nil
	}
	h := c.Instead.Handle
	if _, ok := k.Living(Reach{Account: c.Instead.AccountID}, h); !ok {
		return replacedAlready()
	}
	old, rev, err := k.read(ctx, h)
	if errors.Is(err, store.ErrNotFound) {
		return replacedAlready()
	}
	if err != nil {
		return err
	}
	if err := c.Inherit(old); err != nil {
		return err
	}
	end := End{Status: Replaced, At: k.now(), Reason: ReasonReauthenticated, By: HandleText(successor)}
	k.endIn(tx, old, rev, end, event.Actor{SessionHandle: end.By, Realm: old.Realm, Username: old.Username})
	return nil
}

func replacedAlready() *api.Error {
	return api.Errorf(api.InvalidAuthToken, "the authToken belongs to no live session any more, so there is nothing to reauthenticate: log in without reauthenticate")
}

// generations reads the epochs of the server and of a realm, with the revisions
// on which a create is conditional.
func (k *Keeper) generations(ctx context.Context, realm string) (server, inRealm Generation, err error) {
	if server, err = k.generation(ctx, serverEpoch); err != nil {
		return server, inRealm, err
	}
	inRealm, err = k.generation(ctx, realmEpoch(realm))
	return server, inRealm, err
}

func (k *Keeper) generation(ctx context.Context, key string) (Generation, error) {
	item, err := k.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return Generation{}, nil
	}
	if err != nil {
		return Generation{}, err
	}
	return decodeGeneration(item)
}

func secretOf(token api.Secret) Secret {
	text := token.Reveal()
	return Secret{Hash: hashOf(text), Mask: text[len(text)-maskLen:]}
}

func (r *Record) idleAt() int64 {
	if r.IdleSeconds == 0 {
		return 0
	}
	return r.LastAccess + r.IdleSeconds
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

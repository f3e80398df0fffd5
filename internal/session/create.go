package session

import (
	"context"
	"errors"
	"net/netip"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/store"
)

// NewSession is what a session is created from. Durations are in seconds.
type NewSession struct {
	Config   *config.Config // the snapshot that the request sees; nil: the one in force
	Realm    *config.Realm
	Username string
	Password api.Secret // for a realm that checks passwords
	Issuer   *Caller    // for a trusted realm: who vouches for the user

	Permanent   bool
	RememberMe  bool
	Description string
	Settings    config.Settings
	Idle        int64
	Max         int64
	Abandon     int64
	Cursor      int64
	Address     netip.Addr // of the person behind, as far as it is known
	UserAgent   string
}

// Create logs an account in, or issues a session for it, and returns the new
// session with its token: the only time that it is shown. Errors are *api.Error
// of the codes of log-in and of limits, or come from the store.
func (k *Keeper) Create(ctx context.Context, n *NewSession) (View, api.Secret, error) {
	if n.Config == nil {
		n.Config = k.config.Get()
	}
	limits := limitsOf(&n.Config.Defaults)
	address := addressFor(n.Address, n.Permanent)
	if err := k.table.Full(address, limits, k.now()); err != nil {
		return View{}, api.Secret{}, err
	}
	a, isNew, err := k.identify(ctx, n)
	if err != nil {
		return View{}, api.Secret{}, err
	}
	for range attempts {
		r, token, err := k.create(ctx, n, a, isNew, address, limits)
		if err == nil {
			v := View{Record: r, Live: true, IdleAt: r.idleAt(), MaxAt: int64(r.wall()), Roles: a.Roles, RealmRoles: n.Realm.Roles}
			return v, token, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return View{}, api.Secret{}, err
		}
		if a, isNew, err = k.identifyAgain(ctx, n, a); err != nil {
			return View{}, api.Secret{}, err
		}
	}
	return View{}, api.Secret{}, store.ErrConflict
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
		if a, err = k.accounts.Fresh(n.Realm.Name, n.Username, nil); err == nil {
			err = n.issuable(a)
		}
		return a, true, err
	}
	switch {
	case err != nil:
		return nil, false, err
	case a.Disabled:
		return nil, false, account.LoginFailed()
	}
	return a, false, n.issuable(a)
}

// issuable refuses an issuer who would gain by the session: permissions of the
// server that he lacks, or, for an API key, any: a session may do what keys may
// not.
func (n *NewSession) issuable(a *account.Account) error {
	if !n.Realm.AllowServerRoles {
		return nil
	}
	holds := account.Effective(a.Roles) | account.Effective(n.Realm.Roles)
	if holds&^n.Issuer.Permissions != 0 || (holds != 0 && n.Issuer.IsKey()) {
		return api.Errorf(api.PermissionDenied, "the account holds permissions of the server that the issuer lacks, or the issuer is an API key: the account has to be one without them")
	}
	return nil
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
	if a.Disabled || a.ID != was.ID || a.PasswordHash != was.PasswordHash {
		return nil, false, account.LoginFailed()
	}
	return a, false, nil
}

// create takes a place and commits the session on the condition that neither
// its account nor an epoch above it has changed.
func (k *Keeper) create(ctx context.Context, n *NewSession, a *account.Account, isNew bool, address *addressKey, l Limits) (*Record, api.Secret, error) {
	server, realm, err := k.generations(ctx, a.Realm)
	if err != nil {
		return nil, api.Secret{}, err
	}
	h, err := k.newHandle()
	if err != nil {
		return nil, api.Secret{}, err
	}
	prefix := prefixSession
	if n.Permanent {
		prefix = prefixKey
	}
	token, err := newToken(prefix, h, k.random)
	if err != nil {
		return nil, api.Secret{}, err
	}
	now := k.now()
	if err := k.table.Reserve(h, a, address, l, now); err != nil {
		return nil, api.Secret{}, err
	}
	r := &Record{
		Handle: h, Prefix: prefix, Secrets: []Secret{secretOf(token)},
		AccountID: a.ID, Realm: a.Realm, Username: a.Username,
		Permanent: n.Permanent, RememberMe: n.RememberMe, Description: n.Description, Settings: n.Settings,
		IdleSeconds: n.Idle, MaxSeconds: n.Max, AbandonAfter: n.Abandon, CursorSeconds: n.Cursor,
		Created: now, Authenticated: now, LastAccess: now, Methods: ByPassword,
		Address: n.Address, UserAgent: n.UserAgent, Revision: 1,
		Epochs: Epochs{server.of(n.Permanent), realm.of(n.Permanent), a.Epoch.For(n.Permanent)},
	}
	e := event.Event{
		Time: k.clock.Now(), Kind: event.SessionCreated, SessionHandle: HandleText(h), AccountID: a.ID.String(), Realm: a.Realm, Username: a.Username,
		Status: Active.String(), Permanent: n.Permanent, ClientIPAddress: addressText(n.Address),
		By: event.Actor{SessionHandle: HandleText(h), Realm: a.Realm, Username: a.Username},
	}
	if n.Issuer != nil {
		r.Methods = ByIssuer
		e.By = k.Actor(n.Issuer)
	}
	tx := store.Tx{
		If:  []store.Cond{a.Cond(), {Key: serverEpoch, Rev: server.Rev}, {Key: realmEpoch(a.Realm), Rev: realm.Rev}},
		Put: []store.Put{{Key: liveKey(h), Value: r.encode()}},
	}
	if isNew {
		put, err := a.Put()
		if err != nil {
			k.table.Free(h)
			return nil, api.Secret{}, err
		}
		tx.Put = append(tx.Put, put)
		created := event.Event{Time: e.Time, Kind: event.AccountCreated, AccountID: e.AccountID, Realm: a.Realm, Username: a.Username, By: e.By}
		event.Append(&tx, created)
	}
	event.Append(&tx, e)
	if _, err := k.store.Commit(ctx, tx); err != nil {
		if store.NotApplied(err) {
			k.table.Free(h) // else the session may exist after all, and keeps its place
		}
		return nil, api.Secret{}, err
	}
	return r, token, nil
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

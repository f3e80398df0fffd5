package actions

import (
	"context"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
	"sessiond/store"
)

// Here is what keeps those who manage accounts and roles from gaining by it.

// mayGive refuses a role that the caller may not give to accounts of a realm, or
// take from them.
func (a *accounts) mayGive(who *session.Caller, realm *config.Realm, role *account.Role) *api.Error {
	if realm.Type == config.Trusted && !realm.AllowServerRoles && role.Grants() != 0 {
		return api.Errorf(api.BadParam, "the role holds permissions of the server, which the realm does not allow")
	}
	if !a.holds(who, role) {
		return api.Errorf(api.PermissionDenied, "nobody gives or takes a role whose permissions he does not hold himself")
	}
	return nil
}

// mayEnter refuses to create an account, and with it a password, in a realm that
// gives its accounts more than the caller holds. In a trusted realm there are no
// passwords: who issues a session is asked for what it holds.
func (a *accounts) mayEnter(who *session.Caller, realm *config.Realm) error {
	if realm.Type != config.Trusted && !a.holds(who, a.Accounts.Roles().Named(realm.Roles)...) {
		return api.Errorf(api.PermissionDenied, "the realm gives its accounts permissions that the caller does not hold: nobody creates such an account").At("/params/realm")
	}
	return nil
}

// holds reports whether a caller holds all that roles give.
func (a *accounts) holds(who *session.Caller, roles ...*account.Role) bool {
	return account.Effective(roles)&^who.Permissions == 0 && account.Covers(a.Sessions.Patterns(who), account.Patterns(roles))
}

// mayManage refuses to change an account that holds more than the caller: he could
// log in as it, and hold that too.
func (a *accounts) mayManage(c *dispatch.Call, who *session.Caller, of *account.Account) error {
	roles := a.Accounts.Roles()
	held := roles.Held(of.Roles)
	if realm, ok := c.Config.Realm(of.Realm); ok {
		held = append(held, roles.Named(realm.Roles)...)
	}
	if who.AccountID != of.ID && !a.holds(who, held...) {
		return api.Errorf(api.PermissionDenied, "the account holds permissions that the caller does not hold: nobody changes such an account").At("/params/username")
	}
	return nil
}

// manageable is mayManage for an account by its name.
func (a *accounts) manageable(ctx context.Context, c *dispatch.Call, who *session.Caller, realm, username string) error {
	of, err := a.Accounts.Find(ctx, realm, username)
	if err == nil {
		err = a.mayManage(c, who, of)
	}
	return about(err, map[api.Code]string{api.NotFound: "/params/username", api.BadParam: "/params/username"})
}

// callerUnchanged holds while the caller's account is as it was when his rights
// were looked at: what he has lost meanwhile he does not use any more.
func (a *accounts) callerUnchanged(who *session.Caller) []store.Cond {
	by := a.Sessions.Actor(who)
	canonical, err := account.Canonical(by.Username)
	if err != nil {
		canonical = by.Username // his session has ended: the condition does not hold
	}
	return []store.Cond{{Key: account.Key(by.Realm, canonical), Rev: who.AccountRev}}
}

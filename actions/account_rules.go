package actions

import (
	"context"
	"slices"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
)

// Here is what keeps those who manage accounts and roles from gaining by it.

// mayGive refuses a role that the caller may not give to accounts of a realm.
func (a *accounts) mayGive(who *session.Caller, realm *config.Realm, role *account.Role) *api.Error {
	if realm.Type == config.Trusted && !realm.AllowServerRoles && role.Grants() != 0 {
		return api.Errorf(api.BadParam, "the role holds permissions of the server, which the realm does not allow")
	}
	return a.mayTake(who, role)
}

// mayTake refuses a role that the caller may not take from accounts. One without
// permissions means something to applications: who gives it has it himself, or
// everything.
func (a *accounts) mayTake(who *session.Caller, role *account.Role) *api.Error {
	const refused = "nobody gives or takes a role that he does not hold himself, with all of its permissions"
	if len(role.Permissions) == 0 && !slices.Contains(a.Sessions.Roles(who), role) && !account.Covers(a.Sessions.Patterns(who), []string{"*"}) {
		return api.Errorf(api.PermissionDenied, refused)
	}
	return a.holds(who, role.Permissions, refused)
}

// mayEnter refuses to create an account, and with it a password, in a realm that
// gives its accounts more than the caller holds. In a trusted realm there are no
// passwords: who issues a session is asked for what it holds.
func (a *accounts) mayEnter(who *session.Caller, realm *config.Realm) *api.Error {
	if realm.Type == config.Trusted {
		return nil
	}
	gives := account.Patterns(a.Accounts.Roles().Named(realm.Roles))
	if refusal := a.holds(who, gives, "the realm gives its accounts permissions that the caller does not hold: nobody creates such an account"); refusal != nil {
		return refusal.At("/params/realm")
	}
	return nil
}

// holds refuses permissions that the caller does not hold. What is the server's own
// an API key holds for itself alone: by giving it to an account it would get a
// session, which may do what keys may not.
func (a *accounts) holds(who *session.Caller, permissions []string, otherwise string) *api.Error {
	grants := account.Grant(permissions)
	switch {
	case grants&^who.Permissions != 0 || !account.Covers(a.Sessions.Patterns(who), permissions):
		return api.Errorf(api.PermissionDenied, "%s", otherwise)
	case grants != 0 && who.IsKey():
		return api.Errorf(api.KindNotAllowed, "an API key neither gives permissions of the server nor changes who holds them: log in and use the session")
	}
	return nil
}

// mayManage refuses to change an account that holds more than the caller: he could
// log in as it, and hold that too.
func (a *accounts) mayManage(c *dispatch.Call, who *session.Caller, of *account.Account) error {
	if who.AccountID == of.ID {
		return nil
	}
	roles := a.Accounts.Roles()
	held := roles.Held(of.Roles)
	if realm, ok := c.Config.Realm(of.Realm); ok {
		held = append(held, roles.Named(realm.Roles)...)
	}
	for _, role := range held {
		if refusal := a.mayTake(who, role); refusal != nil {
			refusal.Message = "the account holds what the caller does not hold, or may not give: nobody changes such an account"
			return refusal.At("/params/username")
		}
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

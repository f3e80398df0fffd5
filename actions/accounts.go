package actions

import (
	"context"
	"strconv"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
)

// accounts are the handlers of what concerns accounts.
type accounts struct{ Deps }

func (a *accounts) table() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "createAccount", APIs: admin(), Work: dispatch.Writing, Allow: dispatch.Holders(account.AccountsWrite),
			Doc:    "Creates an account. Nobody gives it a role whose permissions he does not hold himself.",
			Errors: []api.Code{api.AlreadyExists, api.PasswordPolicy, api.RealmUnavailable},
		}, a.create),
		dispatch.Protected(dispatch.Spec{
			Name: "listAccounts", APIs: admin(), Work: dispatch.Listing, KeepsIdle: false, Allow: dispatch.Holders(account.AccountsRead),
			Doc:    "Lists the accounts of a realm by name.",
			Errors: []api.Code{api.RealmUnavailable},
		}, a.list),
		dispatch.Protected(dispatch.Spec{
			Name: "changePassword", APIs: both(), Work: dispatch.Writing, Allow: dispatch.Callers().SessionsOnly().Others(account.AccountsWrite),
			Doc: "Replaces a password, which ends the account's other temporary sessions. One's own takes the current one; " +
				"holders of sessiond.accounts.write set that of others.",
			Errors: []api.Code{api.LoginFailed, api.LoginThrottled, api.PasswordPolicy, api.NotFound},
		}, a.changePassword),
	}
}

type createAccountParams struct {
	Realm              string     `json:"realm,omitzero" max:"64" doc:"Where the account is checked; native unless named."`
	Username           string     `json:"username" min:"1" max:"64" doc:"The account's name: kept as it is written, compared without case."`
	Password           api.Secret `json:"password,omitzero" max:"1024" doc:"At least 15 characters; not for a trusted realm."`
	AccountDescription string     `json:"accountDescription,omitzero" max:"65500" doc:"Free text."`
	Roles              []string   `json:"roles,omitzero" max:"100" doc:"Names of roles: admin, operator, auditor, gateway, issuer."`
}

type accountView struct {
	Username           string    `json:"username" doc:"The account's name, as it was created."`
	Realm              string    `json:"realm" doc:"Where the account is checked."`
	AccountID          string    `json:"accountId" doc:"Its identifier, which never comes back."`
	AccountDescription string    `json:"accountDescription" doc:"Free text."`
	Roles              []string  `json:"roles" doc:"Roles given to the account."`
	CreatedTimestamp   time.Time `json:"createdTimestamp" doc:"When it was created."`
	LastPasswordChange time.Time `json:"lastPasswordChange,omitzero" doc:"When its password was set; absent: it has none."`
	Enabled            bool      `json:"enabled" doc:"May it log in?"`
}

func viewOfAccount(a *account.Account) accountView {
	return accountView{
		Username: a.Username, Realm: a.Realm, AccountID: a.ID.String(), AccountDescription: a.Description, Roles: a.Roles,
		CreatedTimestamp: a.Created.Truncate(time.Second), LastPasswordChange: a.PasswordChanged.Truncate(time.Second), Enabled: !a.Disabled,
	}
}

func (a *accounts) create(ctx context.Context, c *dispatch.Call, who *session.Caller, p createAccountParams) (accountView, error) {
	realm, err := realmOf(c.Config, p.Realm, "realm")
	if err == nil {
		err = fits(realm, p.Password, "password")
	}
	if err != nil {
		return accountView{}, err
	}
	for i, role := range p.Roles {
		if !account.IsRole(role) {
			return accountView{}, bad("roles", "must name roles that exist: admin, operator, auditor, gateway, issuer").At("/params/roles/" + strconv.Itoa(i))
		}
	}
	if realm.Type == config.Trusted && !realm.AllowServerRoles && account.Effective(p.Roles) != 0 {
		return accountView{}, bad("roles", "must hold no permissions of the server: the realm does not allow them")
	}
	if account.Effective(p.Roles)&^who.Permissions != 0 {
		return accountView{}, api.Errorf(api.PermissionDenied, "nobody gives a role whose permissions he does not hold himself").At("/params/roles")
	}
	made, err := a.Accounts.Create(ctx, a.Sessions.Actor(who), account.NewAccount{
		Realm: realm.Name, Username: p.Username, Description: p.AccountDescription, Roles: p.Roles, Password: p.Password,
	})
	if err != nil {
		return accountView{}, about(err, map[api.Code]string{
			api.BadParam: "/params/username", api.AlreadyExists: "/params/username", api.PasswordPolicy: "/params/password",
		})
	}
	return viewOfAccount(made), nil
}

type listAccountsParams struct {
	Realm        string   `json:"realm,omitzero" max:"64" doc:"Whose accounts; native unless named."`
	PartialNames []string `json:"partialNames,omitzero" max:"100" doc:"Only accounts whose names begin with one of these."`
	Limit        int      `json:"limit,omitzero" min:"1" max:"1000" doc:"At most so many; 1,000 unless named."`
	Cursor       string   `json:"cursor,omitzero" max:"64" doc:"Goes on where the answer ended that held it."`
}

type listAccountsResult struct {
	Accounts []accountView `json:"accounts" doc:"The accounts, by name."`
	Cursor   string        `json:"cursor,omitzero" doc:"Give it back to go on; absent: there is no more."`
}

func (a *accounts) list(ctx context.Context, c *dispatch.Call, _ *session.Caller, p listAccountsParams) (listAccountsResult, error) {
	realm, err := realmOf(c.Config, p.Realm, "realm")
	if err != nil {
		return listAccountsResult{}, err
	}
	for i, prefix := range p.PartialNames {
		if _, err := account.Canonical(prefix); err != nil && prefix != "" {
			return listAccountsResult{}, about(err, map[api.Code]string{api.BadParam: "/params/partialNames/" + strconv.Itoa(i)})
		}
	}
	page, next, err := a.Accounts.List(ctx, realm.Name, p.PartialNames, p.Cursor, p.Limit)
	if err != nil {
		return listAccountsResult{}, about(err, map[api.Code]string{api.BadParam: "/params/cursor"})
	}
	r := listAccountsResult{Accounts: make([]accountView, len(page)), Cursor: next}
	for i := range page {
		r.Accounts[i] = viewOfAccount(page[i])
	}
	return r, nil
}

type changePasswordParams struct {
	Realm           string     `json:"realm,omitzero" max:"64" doc:"Where the account is checked; with username. Native unless named."`
	Username        string     `json:"username,omitzero" max:"64" doc:"Whose password; one's own unless named."`
	CurrentPassword api.Secret `json:"currentPassword,omitzero" max:"1024" doc:"The password until now; for one's own."`
	NewPassword     api.Secret `json:"newPassword" max:"1024" doc:"At least 15 characters."`
}

type changePasswordResult struct {
	SessionsEnded int64 `json:"sessionsEnded" doc:"How many sessions of the account that ended."`
}

func (a *accounts) changePassword(ctx context.Context, c *dispatch.Call, who *session.Caller, p changePasswordParams) (changePasswordResult, error) {
	by := a.Sessions.Actor(who)
	realm, username := by.Realm, by.Username
	if p.Realm != "" && p.Username == "" {
		return changePasswordResult{}, missing("username")
	}
	if username == "" { // the session has ended meanwhile
		return changePasswordResult{}, dispatch.InvalidToken()
	}
	if p.Username != "" {
		realm, username = p.Realm, p.Username
	}
	in, err := realmOf(c.Config, realm, "realm")
	if err == nil {
		err = fits(in, p.NewPassword, "newPassword")
	}
	if err != nil {
		return changePasswordResult{}, err
	}
	realm = in.Name
	change := session.PasswordChange{Realm: realm, Username: username, Password: p.NewPassword, By: by}
	if own, err := sameName(realm, username, by.Realm, by.Username); err != nil {
		return changePasswordResult{}, about(err, map[api.Code]string{api.BadParam: "/params/username"})
	} else if own {
		if p.CurrentPassword.IsZero() {
			return changePasswordResult{}, missing("currentPassword")
		}
		change.Spare = who
		if change.Checked, err = a.Accounts.Verify(ctx, realm, username, p.CurrentPassword, c.Address); err != nil {
			return changePasswordResult{}, err
		}
	} else if !c.Reach.All {
		return changePasswordResult{}, denied(account.AccountsWrite)
	}
	ended, err := a.Sessions.ChangePassword(ctx, change)
	if err != nil {
		return changePasswordResult{}, about(err, map[api.Code]string{api.PasswordPolicy: "/params/newPassword", api.NotFound: "/params/username"})
	}
	if a.PasswordChanged != nil {
		a.PasswordChanged(realm, username)
	}
	return changePasswordResult{SessionsEnded: int64(ended)}, nil
}

// sameName reports whether two names are those of one account.
func sameName(realm, username, otherRealm, otherUsername string) (bool, error) {
	one, err := account.Canonical(username)
	if err != nil {
		return false, err
	}
	other, err := account.Canonical(otherUsername)
	return realm == otherRealm && one == other, err
}

package actions

import (
	"context"
	"errors"
	"strconv"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
)

// accounts are the handlers of what concerns accounts.
type accounts struct{ Deps }

func (a *accounts) table() []dispatch.Action {
	manages := dispatch.Holders(account.AccountsWrite).Recent()
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "createAccount", APIs: admin(), Work: dispatch.Writing, Allow: manages,
			Doc:    "Creates an account. Nobody gives it a role whose permissions he does not hold himself, and an API key none with permissions of the server.",
			Errors: []api.Code{api.AlreadyExists, api.Conflict, api.PasswordPolicy, api.RealmUnavailable, api.KindNotAllowed},
		}, a.create),
		dispatch.Protected(dispatch.Spec{
			Name: "cloneAccount", APIs: admin(), Work: dispatch.Writing, Allow: manages,
			Doc:    "Creates an account with the settings of another one, and, unless told otherwise, its roles.",
			Errors: []api.Code{api.NotFound, api.AlreadyExists, api.Conflict, api.PasswordPolicy, api.RealmUnavailable, api.KindNotAllowed},
		}, a.clone),
		dispatch.Protected(dispatch.Spec{
			Name: "alterAccount", APIs: admin(), Work: dispatch.Writing, Allow: manages,
			Doc: "Changes an account; what is not named stays as it is. A new password ends its temporary sessions; disabling it ends them all, API keys too. " +
				"Nobody alters an account that holds permissions which he does not hold himself.",
			Errors: []api.Code{api.NotFound, api.Conflict, api.PasswordPolicy, api.RealmUnavailable, api.KindNotAllowed},
		}, a.alter),
		dispatch.Protected(dispatch.Spec{
			Name: "dropAccounts", APIs: admin(), Work: dispatch.Ending, Allow: manages,
			Doc: "Drops accounts, all or none of them, with all of their sessions and API keys. A name that no account has is told as a warning. " +
				"An account that is created later under such a name is another one.",
			Errors: []api.Code{api.Conflict, api.RealmUnavailable, api.KindNotAllowed},
		}, a.drop),
		dispatch.Protected(dispatch.Spec{
			Name: "listAccounts", APIs: admin(), Work: dispatch.Listing, Allow: dispatch.Holders(account.AccountsRead),
			Doc:    "Lists the accounts of a realm by name. Where accounts were dropped a page may hold fewer than limit and still have a cursor.",
			Errors: []api.Code{api.RealmUnavailable},
		}, a.list),
		dispatch.Protected(dispatch.Spec{
			Name: "describeAccounts", APIs: both(), Work: dispatch.Listing, Allow: dispatch.Callers().Others(account.AccountsRead),
			Doc: "Shows accounts in full: those of usernames, or the caller's own, or all for holders of sessiond.accounts.read. " +
				"What is unknown or out of reach is left out.",
			Errors: []api.Code{api.RealmUnavailable},
		}, a.describe),
		dispatch.Protected(dispatch.Spec{
			Name: "changePassword", APIs: both(), Work: dispatch.Writing,
			Allow: dispatch.Callers().SessionsOnly().Others(account.AccountsWrite).RecentForOthers(),
			Doc: "Replaces a password, which ends the account's other temporary sessions. One's own takes the current one; " +
				"holders of sessiond.accounts.write set that of others.",
			Errors: []api.Code{api.LoginFailed, api.LoginThrottled, api.PasswordPolicy, api.NotFound, api.Conflict, api.RealmUnavailable},
		}, a.changePassword),
	}
}

type createAccountParams struct {
	Realm    string   `json:"realm,omitzero" max:"64" doc:"Where the account is checked; native unless named."`
	Username string   `json:"username" min:"1" max:"64" doc:"The account's name: kept as it is written, compared without case."`
	Roles    []string `json:"roles,omitzero" max:"64" doc:"Names of roles."`

	newPassword
	accountSettings
}

type createAccountResult struct {
	accountDetails
	oneTime
}

func (a *accounts) create(ctx context.Context, c *dispatch.Call, who *session.Caller, p createAccountParams) (createAccountResult, error) {
	realm, err := realmOf(c.Config, p.Realm, "realm")
	if err != nil {
		return createAccountResult{}, err
	}
	settings, refusal := p.check(c)
	if refusal != nil {
		return createAccountResult{}, refusal
	}
	var roles []*account.Role
	for i, name := range p.Roles {
		role, ok := a.Accounts.Roles().Get(name)
		at := "/params/roles/" + strconv.Itoa(i)
		if !ok {
			return createAccountResult{}, bad("roles", "must name roles that exist: listRoles shows them").At(at)
		}
		if err := a.mayGive(who, realm, role); err != nil {
			return createAccountResult{}, err.At(at)
		}
		roles = append(roles, role)
	}
	return a.make(ctx, who, realm, &p.newPassword, "password", account.NewAccount{
		Realm: realm.Name, Username: p.Username, Roles: account.Names(roles), If: account.Conds(roles),
		Set: func(of *account.Account) { settings.apply(of, a.Clock.Now()) },
	})
}

// make creates an account; password and its member are named for errors.
func (a *accounts) make(ctx context.Context, who *session.Caller, realm *config.Realm, p *newPassword, member string, n account.NewAccount) (createAccountResult, error) {
	if refusal := a.mayEnter(who, realm); refusal != nil {
		return createAccountResult{}, refusal
	}
	n.May = a.Sessions.Authority(who)
	var err error
	if n.Password, n.OneTimeUntil, err = a.password(realm, p, member); err != nil {
		return createAccountResult{}, err
	}
	if realm.Type != config.Trusted && n.Password.IsZero() {
		return createAccountResult{}, missing(member)
	}
	made, err := a.Accounts.Create(ctx, a.Sessions.Actor(who), n)
	if err != nil {
		name := "/params/username"
		if member == "clonePassword" {
			name = "/params/cloneUsername"
		}
		return createAccountResult{}, about(err, map[api.Code]string{api.BadParam: name, api.AlreadyExists: name, api.PasswordPolicy: "/params/" + member})
	}
	return createAccountResult{a.details(made), showOnce(n.Password, n.OneTimeUntil)}, nil
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
	realm, err := a.managed(c.Config, p.Realm, "realm")
	if err != nil {
		return listAccountsResult{}, err
	}
	for i, prefix := range p.PartialNames {
		if _, err := account.CanonicalPrefix(prefix); err != nil && prefix != "" {
			return listAccountsResult{}, about(err, map[api.Code]string{api.BadParam: "/params/partialNames/" + strconv.Itoa(i)})
		}
	}
	page, next, err := a.Accounts.List(ctx, realm.Name, p.PartialNames, p.Cursor, p.Limit)
	if err != nil {
		return listAccountsResult{}, about(err, map[api.Code]string{api.BadParam: "/params/cursor"})
	}
	r := listAccountsResult{Accounts: make([]accountView, len(page)), Cursor: next}
	for i := range page {
		r.Accounts[i] = a.view(page[i])
	}
	return r, nil
}

type describeAccountsParams struct {
	Realm     string   `json:"realm,omitzero" max:"64" doc:"Whose accounts; with usernames or for a listing. Native unless named."`
	Usernames []string `json:"usernames,omitzero" max:"1000" doc:"Names of accounts."`
	Limit     int      `json:"limit,omitzero" min:"1" max:"1000" doc:"At most so many; 1,000 unless named."`
	Cursor    string   `json:"cursor,omitzero" max:"64" doc:"Goes on where the answer ended that held it."`
}

// maxDescribed bounds what accounts that are asked for by name may have beside
// their names, in bytes.
const maxDescribed = 4 << 20

type describeAccountsResult struct {
	Accounts []accountDetails `json:"accounts" doc:"The accounts."`
	Cursor   string           `json:"cursor,omitzero" doc:"Give it back to go on; absent: there is no more."`
}

func (a *accounts) describe(ctx context.Context, c *dispatch.Call, who *session.Caller, p describeAccountsParams) (describeAccountsResult, error) {
	realm, err := a.managed(c.Config, p.Realm, "realm")
	if err != nil {
		return describeAccountsResult{}, err
	}
	name, r := realm.Name, describeAccountsResult{Accounts: []accountDetails{}}
	var found []*account.Account
	switch {
	case len(p.Usernames) > 0 && p.Cursor != "":
		return r, bad("cursor", "must not stand beside usernames: send one of them")
	case len(p.Usernames) == 0 && c.Reach.All:
		if found, r.Cursor, err = a.Accounts.List(ctx, name, nil, p.Cursor, p.Limit); err != nil {
			return r, about(err, map[api.Code]string{api.BadParam: "/params/cursor"})
		}
	case len(p.Usernames) == 0:
		by := a.Sessions.Actor(who)
		if name, p.Usernames = by.Realm, []string{by.Username}; by.Username == "" { // the session has ended meanwhile
			return r, dispatch.InvalidToken()
		}
	}
	seen, size := map[api.ID]bool{}, 0
	for i, username := range p.Usernames {
		of, err := a.Accounts.Find(ctx, name, username)
		if err == nil && seen[of.ID] {
			continue
		}
		switch e, ok := errors.AsType[*api.Error](err); {
		case ok && e.Code == api.NotFound, err == nil && !c.Reach.Covers(of.ID):
			c.Warn(api.NotFound, "usernames/"+strconv.Itoa(i)+" names no account within the caller's reach")
		case err != nil:
			return r, about(err, map[api.Code]string{api.BadParam: "/params/usernames/" + strconv.Itoa(i)})
		default:
			seen[of.ID] = true
			found = append(found, of)
			if size += len(of.Description) + account.SizeOf(of.Metadata); size > maxDescribed {
				return r, api.Errorf(api.TooLarge, "these accounts are larger than %d MiB together: ask for fewer", maxDescribed>>20).At("/params/usernames/" + strconv.Itoa(i))
			}
		}
	}
	for _, of := range found {
		r.Accounts = append(r.Accounts, a.details(of))
	}
	return r, nil
}

type cloneAccountParams struct {
	Realm            string            `json:"realm,omitzero" max:"64" doc:"Where both accounts are checked; native unless named."`
	SourceUsername   string            `json:"sourceUsername" min:"1" max:"64" doc:"The account that is there."`
	CloneUsername    string            `json:"cloneUsername" min:"1" max:"64" doc:"The name of the new one."`
	ClonePassword    api.Secret        `json:"clonePassword,omitzero" max:"1024" doc:"Its password, at least 15 characters; not for a trusted realm."`
	OneTimePassword  bool              `json:"oneTimePassword,omitzero" doc:"Makes a password that is good once, as createAccount does."`
	CloneRoles       *bool             `json:"cloneRoles" doc:"false gives it no roles."`
	CloneDescription *string           `json:"cloneDescription" max:"65500" doc:"Its description; that of the source unless named."`
	CloneMetadata    *account.Metadata `json:"cloneMetadata" doc:"Its metadata; that of the source unless named."`
}

func (a *accounts) clone(ctx context.Context, c *dispatch.Call, who *session.Caller, p cloneAccountParams) (createAccountResult, error) {
	realm, err := realmOf(c.Config, p.Realm, "realm")
	if err != nil {
		return createAccountResult{}, err
	}
	settings, refusal := (&accountSettings{AccountDescription: p.CloneDescription, Metadata: p.CloneMetadata}).check(c)
	if refusal != nil {
		return createAccountResult{}, refusal.At("/params/cloneMetadata")
	}
	source, err := a.Accounts.Find(ctx, realm.Name, p.SourceUsername)
	if err != nil {
		return createAccountResult{}, about(err, map[api.Code]string{api.NotFound: "/params/sourceUsername", api.BadParam: "/params/sourceUsername"})
	}
	if err := a.mayManage(c, who, source); err != nil {
		return createAccountResult{}, api.FromError(err).At("/params/sourceUsername")
	}
	n := account.NewAccount{Realm: realm.Name, Username: p.CloneUsername}
	if p.CloneRoles == nil || *p.CloneRoles {
		for _, role := range a.Accounts.Roles().Held(source.Roles) {
			if err := a.mayGive(who, realm, role); err != nil {
				return createAccountResult{}, err.At("/params/cloneRoles")
			}
			n.Roles, n.If = append(n.Roles, role.Name), append(n.If, account.Conds([]*account.Role{role})...)
		}
	}
	n.Set = func(of *account.Account) {
		of.Settings, of.Description, of.Metadata = source.Settings, source.Description, source.Metadata
		settings.apply(of, a.Clock.Now())
	}
	return a.make(ctx, who, realm, &newPassword{Password: p.ClonePassword, OneTimePassword: p.OneTimePassword}, "clonePassword", n)
}

type dropAccountsParams struct {
	Realm     string   `json:"realm,omitzero" max:"64" doc:"Where the accounts are checked; native unless named."`
	Usernames []string `json:"usernames" max:"30" doc:"Names of accounts."`
}

type dropAccountsResult struct {
	Dropped       []string `json:"dropped" doc:"Names of the accounts that were dropped."`
	SessionsEnded int64    `json:"sessionsEnded" doc:"How many sessions of theirs that ended."`
}

func (a *accounts) drop(ctx context.Context, c *dispatch.Call, who *session.Caller, p dropAccountsParams) (dropAccountsResult, error) {
	realm, err := a.managed(c.Config, p.Realm, "realm")
	if err != nil {
		return dropAccountsResult{}, err
	}
	names, missing, ended, err := a.Sessions.DropAccounts(ctx, realm.Name, p.Usernames, &session.AccountChange{
		By: a.Sessions.Actor(who), May: a.Sessions.Authority(who),
		Change: func(of *account.Account) error { return a.mayManage(c, who, of) },
	})
	if err != nil {
		return dropAccountsResult{}, err
	}
	for _, i := range missing {
		c.Warn(api.NotFound, "usernames/"+strconv.Itoa(i)+" names no account: there was nothing to drop")
	}
	return dropAccountsResult{Dropped: names, SessionsEnded: int64(ended)}, nil
}

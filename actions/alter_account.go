package actions

import (
	"context"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

type alterAccountParams struct {
	Realm    string `json:"realm,omitzero" max:"64" doc:"Where the account is checked; native unless named."`
	Username string `json:"username" min:"1" max:"64" doc:"The account's name."`

	newPassword
	accountSettings
}

type alterAccountResult struct {
	accountDetails
	oneTime

	SessionsEnded int64 `json:"sessionsEnded" doc:"How many sessions of the account that ended."`
}

func (a *accounts) alter(ctx context.Context, c *dispatch.Call, who *session.Caller, p alterAccountParams) (alterAccountResult, error) {
	realm, err := a.managed(c.Config, p.Realm, "realm")
	if err != nil {
		return alterAccountResult{}, err
	}
	settings, refusal := p.check(c)
	if refusal != nil {
		return alterAccountResult{}, refusal
	}
	may := a.Sessions.Authority(who)
	password, once, err := a.password(realm, &p.newPassword, "password")
	if err != nil {
		return alterAccountResult{}, err
	}
	var hash api.Secret
	if !password.IsZero() {
		if who.IsKey() {
			member := "password"
			if p.OneTimePassword {
				member = "oneTimePassword"
			}
			return alterAccountResult{}, api.Errorf(api.KindNotAllowed, "an API key may not set passwords: log in and use the session").At("/params/" + member)
		}
		if err := a.manageable(ctx, c, who, realm.Name, p.Username); err != nil { // before the work of a hash
			return alterAccountResult{}, err
		}
		if hash, err = a.Accounts.NewHash(ctx, realm.Name, p.Username, password); err != nil {
			return alterAccountResult{}, about(err, map[api.Code]string{api.PasswordPolicy: "/params/password"})
		}
	}
	change := &session.AccountChange{By: a.Sessions.Actor(who), May: may, Event: event.Event{Kind: event.AccountAltered}}
	change.Change = func(of *account.Account) error {
		if err := a.mayManage(c, who, of); err != nil {
			return err
		}
		own := of.ID == who.AccountID
		if own && !hash.IsZero() {
			return api.Errorf(api.BadParam, "one's own password is set by changePassword, which asks for the present one").At("/params/password")
		}
		if own && !a.mayLoosen(who, settings) {
			return api.Errorf(api.PermissionDenied, "one's own limits are for others to change: of his own account nobody but an administrator, in a session, alters more than description and metadata")
		}
		now := a.Clock.Now()
		change.Event.Changed = settings.apply(of, now)
		if !hash.IsZero() {
			of.SetPassword(hash, now, once)
			change.Event.Changed = append(change.Event.Changed, "password")
		}
		if own && !of.AllowsFrom(c.Address) {
			return bad("allowedAddresses", "must hold the address that this request comes from: it would shut its sender out")
		}
		return nil
	}
	altered, ended, err := a.Sessions.AlterAccount(ctx, realm.Name, p.Username, change)
	if err != nil {
		return alterAccountResult{}, about(err, map[api.Code]string{api.NotFound: "/params/username", api.BadParam: "/params/username"})
	}
	if !hash.IsZero() && a.PasswordChanged != nil {
		a.PasswordChanged(altered.Realm, altered.Username)
	}
	return alterAccountResult{a.details(altered), showOnce(password, once), int64(ended)}, nil
}

// mayLoosen reports whether a caller may change these settings of his own account.
func (a *accounts) mayLoosen(who *session.Caller, p *accountChange) bool {
	text := accountSettings{AccountDescription: p.AccountDescription, Metadata: p.Metadata, MemoryLimit: p.MemoryLimit, MemoryRule: p.MemoryRule}
	return *p.accountSettings == text || a.holds(who, []string{"*", "sessiond.*"}, "") == nil
}

package actions

import (
	"context"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
)

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
		if account.SamePassword(p.NewPassword, p.CurrentPassword) {
			return changePasswordResult{}, account.PresentPassword().At("/params/newPassword")
		}
	} else if !c.Reach.All {
		return changePasswordResult{}, c.Denied(account.AccountsWrite)
	} else {
		change.Allow = func(of *account.Account) error { return a.mayManage(c, who, of) }
		change.May = a.Sessions.Authority(who)
		if err := a.manageable(ctx, c, who, realm, username); err != nil { // before the work of a hash
			return changePasswordResult{}, err
		}
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

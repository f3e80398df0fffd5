package actions

import (
	"cmp"
	"context"
	"slices"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

// massEnds holds what ends sessions however many there are, in one write.
func (s *sessions) massEnds() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "revokeAllSessions", APIs: both(), Work: dispatch.Ending, Allow: dispatch.Holders(account.SessionsRevoke).Others(account.SessionsRevoke).Recent(),
			Doc: "Ends all sessions of the server, of a realm or of an account, in the time of one write, however many there are. " +
				"API keys are spared unless includePermanent.",
			Errors: []api.Code{api.NotFound, api.RealmUnavailable, api.Conflict},
		}, s.revokeAll),
		dispatch.Protected(dispatch.Spec{
			Name: "logoutByUser", APIs: both(), Work: dispatch.Ending, Allow: dispatch.Callers().Others(account.SessionsRevoke),
			Doc:    "Ends all sessions of an account, the caller's own unless another one is named. API keys are spared unless includePermanent.",
			Errors: []api.Code{api.NotFound, api.Conflict},
		}, s.logoutByUser),
	}
}

// spared is who survives a mass logout.
type spared struct {
	IncludePermanent bool   `json:"includePermanent,omitzero" doc:"Ends API keys too."`
	ExceptCurrent    bool   `json:"exceptCurrent,omitzero" doc:"Spares the caller's own session."`
	Reason           string `json:"reason,omitzero" max:"256" doc:"Kept with each session that this ends."`
}

type revokeAllParams struct {
	Level    string `json:"level" enum:"server,realm,account" doc:"What all is: named, so that nothing left out by mistake ends more than was meant."`
	Realm    string `json:"realm,omitzero" max:"64" doc:"The realm, for level realm; where the account is checked, native unless named, for level account."`
	Username string `json:"username,omitzero" max:"64" doc:"The account's name, for level account."`
	DryRun   bool   `json:"dryRun,omitzero" doc:"Ends nothing and tells what would be."`

	spared
}

func (p *revokeAllParams) Validate() error {
	switch {
	case p.Level == "server" && p.Realm != "":
		return bad("realm", "must be absent at level server: it would not narrow anything")
	case p.Level == "realm" && p.Realm == "":
		return missing("realm")
	case p.Level != "account" && p.Username != "":
		return bad("username", "must be absent but at level account: it would not narrow anything")
	case p.Level == "account" && p.Username == "":
		return missing("username")
	}
	return nil
}

type revokeAllResult struct {
	Revoked       int64 `json:"revoked" doc:"How many living sessions that ended, or would."`
	PermanentLeft int64 `json:"permanentLeft" doc:"How many API keys were spared."`
	DryRun        bool  `json:"dryRun,omitzero" doc:"Nothing was ended."`
}

func (s *sessions) revokeAll(ctx context.Context, c *dispatch.Call, who *session.Caller, p revokeAllParams) (revokeAllResult, error) {
	if p.Level == "account" {
		return s.endAccount(ctx, c, who, accountName{p.Realm, p.Username}, "/params/username", &p.spared, p.DryRun)
	}
	if p.Realm != "" && !slices.Contains(s.Sessions.Realms(), p.Realm) { // those that services.json names no more have sessions too
		_, err := realmOf(c.Config, p.Realm, "realm")
		return revokeAllResult{}, err
	}
	how := session.EndEverywhere{
		Realm: p.Realm, Permanent: p.IncludePermanent, Reason: cmp.Or(p.Reason, session.ReasonMassLogout), By: s.Sessions.Actor(who), DryRun: p.DryRun,
	}
	if p.ExceptCurrent {
		how.Spare = who
	}
	ended, left, err := s.Sessions.EndEverywhere(ctx, how)
	return revokeAllResult{Revoked: ended, PermanentLeft: left, DryRun: p.DryRun}, err
}

type logoutByUserParams struct {
	Realm    string `json:"realm,omitzero" max:"64" doc:"Where the account is checked; native unless named."`
	Username string `json:"username,omitzero" max:"64" doc:"Whose sessions; the caller's own account unless named."`

	spared
}

func (s *sessions) logoutByUser(ctx context.Context, c *dispatch.Call, who *session.Caller, p logoutByUserParams) (revokeAllResult, error) {
	if p.Username == "" {
		if p.Realm != "" {
			return revokeAllResult{}, missing("username")
		}
		by := s.Sessions.Actor(who)
		p.Realm, p.Username = by.Realm, by.Username
		if p.Username == "" { // the session has ended meanwhile
			return revokeAllResult{}, dispatch.InvalidToken()
		}
	}
	return s.endAccount(ctx, c, who, accountName{p.Realm, p.Username}, "/params/username", &p.spared, false)
}

// endAccount ends the sessions of one account.
func (s *sessions) endAccount(ctx context.Context, c *dispatch.Call, who *session.Caller, name accountName, at string, p *spared, dry bool) (revokeAllResult, error) {
	a, err := s.account(ctx, c, name, at)
	if err != nil {
		return revokeAllResult{}, err
	}
	r := revokeAllResult{DryRun: dry}
	for _, live := range s.Sessions.OfAccount(a.ID) {
		switch {
		case p.ExceptCurrent && live.Handle == who.Handle:
		case live.Permanent && !p.IncludePermanent:
			r.PermanentLeft++
		default:
			r.Revoked++
		}
	}
	if dry {
		return r, nil
	}
	change := &session.AccountChange{
		Reason: cmp.Or(p.Reason, session.ReasonRevoked), By: s.Sessions.Actor(who), Event: event.Event{Kind: event.AccountSessionsEnded},
	}
	if p.ExceptCurrent {
		change.Spare = who
	}
	ended, err := s.Sessions.EndAccount(ctx, a.Realm, a.Username, p.IncludePermanent, change)
	r.Revoked = int64(ended)
	return r, err
}

package actions

import (
	"context"
	"errors"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

// ends holds what ends sessions.
func (s *sessions) ends() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Optional(dispatch.Spec{
			Name: "deleteSession", Aliases: []string{"logout"}, APIs: both(), AnyToken: true,
			Allow: dispatch.Anyone().Others(account.SessionsRevoke),
			Doc: "Ends a session: the caller's own unless another one is named. To show a session's token is right enough to end it. " +
				"Ending what has ended already succeeds, with alreadyEnded.",
			Errors: []api.Code{api.NotFound},
		}, s.delete),
		dispatch.Protected(dispatch.Spec{
			Name: "revokeSessions", APIs: both(), Allow: dispatch.Callers().Others(account.SessionsRevoke),
			Doc: "Ends sessions by their handles, with a result each, or all of some accounts. API keys among the sessions of accounts are spared unless includePermanent; " +
				"a handle names exactly what it means, and its API key is spared only by includePermanent: false.",
			Errors: []api.Code{api.NotFound, api.Conflict},
		}, s.revoke),
	}
}

type deleteResult struct {
	AlreadyEnded bool `json:"alreadyEnded,omitzero" doc:"There was no such living session any more."`
}

func (s *sessions) delete(ctx context.Context, c *dispatch.Call, who *session.Caller, p target) (deleteResult, error) {
	h, status, err := s.toEnd(c, who, &p)
	if err != nil {
		return deleteResult{}, err
	}
	var by event.Actor
	if who != nil {
		by = s.Sessions.Actor(who)
	}
	reason := session.ReasonLogout
	if status == session.Revoked {
		reason = session.ReasonRevoked
	}
	done := false
	if !h.IsZero() {
		if done, err = s.Sessions.End(ctx, h, s.Sessions.NewEnd(status, reason, who), by); err != nil {
			return deleteResult{}, err
		}
	}
	if !done {
		c.Warn(api.InvalidAuthToken, "the authToken belongs to no live session: there was nothing to end")
	}
	return deleteResult{AlreadyEnded: !done}, nil
}

// toEnd finds the session to end, and as what it ends. A zero handle means that
// it has ended already.
func (s *sessions) toEnd(c *dispatch.Call, who *session.Caller, p *target) (api.ID, session.Status, error) {
	switch {
	case !p.TokenID.IsZero():
		shown, ok := s.Sessions.Authenticate(p.TokenID.Reveal(), false)
		if !ok {
			return api.ID{}, 0, nil
		}
		return shown.Handle, session.Ended, nil
	case who == nil && p.isZero() && c.DeadToken:
		return api.ID{}, 0, nil
	case who == nil:
		return api.ID{}, 0, dead()
	case p.isZero():
		return who.Handle, session.Ended, nil
	}
	h, _ := session.ParseHandle(p.SessionHandle)
	live, ok := s.Sessions.Living(c.Reach, h)
	if !ok {
		return api.ID{}, 0, notFound("session")
	}
	if live.Handle == who.Handle {
		return h, session.Ended, nil
	}
	return h, session.Revoked, nil
}

type accountName struct {
	Realm    string `json:"realm,omitzero" max:"64" doc:"Where the account is checked; native unless named."`
	Username string `json:"username" min:"1" max:"64" doc:"The account's name."`
}

func (a *accountName) realm() string {
	if a.Realm == "" {
		return "native"
	}
	return a.Realm
}

type revokeParams struct {
	SessionHandles   []string      `json:"sessionHandles,omitzero" min:"1" max:"1000" doc:"Sessions by their handles."`
	Accounts         []accountName `json:"accounts,omitzero" min:"1" max:"100" doc:"Accounts, all of whose sessions are meant."`
	DryRun           bool          `json:"dryRun,omitzero" doc:"Ends nothing and tells what would be."`
	ExceptCurrent    bool          `json:"exceptCurrent,omitzero" doc:"Spares the caller's own session."`
	IncludePermanent *bool         `json:"includePermanent" doc:"Are API keys ended too? Unless named: those whose handles are given, but none of accounts."`
	Reason           string        `json:"reason,omitzero" max:"256" doc:"Kept with each session that this ends."`
}

func (p *revokeParams) Validate() error {
	switch {
	case p.SessionHandles == nil && p.Accounts == nil:
		return api.Errorf(api.MissingParam, "sessionHandles or accounts is required").At("/params/sessionHandles")
	case p.SessionHandles != nil && p.Accounts != nil:
		return bad("accounts", "must not stand beside sessionHandles: send one of them")
	}
	return (&selection{SessionHandles: p.SessionHandles}).Validate()
}

type revokeResult struct {
	Results       map[string]bool `json:"results,omitzero" doc:"For sessionHandles: whether each was ended, or would be."`
	Revoked       int64           `json:"revoked" doc:"How many sessions were ended, or would be."`
	PermanentLeft int64           `json:"permanentLeft" doc:"How many API keys were spared."`
	DryRun        bool            `json:"dryRun,omitzero" doc:"Nothing was ended."`
	Sample        []string        `json:"sample,omitzero" doc:"For a dry run: handles of some of the sessions."`
}

// sampleSize is how many handles a dry run shows.
const sampleSize = 10

func (s *sessions) revoke(ctx context.Context, c *dispatch.Call, who *session.Caller, p revokeParams) (revokeResult, error) {
	if p.Reason == "" {
		p.Reason = session.ReasonRevoked
	}
	if p.Accounts != nil {
		return s.revokeAccounts(ctx, c, who, &p)
	}
	r := revokeResult{Results: map[string]bool{}, DryRun: p.DryRun}
	var handles []api.ID
	for _, text := range p.SessionHandles {
		h, _ := session.ParseHandle(text)
		live, ok := s.Sessions.Living(c.Reach, h)
		_, twice := r.Results[text]
		r.Results[text] = false
		switch {
		case !ok || twice || (p.ExceptCurrent && h == who.Handle):
		case live.Permanent && p.IncludePermanent != nil && !*p.IncludePermanent:
			r.PermanentLeft++
		default:
			handles = append(handles, h)
		}
	}
	done, err := s.endAll(ctx, who, handles, &p)
	for i, h := range handles {
		if done[i] {
			r.Revoked++
			r.Results[session.HandleText(h)] = true
		}
	}
	if p.DryRun {
		r.Sample = sample(handles)
	}
	if err != nil && r.Revoked > 0 {
		return revokeResult{}, partly(err, r.Revoked, int64(len(handles))-r.Revoked)
	}
	return r, err
}

// partly is the error of a job over many sessions of which some were done.
func partly(err error, done, left int64) error {
	e := *dispatch.Classify(err)
	e.Data.Done, e.Data.Left = done, left
	return (&e).Because(err)
}

// endAll ends the sessions, or for a dry run none of them.
func (s *sessions) endAll(ctx context.Context, who *session.Caller, handles []api.ID, p *revokeParams) ([]bool, error) {
	if p.DryRun {
		done := make([]bool, len(handles))
		for i := range done {
			done[i] = true
		}
		return done, nil
	}
	return s.Sessions.EndAll(ctx, handles, s.Sessions.NewEnd(session.Revoked, p.Reason, who), s.Sessions.Actor(who))
}

// revokeAccounts ends the sessions of accounts, one commit each.
func (s *sessions) revokeAccounts(ctx context.Context, c *dispatch.Call, who *session.Caller, p *revokeParams) (revokeResult, error) {
	r := revokeResult{DryRun: p.DryRun}
	permanent := p.IncludePermanent != nil && *p.IncludePermanent
	var handles []api.ID
	var found []*account.Account
	for i := range p.Accounts {
		a, err := s.Accounts.Find(ctx, p.Accounts[i].realm(), p.Accounts[i].Username)
		if e, ok := errors.AsType[*api.Error](err); (ok && e.Code == api.NotFound) || (err == nil && !c.Reach.Covers(a.ID)) {
			return r, notFound("account")
		}
		if err != nil {
			return r, err
		}
		found = append(found, a)
	}
	for i, a := range found {
		for _, live := range s.Sessions.OfAccount(a.ID) {
			switch {
			case p.ExceptCurrent && live.Handle == who.Handle:
			case live.Permanent && !permanent:
				r.PermanentLeft++
			default:
				handles = append(handles, live.Handle)
			}
		}
		if p.DryRun {
			continue
		}
		how := session.EndAccount{Permanent: permanent, Reason: p.Reason, By: s.Sessions.Actor(who), Event: event.Event{Kind: event.AccountSessionsEnded}}
		if p.ExceptCurrent {
			how.Spare = who
		}
		ended, err := s.Sessions.EndAccount(ctx, a.Realm, a.Username, how)
		if err != nil {
			if i > 0 {
				err = partly(err, r.Revoked, int64(len(handles))-r.Revoked)
			}
			return r, err
		}
		r.Revoked += int64(ended)
	}
	if p.DryRun {
		r.Revoked, r.Sample = int64(len(handles)), sample(handles)
	}
	return r, nil
}

func sample(handles []api.ID) []string {
	texts := []string{}
	for _, h := range handles[:min(sampleSize, len(handles))] {
		texts = append(texts, session.HandleText(h))
	}
	return texts
}

package actions

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
)

// ends holds what ends sessions.
func (s *sessions) ends() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Optional(dispatch.Spec{
			Name: "deleteSession", Aliases: []string{"logout"}, APIs: both(), Work: dispatch.Ending, AnyToken: true,
			Allow: dispatch.Anyone().Others(account.SessionsRevoke),
			Doc: "Ends a session: the caller's own unless another one is named. To show a session's token is right enough to end it. " +
				"Ending what has ended already succeeds, with alreadyEnded.",
			Errors: []api.Code{api.NotFound},
		}, s.delete),
		dispatch.Protected(dispatch.Spec{
			Name: "revokeSessions", APIs: both(), Work: dispatch.Ending, Allow: dispatch.Callers().Others(account.SessionsRevoke),
			Doc: "Ends sessions by their handles, with a result each, or all of some accounts, or those that a filter finds. API keys among the sessions of accounts and of filters are spared unless includePermanent; " +
				"a handle names exactly what it means, and its API key is spared only by includePermanent: false. What a filter finds is ended one by one, 100,000 at the most and as long as the request may take: " +
				"more says that it is to be repeated. To reach those of others by a filter wants a recent log-in.",
			Errors: []api.Code{api.NotFound, api.Conflict, api.ReauthenticationRequired},
		}, s.revoke),
		dispatch.Protected(dispatch.Spec{
			Name: "logoutByHandle", APIs: both(), Work: dispatch.Ending, Allow: dispatch.Callers().Others(account.SessionsRevoke),
			Doc: "Ends sessions by their handles, API keys too, with a result each.",
		}, s.logoutByHandle),
	}
}

type deleteResult struct {
	AlreadyEnded bool `json:"alreadyEnded,omitzero" doc:"There was no such living session any more."`
}

func (s *sessions) delete(ctx context.Context, c *dispatch.Call, who *session.Caller, p target) (deleteResult, error) {
	victim, who, err := s.toEnd(ctx, c, who, &p)
	if err != nil || victim.Handle.IsZero() {
		return deleteResult{AlreadyEnded: err == nil}, err
	}
	status, reason := session.Ended, session.ReasonLogout
	if p.SessionHandle != "" && victim.Handle != who.Handle {
		status, reason = session.Revoked, session.ReasonRevoked
	}
	done, err := s.Sessions.End(ctx, victim.Handle, s.Sessions.NewEnd(status, reason, who), s.Sessions.Actor(who))
	if err == nil && !done {
		c.Warn(api.NotFound, "the session was ended by others at this moment")
	}
	return deleteResult{AlreadyEnded: !done}, err
}

// toEnd finds the session to end, and who ends it: where nobody calls, the session
// whose token is shown does. The zero session means that it has ended already.
func (s *sessions) toEnd(ctx context.Context, c *dispatch.Call, who *session.Caller, p *target) (session.Live, *session.Caller, error) {
	switch {
	case p.SessionHandle != "" && who != nil:
		h, _ := session.ParseHandle(p.SessionHandle)
		if live, ok := s.Sessions.Endable(c.Reach, h); ok {
			return live, who, nil
		}
		_, err := s.Sessions.Find(ctx, c.Reach, h)
		if errors.Is(err, store.ErrNotFound) {
			return session.Live{}, nil, notFound("session")
		}
		if err == nil {
			c.Warn(api.NotFound, "the session has ended already: there was nothing to end")
		}
		return session.Live{}, nil, err
	case p.isZero() && who != nil:
		return who.Live, who, nil
	case p.SessionHandle != "", p.isZero() && c.DeadToken.IsZero():
		return session.Live{}, nil, dispatch.InvalidToken()
	}
	token := c.DeadToken
	if p.TokenID != nil {
		token = *p.TokenID
	}
	shown, ok := s.Sessions.EndableBy(token.Reveal())
	if !ok {
		c.Warn(api.InvalidAuthToken, "the authToken belongs to no live session: there was nothing to end")
		return session.Live{}, nil, nil
	}
	if who == nil {
		who = &shown
	}
	return shown.Live, who, nil
}

type accountName struct {
	Realm    string `json:"realm,omitzero" max:"64" doc:"Where the account is checked; native unless named."`
	Username string `json:"username" min:"1" max:"64" doc:"The account's name."`
}

type revokeParams struct {
	SessionHandles   []string      `json:"sessionHandles,omitzero" min:"1" max:"1000" doc:"Sessions by their handles."`
	Accounts         []accountName `json:"accounts,omitzero" min:"1" max:"100" doc:"Accounts, all of whose sessions are meant."`
	Filter           *string       `json:"filter" min:"1" max:"4096" null:"no" doc:"The living sessions that this filter finds."`
	DryRun           bool          `json:"dryRun,omitzero" doc:"Ends nothing and tells what would be."`
	ExceptCurrent    bool          `json:"exceptCurrent,omitzero" doc:"Spares the caller's own session."`
	IncludePermanent *bool         `json:"includePermanent" doc:"Are API keys ended too? Unless named: those whose handles are given, but none of accounts and filters."`
	Reason           string        `json:"reason,omitzero" max:"256" doc:"Kept with each session that this ends."`
}

func (p *revokeParams) Validate() error {
	switch {
	case p.SessionHandles == nil && p.Accounts == nil && p.Filter == nil:
		return api.Errorf(api.MissingParam, "sessionHandles, accounts or filter is required").At("/params/sessionHandles")
	case p.SessionHandles != nil && p.Accounts != nil:
		return bad("accounts", "must not stand beside sessionHandles: send one of them")
	case p.Filter != nil && (p.SessionHandles != nil || p.Accounts != nil):
		return bad("filter", "must not stand beside sessionHandles and accounts: send one of them")
	}
	return (&selection{SessionHandles: p.SessionHandles}).Validate()
}

type revokeResult struct {
	Results       map[string]bool `json:"results,omitzero" doc:"For sessionHandles: whether each was ended, or would be."`
	Revoked       int64           `json:"revoked" doc:"How many sessions were ended, or would be."`
	PermanentLeft int64           `json:"permanentLeft" doc:"How many API keys were spared."`
	DryRun        bool            `json:"dryRun,omitzero" doc:"Nothing was ended."`
	Sample        []string        `json:"sample,omitzero" doc:"For a dry run: handles of some of the sessions."`
	Left          *int64          `json:"left,omitzero" doc:"For a filter: how many of the sessions that it found were not ended, or would not be."`
	More          *bool           `json:"more,omitzero" doc:"For a filter: repeat the request, there are sessions left."`
}

// sampleSize is how many handles a dry run shows.
const sampleSize = 10

func (s *sessions) revoke(ctx context.Context, c *dispatch.Call, who *session.Caller, p revokeParams) (revokeResult, error) {
	if p.Reason == "" {
		p.Reason = session.ReasonRevoked
	}
	switch {
	case p.Accounts != nil:
		return s.revokeAccounts(ctx, c, who, &p)
	case p.Filter != nil:
		return s.revokeFound(ctx, c, who, &p)
	}
	r := revokeResult{Results: map[string]bool{}, DryRun: p.DryRun}
	var handles []api.ID
	for _, text := range p.SessionHandles {
		h, _ := session.ParseHandle(text)
		live, ok := s.Sessions.Endable(c.Reach, h)
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
	for h := range done {
		r.Revoked++
		r.Results[session.HandleText(h)] = true
	}
	if p.DryRun {
		r.Sample = sample(handles)
	}
	if err != nil && r.Revoked > 0 {
		return revokeResult{}, partly(err, r.Revoked, int64(len(handles))-r.Revoked)
	}
	return r, err
}

type logoutByHandleParams struct {
	SessionHandles []string `json:"sessionHandles" min:"1" max:"1000" doc:"The sessions."`
	Reason         string   `json:"reason,omitzero" max:"256" doc:"Kept with each session that this ends."`
}

func (p *logoutByHandleParams) Validate() error {
	return (&selection{SessionHandles: p.SessionHandles}).Validate()
}

type logoutByHandleResult struct {
	Results map[string]bool `json:"results" doc:"Whether each was ended."`
	Revoked int64           `json:"revoked" doc:"How many were."`
}

func (s *sessions) logoutByHandle(ctx context.Context, c *dispatch.Call, who *session.Caller, p logoutByHandleParams) (logoutByHandleResult, error) {
	r, err := s.revoke(ctx, c, who, revokeParams{SessionHandles: p.SessionHandles, Reason: p.Reason})
	return logoutByHandleResult{Results: r.Results, Revoked: r.Revoked}, err
}

// revokeFound ends the sessions that a filter finds, or for a dry run tells what
// it would end.
func (s *sessions) revokeFound(ctx context.Context, c *dispatch.Call, who *session.Caller, p *revokeParams) (revokeResult, error) {
	d, err := s.doFound(ctx, c, who, &job{
		filter: *p.Filter, dryRun: p.DryRun,
		takes: func(v *session.View) verdict {
			switch {
			case p.ExceptCurrent && v.Handle == who.Handle:
				return pass
			case v.Permanent && (p.IncludePermanent == nil || !*p.IncludePermanent):
				return spare
			}
			return take
		},
		do: func(ctx context.Context, handles []api.ID) (int, error) {
			ended, err := s.endAll(ctx, who, handles, p)
			return len(ended), err
		},
	})
	if err != nil {
		return revokeResult{}, err
	}
	return revokeResult{Revoked: d.done, PermanentLeft: d.spared, DryRun: p.DryRun, Sample: d.sample, Left: &d.left, More: &d.more}, nil
}

// partly is the error of a job over many sessions of which some were done.
func partly(err error, done, left int64) error {
	e := *dispatch.Classify(err)
	e.Data.Done, e.Data.Left = done, left
	return (&e).Because(err)
}

// endAll ends the sessions, or for a dry run none of them, and returns those that
// it ended. The caller's own comes last: should the store refuse one, he can still
// repeat the request.
func (s *sessions) endAll(ctx context.Context, who *session.Caller, handles []api.ID, p *revokeParams) (map[api.ID]bool, error) {
	ended := map[api.ID]bool{}
	by, end := s.Sessions.Actor(who), s.Sessions.NewEnd(session.Revoked, p.Reason, who)
	others := slices.DeleteFunc(slices.Clone(handles), func(h api.ID) bool { return h == who.Handle })
	own := slices.DeleteFunc(slices.Clone(handles), func(h api.ID) bool { return h != who.Handle })
	for _, some := range [][]api.ID{others, own} {
		if p.DryRun {
			for _, h := range some {
				ended[h] = true
			}
			continue
		}
		done, err := s.Sessions.EndAll(ctx, some, end, by)
		for i, h := range some {
			if done[i] {
				ended[h] = true
			}
		}
		if err != nil {
			return ended, err
		}
	}
	return ended, nil
}

// revokeAccounts ends the sessions of accounts, one commit each.
func (s *sessions) revokeAccounts(ctx context.Context, c *dispatch.Call, who *session.Caller, p *revokeParams) (revokeResult, error) {
	r := revokeResult{DryRun: p.DryRun}
	permanent := p.IncludePermanent != nil && *p.IncludePermanent
	found, err := s.accounts(ctx, c, who, p.Accounts)
	if err != nil {
		return r, err
	}
	var handles []api.ID
	for _, a := range found {
		for _, live := range s.Sessions.OfAccount(a.ID) {
			switch {
			case p.ExceptCurrent && live.Handle == who.Handle:
			case live.Permanent && !permanent:
				r.PermanentLeft++
			default:
				handles = append(handles, live.Handle)
			}
		}
	}
	if p.DryRun {
		r.Revoked, r.Sample = int64(len(handles)), sample(handles)
		return r, nil
	}
	how := &session.AccountChange{Reason: p.Reason, By: s.Sessions.Actor(who), Event: event.Event{Kind: event.AccountSessionsEnded}}
	if p.ExceptCurrent {
		how.Spare = who
	}
	for i, a := range found {
		ended, err := s.Sessions.EndAccount(ctx, a.Realm, a.Username, permanent, how)
		if err != nil && i > 0 {
			err = partly(err, r.Revoked, max(0, int64(len(handles))-r.Revoked))
		}
		if err != nil {
			return r, err
		}
		r.Revoked += int64(ended)
	}
	return r, nil
}

// accounts finds the accounts within the caller's reach, each once and his own
// last: should the store refuse one, he can still repeat the request.
func (s *sessions) accounts(ctx context.Context, c *dispatch.Call, who *session.Caller, names []accountName) ([]*account.Account, error) {
	var found []*account.Account
	seen := map[api.ID]bool{}
	for i := range names {
		a, err := s.account(ctx, c, names[i], "/params/accounts/"+strconv.Itoa(i))
		if err != nil {
			return nil, err
		}
		if !seen[a.ID] {
			found = append(found, a)
		}
		seen[a.ID] = true
	}
	slices.SortStableFunc(found, func(a, b *account.Account) int {
		return cmp.Compare(own(a, who), own(b, who))
	})
	return found, nil
}

// account finds an account within the caller's reach.
func (s *sessions) account(ctx context.Context, c *dispatch.Call, name accountName, at string) (*account.Account, error) {
	a, err := s.Accounts.Find(ctx, cmp.Or(name.Realm, config.Native), name.Username)
	if e, ok := errors.AsType[*api.Error](err); (ok && e.Code == api.NotFound) || (err == nil && !c.Reach.Covers(a.ID)) {
		return nil, notFound("account").At(at)
	}
	if err != nil {
		return nil, about(err, map[api.Code]string{api.BadParam: at})
	}
	return a, nil
}

// own is 1 for the caller's account.
func own(a *account.Account, who *session.Caller) int {
	if a.ID == who.AccountID {
		return 1
	}
	return 0
}

func sample(handles []api.ID) []string {
	texts := []string{}
	for _, h := range handles[:min(sampleSize, len(handles))] {
		texts = append(texts, session.HandleText(h))
	}
	return texts
}

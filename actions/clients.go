package actions

import (
	"context"
	"errors"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
)

// clients holds what is about the sessions of one browser or device.
func (s *sessions) clients() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "listClientSessions", APIs: both(), Work: dispatch.Listing, Allow: dispatch.Callers().Others(account.SessionsRead),
			Doc: "Shows the sessions of a browser or device, whosever they are: the caller's unless a session of another one is named, of which he sees what is within his reach. " +
				"Those that have ended are shown until they are removed or purged.",
			Errors: []api.Code{api.NotFound},
		}, s.listClient),
		dispatch.Protected(dispatch.Spec{
			Name: "activateSession", APIs: both(), Work: dispatch.Writing, Allow: dispatch.Callers(),
			Doc:    "Makes a living session of the caller's browser or device the one in use there, which counts as a use of it.",
			Errors: []api.Code{api.NotFound},
		}, s.activate),
		dispatch.Protected(dispatch.Spec{
			Name: "endSession", APIs: both(), Work: dispatch.Ending, Allow: dispatch.Callers().Others(account.SessionsRevoke),
			Doc:    "Ends a session of the caller's browser or device, or one within his reach, and shows what is there then: the session too, until it is removed. Ending what has ended already succeeds, with alreadyEnded.",
			Errors: []api.Code{api.NotFound},
		}, s.endOnClient),
		dispatch.Protected(dispatch.Spec{
			Name: "removeSession", APIs: both(), Work: dispatch.Ending, Allow: dispatch.Callers().Others(account.SessionsRevoke),
			Doc:    "Takes a session off its browser or device, the caller's or one within his reach. One that lives ends with it.",
			Errors: []api.Code{api.NotFound},
		}, s.remove),
	}
}

type clientResult struct {
	AlreadyEnded        bool          `json:"alreadyEnded,omitzero" doc:"The session to be ended had ended already."`
	ClientHandle        string        `json:"clientHandle" doc:"The public name of the browser or device."`
	ActiveSessionHandle string        `json:"activeSessionHandle,omitzero" doc:"The session in use there: the one that was activated or joined last, and lives; else the one that was used last. Absent: none lives."`
	Sessions            []sessionView `json:"sessions" doc:"The sessions, in the order in which they joined."`
}

func (s *sessions) listClient(ctx context.Context, c *dispatch.Call, who *session.Caller, p target) (clientResult, error) {
	h, err := s.onClient(ctx, c, who, &p)
	if err != nil {
		return clientResult{}, err
	}
	return s.client(ctx, c, who, h, p.TokenID != nil)
}

// client shows the browser or device of a session.
func (s *sessions) client(ctx context.Context, c *dispatch.Call, who *session.Caller, h api.ID, there bool) (clientResult, error) {
	client, err := s.clientOf(ctx, who, h)
	if err != nil {
		return clientResult{}, err
	}
	return s.shown(c, who, &client, there || h == who.Handle), nil
}

func (s *sessions) clientOf(ctx context.Context, who *session.Caller, h api.ID) (session.ClientView, error) {
	client, err := s.Sessions.ClientOf(ctx, h)
	if errors.Is(err, store.ErrNotFound) {
		err = s.gone(who, h)
	}
	return client, err
}

// shown is a browser or device. To a caller who is on another one, and has not shown a
// token of it, it shows what is within his reach.
func (s *sessions) shown(c *dispatch.Call, who *session.Caller, client *session.ClientView, there bool) clientResult {
	for i := range client.Sessions {
		there = there || client.Sessions[i].Handle == who.Handle
	}
	r := clientResult{ClientHandle: session.ClientText(client.ID), Sessions: []sessionView{}}
	for i := range client.Sessions {
		v := &client.Sessions[i]
		if !there && !c.Reach.Covers(v.AccountID) {
			continue
		}
		if v.Handle == client.Active {
			r.ActiveSessionHandle = session.HandleText(v.Handle)
		}
		r.Sessions = append(r.Sessions, s.view(c, v, who))
	}
	return r
}

// onClient returns the session that t selects: one within the caller's reach, or of
// his own browser or device, or whose token he shows. It may have ended.
func (s *sessions) onClient(ctx context.Context, c *dispatch.Call, who *session.Caller, t *target) (api.ID, error) {
	if t.isZero() {
		return who.Handle, nil
	}
	if t.TokenID != nil {
		if shown, ok := s.Sessions.Authenticate(t.TokenID.Reveal(), false); ok {
			return shown.Handle, nil
		}
		return api.ID{}, notFound("session")
	}
	h, _ := session.ParseHandle(t.SessionHandle)
	_, err := s.Sessions.Find(ctx, c.Reach, h)
	if !errors.Is(err, store.ErrNotFound) {
		return h, err
	}
	there, err := s.Sessions.Shares(ctx, who.Handle, h)
	if errors.Is(err, store.ErrNotFound) {
		return h, dispatch.InvalidToken()
	}
	if err == nil && !there {
		err = notFound("session")
	}
	return h, err
}

type activateParams struct {
	SessionHandle string `json:"sessionHandle" min:"1" max:"64" doc:"The session, by its handle."`
}

func (p *activateParams) Validate() error { return isHandle("sessionHandle", p.SessionHandle) }

func (s *sessions) activate(ctx context.Context, c *dispatch.Call, who *session.Caller, p activateParams) (clientResult, error) {
	h, _ := session.ParseHandle(p.SessionHandle)
	there, err := s.Sessions.Shares(ctx, who.Handle, h)
	if _, lives := s.Sessions.Living(session.Reach{All: true}, h); err == nil && (!there || !lives) {
		err = notFound("session")
	}
	if err == nil {
		err = s.Sessions.Activate(ctx, h)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = s.gone(who, h)
	}
	if err != nil {
		return clientResult{}, err
	}
	return s.client(ctx, c, who, who.Handle, true)
}

func (s *sessions) endOnClient(ctx context.Context, c *dispatch.Call, who *session.Caller, p target) (clientResult, error) {
	h, err := s.onClient(ctx, c, who, &p)
	if err != nil {
		return clientResult{}, err
	}
	there, err := s.Sessions.Shares(ctx, who.Handle, h)
	if errors.Is(err, store.ErrNotFound) {
		err = dispatch.InvalidToken()
	}
	if err != nil {
		return clientResult{}, err
	}
	status, reason := session.Ended, session.ReasonLogout
	if !there && p.TokenID == nil {
		status, reason = session.Revoked, session.ReasonRevoked
	}
	client, err := s.clientOf(ctx, who, h) // before, as it may not fail after
	if err != nil {
		return clientResult{}, err
	}
	end := s.Sessions.NewEnd(status, reason, who)
	done, err := s.Sessions.End(ctx, h, end, s.Sessions.Actor(who))
	switch {
	case err != nil:
	case done:
		client.End(h, end)
	default:
		client, err = s.clientOf(ctx, who, h)
	}
	if err != nil {
		return clientResult{}, err
	}
	r := s.shown(c, who, &client, there || p.TokenID != nil || h == who.Handle)
	r.AlreadyEnded = !done
	return r, nil
}

func (s *sessions) remove(ctx context.Context, c *dispatch.Call, who *session.Caller, p target) (sessionView, error) {
	h, err := s.onClient(ctx, c, who, &p)
	if err != nil {
		return sessionView{}, err
	}
	v, err := s.Sessions.Remove(ctx, h, who)
	if errors.Is(err, store.ErrNotFound) {
		return sessionView{}, s.gone(who, h)
	}
	if err != nil {
		return sessionView{}, err
	}
	return s.view(c, &v, who), nil
}

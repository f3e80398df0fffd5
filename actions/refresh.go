package actions

import (
	"context"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
)

// refreshes holds what counts as a use of the session that it is about, and not
// of the one that asks.
func (s *sessions) refreshes() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "getSessionInfoAndResetIdleTime", APIs: both(), Work: dispatch.Reading, KeepsIdle: true, Allow: dispatch.Callers().Others(account.SessionsWrite),
			Doc:    "Shows one session in full as getSessionInfo does, after it has reset the session's idle time.",
			Errors: []api.Code{api.NotFound},
		}, s.infoAndReset),
		dispatch.Protected(dispatch.Spec{
			Name: "refresh", APIs: both(), Work: dispatch.Quick, KeepsIdle: true, Allow: dispatch.Callers().Others(account.SessionsWrite),
			Doc:    "Resets the idle time of a session, the caller's own unless another one is named, and tells what is left of its life. The lifetime stays.",
			Errors: []api.Code{api.NotFound},
		}, s.refresh),
	}
}

// reset counts a use of the session that t selects.
func (s *sessions) reset(c *dispatch.Call, who *session.Caller, t *target) (live session.Live, idleSeconds int64, err error) {
	if live, err = s.living(c, who, t, account.SessionsValidate); err != nil {
		return live, 0, err
	}
	idleSeconds = max(0, c.Now-live.LastAccess)
	s.Sessions.TouchAt(c.Now, live.Handle)
	live.Use(c.Now)
	return live, idleSeconds, nil
}

func (s *sessions) infoAndReset(ctx context.Context, c *dispatch.Call, who *session.Caller, p target) (sessionView, error) {
	if _, _, err := s.reset(c, who, &p); err != nil {
		return sessionView{}, err
	}
	return s.info(ctx, c, who, p)
}

type refreshResult struct {
	SessionHandle                 string    `json:"sessionHandle" doc:"The session's public name."`
	Username                      string    `json:"username" doc:"The account's name."`
	Realm                         string    `json:"realm" doc:"Where the account is checked."`
	IdleSeconds                   int64     `json:"idleSeconds" doc:"How long it had not been used."`
	IdleSecondsLeft               *int64    `json:"idleSecondsLeft,omitzero" doc:"How long it may be idle from now on; absent: for ever."`
	LifetimeSecondsLeft           *int64    `json:"lifetimeSecondsLeft,omitzero" doc:"How long it lives at the most; absent: there is no such bound."`
	MaxSessionTimeoutSeconds      int64     `json:"maxSessionTimeoutSeconds" doc:"Seconds after its creation at which it expires whatever happens; 0 is never."`
	SessionLastAccessedTimestamp  time.Time `json:"sessionLastAccessedTimestamp" doc:"When it was used last: now."`
	MaxIdleExpirationTimestamp    time.Time `json:"maxIdleExpirationTimestamp,omitzero" doc:"When it idles out if it is not used; absent: never."`
	MaxSessionExpirationTimestamp time.Time `json:"maxSessionExpirationTimestamp,omitzero" doc:"When it expires whatever happens; absent: never."`
}

func (s *sessions) refresh(_ context.Context, c *dispatch.Call, who *session.Caller, p target) (refreshResult, error) {
	live, idle, err := s.reset(c, who, &p)
	if err != nil {
		return refreshResult{}, err
	}
	named := s.Sessions.Actor(&session.Caller{Live: live})
	if named.Username == "" {
		return refreshResult{}, s.gone(who, live.Handle)
	}
	return refreshResult{
		SessionHandle: session.HandleText(live.Handle), Username: named.Username, Realm: named.Realm, IdleSeconds: idle,
		IdleSecondsLeft: until(live.IdleAt, c.Now), LifetimeSecondsLeft: until(live.MaxAt, c.Now), MaxSessionTimeoutSeconds: max(0, live.MaxAt-live.Created),
		SessionLastAccessedTimestamp: at(live.LastAccess), MaxIdleExpirationTimestamp: at(live.IdleAt), MaxSessionExpirationTimestamp: at(live.MaxAt),
	}, nil
}

// until returns how many seconds there are to a moment; nil: it never comes.
func until(unix, now int64) *int64 {
	if unix == 0 {
		return nil
	}
	left := max(0, unix-now)
	return &left
}

package actions

import (
	"context"
	"slices"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

// watching is the table of what waits for changes.
func (e *events) watching() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "watchSessions", APIs: both(), Work: dispatch.Watching, Allow: dispatch.Callers().Others(account.EventsRead), KeepsIdle: true,
			Doc: "Waits for events after a cursor and answers them as soon as there is one, the oldest first: those about sessions of the caller's own account, " +
				"or with the permission all of the log. Each answer has the cursor of the next request; nothing is lost or repeated between them. " +
				"In a batch it does not wait. When the caller's session ends it is answered at once, with 12031 unless its own end is among what was asked for.",
		}, e.watch),
	}
}

type watchSessionsParams struct {
	Cursor         string       `json:"cursor,omitzero" max:"32" doc:"Goes on where the answer ended that held it, one of listEvents with oldestFirst too; absent: from now on."`
	WaitSeconds    *int64       `json:"waitSeconds,omitzero" min:"0" max:"60" doc:"How long to wait for the first event; 30 unless named."`
	Kinds          []event.Kind `json:"kinds,omitzero" max:"32" doc:"Only events of these kinds."`
	SessionHandles []string     `json:"sessionHandles,omitzero" max:"100" doc:"Only events about these sessions, or by them."`
	Realm          string       `json:"realm,omitzero" max:"64" doc:"Only events about accounts of this realm."`
	Username       string       `json:"username,omitzero" max:"64" doc:"Only events about accounts of this name, compared without case."`
	Limit          int          `json:"limit,omitzero" min:"1" max:"1000" doc:"At most so many; 100 unless named."`
}

type watchSessionsResult struct {
	Events []eventView `json:"events" doc:"What happened, the oldest first; empty: nothing that fits, until now."`
	Cursor string      `json:"cursor" doc:"Give it back, with the same filters, to go on."`
	Gap    bool        `json:"gap,omitzero" doc:"Events after the cursor that was given have been purged, and what follows begins with the oldest that is kept; or a backup was restored."`
}

// defaultWait is how long a watch waits unless waitSeconds says otherwise.
const defaultWait = 30

func (e *events) watch(ctx context.Context, c *dispatch.Call, who *session.Caller, p watchSessionsParams) (watchSessionsResult, error) {
	wait := int64(defaultWait)
	if p.WaitSeconds != nil {
		wait = *p.WaitSeconds
	}
	if c.InBatch {
		wait = 0
	}
	if p.Limit == 0 {
		p.Limit = defaultEvents
	}
	named, err := named(p.Username)
	if err != nil {
		return watchSessionsResult{}, about(err, map[api.Code]string{api.BadParam: "/params/username"})
	}
	after, err := e.Tail.Position(p.Cursor)
	if err != nil {
		return watchSessionsResult{}, err
	}
	own := who.AccountID.String()
	q := event.Query{Kinds: p.Kinds, Realm: p.Realm, Username: named, Limit: p.Limit, Only: func(x *event.Event) bool {
		return (c.Reach.All || isOwn(x, own)) && (len(p.SessionHandles) == 0 ||
			slices.Contains(p.SessionHandles, x.SessionHandle) || slices.Contains(p.SessionHandles, x.By.SessionHandle))
	}}
	lives := func() bool { _, ok := e.Sessions.Present(who.Handle); return ok }
	batch, err := e.Tail.Next(ctx, after, q, time.Duration(wait)*time.Second, lives)
	if err != nil {
		return watchSessionsResult{}, err
	}
	now, ok := e.Sessions.Present(who.Handle)
	all := c.Reach.All && ok && now.May(account.EventsRead)
	r := watchSessionsResult{Events: make([]eventView, 0, len(batch.Events)), Cursor: batch.Cursor(), Gap: batch.Gap}
	for i := range batch.Events {
		if l := &batch.Events[i]; all || isOwn(&l.Event, own) {
			r.Events = append(r.Events, viewOfOwn(l, all))
		}
	}
	if !ok && len(r.Events) == 0 {
		return watchSessionsResult{}, dispatch.InvalidToken()
	}
	return r, nil
}

// isOwn reports whether an event is about a session of an account.
func isOwn(e *event.Event, account string) bool {
	return e.SessionHandle != "" && e.AccountID == account
}

// viewOfOwn is viewOfEvent for who may not see all: the names of others are kept
// from him, though not the session that did it, which its view shows as endedBy.
func viewOfOwn(l *event.Logged, all bool) eventView {
	view := viewOfEvent(l)
	if !all && view.By != nil && (view.By.Realm != view.Realm || view.By.Username != view.Username) {
		view.By.Realm, view.By.Username = "", ""
		if view.By.SessionHandle == "" {
			view.By = nil
		}
	}
	return view
}

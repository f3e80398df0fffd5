package actions

import (
	"context"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

// events are the handlers of what reads the log of changes.
type events struct{ Deps }

func (e *events) table() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "listEvents", APIs: admin(), Work: dispatch.Listing, Allow: dispatch.Holders(account.EventsRead),
			Doc: "Lists the log of changes, the newest first, as far as the filters fit. A page may hold fewer events than limit, or none, and still have a cursor.",
		}, e.list),
	}
}

type listEventsParams struct {
	Kinds           []event.Kind `json:"kinds,omitzero" max:"32" doc:"Only events of these kinds."`
	SessionHandle   string       `json:"sessionHandle,omitzero" max:"64" doc:"Only events about this session, or by it."`
	Realm           string       `json:"realm,omitzero" max:"64" doc:"Only events about accounts of this realm."`
	Username        string       `json:"username,omitzero" max:"64" doc:"Only events about accounts of this name, compared without case."`
	AfterTimestamp  time.Time    `json:"afterTimestamp,omitzero" doc:"Only events after this moment."`
	BeforeTimestamp time.Time    `json:"beforeTimestamp,omitzero" doc:"Only events before this moment."`
	OldestFirst     bool         `json:"oldestFirst,omitzero" doc:"Goes through the log from its beginning."`
	Limit           int          `json:"limit,omitzero" min:"1" max:"1000" doc:"At most so many; 100 unless named."`
	Cursor          string       `json:"cursor,omitzero" max:"32" doc:"Goes on where the answer ended that held it."`
}

type listEventsResult struct {
	Events []eventView `json:"events" doc:"The events."`
	Cursor string      `json:"cursor,omitzero" doc:"Give it back, with the same filters, to go on; absent: there is no more."`
}

type eventView struct {
	EventID          string     `json:"eventId" doc:"Grows with time."`
	Timestamp        time.Time  `json:"timestamp" doc:"When it happened."`
	Kind             event.Kind `json:"kind" doc:"What happened."`
	SessionHandle    string     `json:"sessionHandle,omitzero" doc:"The session that it is about."`
	AccountID        string     `json:"accountId,omitzero" doc:"The account that it is about."`
	Realm            string     `json:"realm,omitzero" doc:"The account's realm."`
	Username         string     `json:"username,omitzero" doc:"The account's name; absent for names that no account has."`
	ClientIPAddress  string     `json:"clientIpAddress,omitzero" doc:"From where."`
	Status           string     `json:"status,omitzero" doc:"The session's status from then on."`
	Reason           string     `json:"reason,omitzero" doc:"Why."`
	PermanentSession bool       `json:"permanentSession,omitzero" doc:"Is the session an API key?"`
	Count            int64      `json:"count,omitzero" doc:"How many that the event sums up."`
	Role             string     `json:"role,omitzero" doc:"The role that it is about."`
	Service          string     `json:"service,omitzero" doc:"The service that it is about."`
	Expires          time.Time  `json:"expirationTimestamp,omitzero" doc:"When the session's lifetime ends."`
	NoticeSeconds    int64      `json:"noticeSeconds,omitzero" doc:"How long before that the notice was due, as services.json has it in expiringNoticeSeconds."`
	Changed          []string   `json:"changed,omitzero" doc:"Names of the members that changed."`
	By               *actorView `json:"by,omitzero" doc:"Who did it; absent: the server."`
}

type actorView struct {
	SessionHandle string `json:"sessionHandle,omitzero" doc:"The session that did it."`
	Realm         string `json:"realm,omitzero" doc:"Its account's realm."`
	Username      string `json:"username,omitzero" doc:"Its account's name."`
}

// defaultEvents is how many events a page holds unless limit says otherwise.
const defaultEvents = 100

func (e *events) list(ctx context.Context, _ *dispatch.Call, _ *session.Caller, p listEventsParams) (listEventsResult, error) {
	if p.Limit == 0 {
		p.Limit = defaultEvents
	}
	named, err := named(p.Username)
	if err != nil {
		return listEventsResult{}, about(err, map[api.Code]string{api.BadParam: "/params/username"})
	}
	page, next, err := e.Events(ctx, event.Query{
		Kinds: p.Kinds, SessionHandle: p.SessionHandle, Realm: p.Realm, Username: named,
		After: p.AfterTimestamp, Before: p.BeforeTimestamp, Oldest: p.OldestFirst, Limit: p.Limit, Cursor: p.Cursor,
	})
	if err != nil {
		return listEventsResult{}, err
	}
	r := listEventsResult{Events: make([]eventView, len(page)), Cursor: next}
	for i := range page {
		r.Events[i] = viewOfEvent(&page[i])
	}
	return r, nil
}

// named returns what tells whether a name is that of the same account; nil for no
// name.
func named(username string) (func(shown string) bool, error) {
	if username == "" {
		return nil, nil //nolint:nilnil // nothing is asked for
	}
	canonical, err := account.Canonical(username)
	plain := isASCII(username)
	return func(shown string) bool {
		if plain && isASCII(shown) { // nearly all are: of each event that somebody waits for, this is asked
			return strings.EqualFold(shown, username)
		}
		other, err := account.Canonical(shown)
		return err == nil && other == canonical
	}, err
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func viewOfEvent(l *event.Logged) eventView {
	view := eventView{
		EventID: strconv.FormatUint(l.Seq, 10), Timestamp: l.Time, Kind: l.Kind, SessionHandle: l.SessionHandle, AccountID: l.AccountID,
		Realm: l.Realm, Username: l.Username, ClientIPAddress: l.ClientIPAddress, Status: l.Status, Reason: l.Reason,
		PermanentSession: l.Permanent, Count: l.Count, Role: l.Role, Service: l.Service, Expires: l.Expires, NoticeSeconds: l.NoticeSeconds, Changed: l.Changed,
	}
	if l.By != (event.Actor{}) {
		view.By = &actorView{SessionHandle: l.By.SessionHandle, Realm: l.By.Realm, Username: l.By.Username}
	}
	return view
}

package actions

import (
	"context"
	"errors"
	"strconv"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/session"
	"sessiond/store"
)

// views holds what shows sessions and changes nothing.
func (s *sessions) views() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "describeSessions", APIs: both(), Work: dispatch.Listing, KeepsIdle: true, Allow: dispatch.Callers().Others(account.SessionsRead),
			Doc: "Shows sessions in full: those that are selected, or the living ones of the caller's account, or of all for holders of sessiond.sessions.read. " +
				"What is unknown or out of reach is left out. By its handle, or where the filter is about ended ones, an ended session is shown too, as long as it is kept.",
		}, s.describe),
		dispatch.Protected(dispatch.Spec{
			Name: "listSessions", APIs: both(), Work: dispatch.Listing, KeepsIdle: true, Allow: dispatch.Callers().Others(account.SessionsRead),
			Doc: "Lists sessions as describeSessions does, a few members each.",
		}, s.list),
		dispatch.Protected(dispatch.Spec{
			Name: "getSessionInfo", APIs: both(), Work: dispatch.Reading, KeepsIdle: true, Allow: dispatch.Callers().Others(account.SessionsRead),
			Doc: "Shows one session in full, the caller's own unless another one is named, and leaves its idle time as it is. " +
				"By its handle also one of the caller's browser or device, and one that has ended, as long as it is kept.",
			Errors: []api.Code{api.NotFound},
		}, s.info),
	}
}

// defaultPage is how many sessions a listing shows unless limit asks for fewer.
const defaultPage = 1000

type selection struct {
	AuthTokens     []api.Secret `json:"authTokens,omitzero" max:"1000" doc:"Sessions by their tokens: one's own, or any for holders of sessiond.sessions.read or sessiond.sessions.validate."`
	SessionHandles []string     `json:"sessionHandles,omitzero" max:"1000" doc:"Sessions by their handles."`
	UsernameFilter []string     `json:"usernameFilter,omitzero" max:"100" doc:"Living sessions of the accounts of these names, in every realm, compared without case."`
	Filter         *string      `json:"filter" min:"1" max:"4096" null:"no" doc:"Which sessions, in the filter language. Living ones, unless it is about status, endedTimestamp, endReason or endedBy: then ended ones too."`
	Sort           string       `json:"sort,omitzero" enum:"sessionStartTimestamp,-sessionStartTimestamp,sessionLastAccessedTimestamp,-sessionLastAccessedTimestamp,username,-username,maxIdleExpirationTimestamp,-maxIdleExpirationTimestamp,maxSessionExpirationTimestamp,-maxSessionExpirationTimestamp,endedTimestamp,-endedTimestamp" doc:"In which order; a minus before the member's name: the other way round. By creation, the oldest first, unless named; never comes after every time."`
	Limit          int          `json:"limit,omitzero" min:"1" max:"1000" doc:"At most so many sessions; 1,000 unless named."`
	Cursor         string       `json:"cursor,omitzero" max:"255" doc:"Goes on where the answer ended that held it; beside the same filter, usernameFilter and sort."`
	CountOnly      bool         `json:"countOnly,omitzero" doc:"Answers how many there are and shows none."`
}

func (p *selection) Validate() error {
	selector := ""
	for _, s := range []struct {
		name  string
		given bool
	}{{"authTokens", p.AuthTokens != nil}, {"sessionHandles", p.SessionHandles != nil}, {"usernameFilter", p.UsernameFilter != nil}, {"filter", p.Filter != nil}} {
		if s.given && selector != "" {
			return bad(s.name, "must not stand beside %s: send one of them", selector)
		}
		if s.given {
			selector = s.name
		}
	}
	if p.Sort != "" && (selector == "authTokens" || selector == "sessionHandles") {
		return bad("sort", "must not stand beside %s, whose order is kept", selector)
	}
	if p.Cursor != "" && (selector == "authTokens" || selector == "sessionHandles") {
		return bad("cursor", "must not stand beside %s, which are all answered at once", selector)
	}
	for i, text := range p.SessionHandles {
		if _, ok := session.ParseHandle(text); !ok {
			return bad("sessionHandles", "must hold handles, as sessions are answered with").At("/params/sessionHandles/" + strconv.Itoa(i))
		}
	}
	return nil
}

type describeResult struct {
	Sessions []sessionView `json:"sessions" doc:"The sessions, in the order of sort; for authTokens and sessionHandles in theirs."`
	Cursor   string        `json:"cursor,omitzero" doc:"Give it back to go on; absent: there is no more."`
	Count    *int64        `json:"count,omitzero" doc:"With countOnly: how many there are."`
}

type listResult struct {
	Sessions []sessionRow `json:"sessions" doc:"The sessions, in the order of sort; for authTokens and sessionHandles in theirs."`
	Cursor   string       `json:"cursor,omitzero" doc:"Give it back to go on; absent: there is no more."`
	Count    *int64       `json:"count,omitzero" doc:"With countOnly: how many there are."`
}

// restEvery is how many sessions are rendered between two looks at the pace.
const restEvery = 16

type sessionRow struct {
	SessionHandle                string    `json:"sessionHandle" doc:"The session's public name."`
	MaskedToken                  string    `json:"maskedToken" doc:"The token's prefix and last characters."`
	Username                     string    `json:"username" doc:"The account's name."`
	Realm                        string    `json:"realm" doc:"Where the account is checked."`
	Description                  string    `json:"description" doc:"Free text that helps to recognize the session."`
	PermanentSession             bool      `json:"permanentSession" doc:"Is it an API key?"`
	Status                       string    `json:"status" doc:"As describeSessions has it."`
	Current                      bool      `json:"current" doc:"Is it the session of the caller?"`
	SessionStartTimestamp        time.Time `json:"sessionStartTimestamp" doc:"When it was created."`
	SessionLastAccessedTimestamp time.Time `json:"sessionLastAccessedTimestamp" doc:"When it was used last."`
}

func (s *sessions) describe(ctx context.Context, c *dispatch.Call, who *session.Caller, p selection) (describeResult, error) {
	found, err := s.sel(ctx, c, who, &p)
	if err != nil {
		return describeResult{}, err
	}
	r := describeResult{Sessions: make([]sessionView, len(found.views)), Cursor: found.cursor, Count: found.count}
	var pace clock.Pace
	for i := range found.views {
		if i%restEvery == 0 {
			pace.Rest()
		}
		r.Sessions[i] = s.view(c, &found.views[i], who)
		if i < len(found.tokens) {
			r.Sessions[i].AuthToken = found.tokens[i].Reveal()
		}
	}
	return r, nil
}

func (s *sessions) list(ctx context.Context, c *dispatch.Call, who *session.Caller, p selection) (listResult, error) {
	found, err := s.sel(ctx, c, who, &p)
	if err != nil {
		return listResult{}, err
	}
	r := listResult{Sessions: make([]sessionRow, len(found.views)), Cursor: found.cursor, Count: found.count}
	for i := range found.views {
		v := &found.views[i]
		r.Sessions[i] = sessionRow{
			SessionHandle: session.HandleText(v.Handle), MaskedToken: v.MaskedToken(), Username: v.Username, Realm: v.Realm,
			Description: v.Description, PermanentSession: v.Permanent, Status: v.Status().String(), Current: v.Handle == who.Handle,
			SessionStartTimestamp: at(v.Created), SessionLastAccessedTimestamp: at(v.LastAccess),
		}
	}
	return r, nil
}

// selected is what a selection found; tokens stand beside the views that the
// caller named by token.
type selected struct {
	views  []session.View
	tokens []api.Secret
	cursor string
	count  *int64
}

func (s *sessions) sel(ctx context.Context, c *dispatch.Call, who *session.Caller, p *selection) (selected, error) {
	var found selected
	var err error
	switch {
	case p.AuthTokens != nil:
		found, err = s.byTokens(ctx, c, who, p.AuthTokens)
	case p.SessionHandles != nil:
		found, err = s.byHandles(ctx, c, p.SessionHandles)
	default:
		return s.page(ctx, c, who, p)
	}
	if p.CountOnly && err == nil {
		n := int64(len(found.views))
		return selected{count: &n}, nil
	}
	return found, err
}

func (s *sessions) byTokens(ctx context.Context, c *dispatch.Call, who *session.Caller, tokens []api.Secret) (selected, error) {
	var found selected
	seen := map[api.ID]bool{}
	for _, token := range tokens {
		shown, ok := s.Sessions.Authenticate(token.Reveal(), false)
		if !ok || seen[shown.Handle] || (!c.Reach.Covers(shown.AccountID) && !who.May(account.SessionsValidate)) {
			continue
		}
		seen[shown.Handle] = true
		views, err := s.Sessions.Views(ctx, []session.Live{shown.Live})
		if err != nil {
			return selected{}, err
		}
		for _, v := range views {
			found.views, found.tokens = append(found.views, v), append(found.tokens, token)
		}
	}
	return found, nil
}

func (s *sessions) byHandles(ctx context.Context, c *dispatch.Call, handles []string) (selected, error) {
	var found selected
	seen := map[api.ID]bool{}
	for _, text := range handles {
		h, _ := session.ParseHandle(text)
		if seen[h] {
			continue
		}
		seen[h] = true
		v, err := s.Sessions.Find(ctx, c.Reach, h)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return selected{}, err
		}
		found.views = append(found.views, v)
	}
	return found, nil
}

// page shows the sessions that a search finds, from the cursor on.
func (s *sessions) page(ctx context.Context, c *dispatch.Call, who *session.Caller, p *selection) (selected, error) {
	limit := p.Limit
	if limit == 0 {
		limit = defaultPage
	}
	from, err := s.from(ctx, c, who, p)
	if err != nil {
		return selected{}, err
	}
	q, err := s.newSearch(c, who, p.Filter, at(from.now))
	if err != nil {
		return selected{}, err
	}
	q.names = p.UsernameFilter
	if p.CountOnly {
		n, err := s.count(ctx, q)
		return selected{count: &n}, tooLong(err)
	}
	var page selected
	var next *position
	page.views, next, err = q.first(ctx, orderOf(p.Sort), from.at, limit)
	if err == nil && next != nil {
		k := cursor{given: c.Now, now: from.now, at: *next}
		page.cursor = k.text(s.listing(p))
	}
	return page, tooLong(err)
}

// count returns how many sessions a search finds.
func (s *sessions) count(ctx context.Context, q *search) (n int64, err error) {
	if q.all() {
		return s.Sessions.Count(), nil
	}
	err = q.each(ctx, api.ID{}, func(*session.View) bool {
		n++
		return true
	})
	return n, err
}

// tooLong tells who asked for more than can be looked at in the time of a request
// what to do.
func tooLong(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := api.Errorf(api.Overloaded, "there was no time to look at all sessions: confine the filter to a username, an accountId or sessionHandles, "+
		"which are looked up, leave sort away and go from page to page, or raise requestTimeoutSeconds")
	e.Data.RetryAfterSeconds = 1
	return e.Because(err)
}

// from returns where a page begins: at the cursor, if there is one.
func (s *sessions) from(ctx context.Context, c *dispatch.Call, who *session.Caller, p *selection) (cursor, error) {
	if p.Cursor == "" {
		return cursor{now: c.Now}, nil
	}
	if k, ok := parseCursor(p.Cursor, s.listing(p)); ok {
		good, err := s.Sessions.CursorSeconds(ctx, who.Handle)
		if err != nil || k.goodAt(c.Now, good) {
			return k, err
		}
	}
	return cursor{}, bad("cursor", "must be one that this very listing was answered with, not longer than idleCursorTimeoutSeconds ago")
}

func (s *sessions) info(ctx context.Context, c *dispatch.Call, who *session.Caller, p target) (sessionView, error) {
	if p.SessionHandle != "" {
		h, err := s.onClient(ctx, c, who, &p)
		if err != nil {
			return sessionView{}, err
		}
		v, err := s.Sessions.Get(ctx, h)
		if errors.Is(err, store.ErrNotFound) {
			return sessionView{}, s.gone(who, h)
		}
		if err != nil {
			return sessionView{}, err
		}
		return s.view(c, &v, who), nil
	}
	live, err := s.living(c, who, &p, account.SessionsValidate)
	if err != nil {
		return sessionView{}, err
	}
	v, err := s.Sessions.Get(ctx, live.Handle)
	if errors.Is(err, store.ErrNotFound) || (err == nil && !v.Live) {
		return sessionView{}, s.gone(who, live.Handle)
	}
	if err != nil {
		return sessionView{}, err
	}
	view := s.view(c, &v, who)
	if p.TokenID != nil {
		view.AuthToken = p.TokenID.Reveal()
	}
	return view, nil
}

package actions

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
)

// views holds what shows sessions and changes nothing.
func (s *sessions) views() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "describeSessions", APIs: both(), Work: dispatch.Listing, KeepsIdle: true, Allow: dispatch.Callers().Others(account.SessionsRead),
			Doc: "Shows sessions in full: those that are selected, or the living ones of the caller's account, or of all for holders of sessiond.sessions.read. " +
				"What is unknown or out of reach is left out. By its handle an ended session is shown too, as long as it is kept.",
		}, s.describe),
		dispatch.Protected(dispatch.Spec{
			Name: "listSessions", APIs: both(), Work: dispatch.Listing, KeepsIdle: true, Allow: dispatch.Callers().Others(account.SessionsRead),
			Doc: "Lists sessions as describeSessions does, a few members each.",
		}, s.list),
		dispatch.Protected(dispatch.Spec{
			Name: "getSessionInfo", APIs: both(), Work: dispatch.Reading, KeepsIdle: true, Allow: dispatch.Callers().Others(account.SessionsRead),
			Doc:    "Shows one session in full, the caller's own unless another one is named, and leaves its idle time as it is.",
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
	Limit          int          `json:"limit,omitzero" min:"1" max:"1000" doc:"At most so many sessions; 1,000 unless named."`
	Cursor         string       `json:"cursor,omitzero" max:"64" doc:"Goes on where the answer ended that held it."`
	CountOnly      bool         `json:"countOnly,omitzero" doc:"Answers how many there are and shows none."`
}

func (p *selection) Validate() error {
	selector := ""
	for _, s := range []struct {
		name  string
		given bool
	}{{"authTokens", p.AuthTokens != nil}, {"sessionHandles", p.SessionHandles != nil}, {"usernameFilter", p.UsernameFilter != nil}} {
		if s.given && selector != "" {
			return bad(s.name, "must not stand beside %s: send one of them", selector)
		}
		if s.given {
			selector = s.name
		}
	}
	for i, text := range p.SessionHandles {
		if _, ok := session.ParseHandle(text); !ok {
			return bad("sessionHandles", "must hold handles, as sessions are answered with").At("/params/sessionHandles/" + strconv.Itoa(i))
		}
	}
	return nil
}

type describeResult struct {
	Sessions []sessionView `json:"sessions" doc:"The sessions, oldest first; for authTokens and sessionHandles in their order."`
	Cursor   string        `json:"cursor,omitzero" doc:"Give it back to go on; absent: there is no more."`
	Count    *int64        `json:"count,omitzero" doc:"With countOnly: how many there are."`
}

type listResult struct {
	Sessions []sessionRow `json:"sessions" doc:"The sessions, oldest first."`
	Cursor   string       `json:"cursor,omitzero" doc:"Give it back to go on; absent: there is no more."`
	Count    *int64       `json:"count,omitzero" doc:"With countOnly: how many there are."`
}

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
	for i := range found.views {
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

// page shows the living sessions of all, of the named accounts or of the
// caller's, from the cursor on.
func (s *sessions) page(ctx context.Context, c *dispatch.Call, who *session.Caller, p *selection) (selected, error) {
	limit := p.Limit
	if limit == 0 {
		limit = defaultPage
	}
	after, err := s.parseCursor(ctx, who, p.Cursor)
	if err != nil {
		return selected{}, err
	}
	if p.UsernameFilter == nil && c.Reach.All {
		if p.CountOnly {
			n := s.Sessions.Count()
			return selected{count: &n}, nil
		}
		views, more, err := s.Sessions.List(ctx, after, limit)
		if err != nil {
			return selected{}, err
		}
		return s.paged(views, more), nil
	}
	live, err := s.ofNames(ctx, c, who, p.UsernameFilter)
	if err != nil {
		return selected{}, err
	}
	if p.CountOnly {
		n := int64(len(live))
		return selected{count: &n}, nil
	}
	from, _ := slices.BinarySearchFunc(live, after, func(l session.Live, h api.ID) int {
		if string(l.Handle[:]) <= string(h[:]) {
			return -1
		}
		return 1
	})
	live = live[from:]
	more := len(live) > limit
	views, err := s.Sessions.Views(ctx, live[:min(limit, len(live))])
	if err != nil {
		return selected{}, err
	}
	return s.paged(views, more), nil
}

// ofNames returns the living sessions of the accounts of these names that are
// within reach; nil names the caller's account.
func (s *sessions) ofNames(ctx context.Context, c *dispatch.Call, who *session.Caller, names []string) ([]session.Live, error) {
	if names == nil {
		return s.Sessions.OfAccount(who.AccountID), nil
	}
	ids := map[api.ID]bool{}
	for _, name := range names {
		for _, realm := range s.Sessions.Realms() {
			a, err := s.Accounts.Find(ctx, realm, name)
			if e, ok := errors.AsType[*api.Error](err); ok && (e.Code == api.NotFound || e.Code == api.BadParam) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if c.Reach.Covers(a.ID) {
				ids[a.ID] = true
			}
		}
	}
	var live []session.Live
	for id := range ids {
		live = append(live, s.Sessions.OfAccount(id)...)
	}
	session.Sort(live)
	return live, nil
}

// A listing's cursor is the last session shown and the time, in base 36, of the
// answer that gave it. Clients give it back as it is.
func (s *sessions) paged(views []session.View, more bool) selected {
	found := selected{views: views}
	if more && len(views) > 0 {
		found.cursor = views[len(views)-1].Handle.String() + strconv.FormatInt(s.Clock.Now().Unix(), 36)
	}
	return found
}

func (s *sessions) parseCursor(ctx context.Context, who *session.Caller, cursor string) (api.ID, error) {
	if cursor == "" {
		return api.ID{}, nil
	}
	if len(cursor) > api.IDLen {
		after, err := api.ParseID(cursor[:api.IDLen])
		given, err2 := strconv.ParseInt(cursor[api.IDLen:], 36, 64)
		if err == nil && err2 == nil {
			good, err := s.Sessions.CursorSeconds(ctx, who.Handle)
			if err != nil || s.Clock.Now().Unix()-given <= good {
				return after, err
			}
		}
	}
	return api.ID{}, bad("cursor", "must be one that a listing was answered with, not longer than idleCursorTimeoutSeconds ago")
}

func (s *sessions) info(ctx context.Context, c *dispatch.Call, who *session.Caller, p target) (sessionView, error) {
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

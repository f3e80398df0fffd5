package actions

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
	"sessiond/store"
)

// validation holds the decision about a token.
func (s *sessions) validation() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "validate", APIs: both(), KeepsIdle: true, Work: dispatch.Quick, Uncounted: true,
			Allow: dispatch.Callers().Others(account.SessionsValidate),
			Doc: "Decides whether a token is good, and says whose it is: the caller's own, tokenId, or each of tokenIds. " +
				"It resets the idle time of the session that it is about, unless refresh is false. Of what is dead nothing is told but that.",
		}, s.validate),
	}
}

type validateParams struct {
	TokenID           *api.Secret  `json:"tokenId" max:"255" null:"no" doc:"The token to decide about; the caller's own unless named. An empty one is NOT_FOUND."`
	TokenIDs          []api.Secret `json:"tokenIds,omitzero" min:"1" max:"1000" null:"no" doc:"Tokens to decide about, answered in results in their order."`
	Refresh           *bool        `json:"refresh" doc:"false leaves the idle time as it is; true unless named."`
	ClientIPAddress   string       `json:"clientIpAddress,omitzero" min:"2" max:"64" null:"no" doc:"The address that tokenId was shown from, which the session's clientIpAddresses keep; for holders of sessiond.sessions.validate."`
	UserAgent         string       `json:"userAgent,omitzero" max:"512" null:"no" doc:"The user agent that showed it there; beside clientIpAddress."`
	IncludeProperties bool         `json:"includeProperties,omitzero" doc:"Answers the session's properties too, which takes longer; with at most 100 tokenIds."`
}

func (p *validateParams) touches() bool { return p.Refresh == nil || *p.Refresh }

func (s *sessions) validate(ctx context.Context, c *dispatch.Call, who *session.Caller, p validateParams) (validateResult, error) {
	if p.IncludeProperties && len(p.TokenIDs) > 100 {
		return validateResult{}, bad("includeProperties", "goes with at most 100 tokenIds")
	}
	if p.ClientIPAddress != "" && (p.TokenID == nil || !c.Reach.All) {
		return validateResult{}, bad("clientIpAddress", "goes with tokenId, and the permission %s", account.PermissionName(account.SessionsValidate))
	}
	if p.UserAgent != "" && p.ClientIPAddress == "" {
		return validateResult{}, bad("userAgent", "goes with clientIpAddress")
	}
	var from netip.Addr
	if p.ClientIPAddress != "" {
		var err error
		if from, err = clientAddress(p.ClientIPAddress); err != nil {
			return validateResult{}, err
		}
	}
	r, err := s.decideAll(c, who, &p)
	if err == nil && r.Valid && p.touches() {
		s.Sessions.UsedFrom(r.live.Handle, from, p.UserAgent)
	}
	if err != nil || !p.IncludeProperties {
		return r, err
	}
	if err := s.addProperties(ctx, c, &r.decision); err != nil {
		return validateResult{}, err
	}
	for i := range r.Results {
		if err := s.addProperties(ctx, c, &r.Results[i]); err != nil {
			return validateResult{}, err
		}
	}
	return r, nil
}

// addProperties reads the properties of a session whose token was found good.
func (s *sessions) addProperties(ctx context.Context, c *dispatch.Call, d *decision) error {
	if !d.Valid {
		return nil
	}
	v, err := s.Sessions.Get(ctx, d.live.Handle)
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && !v.Live:
		*d = decision{Code: codeNotFound}
		return nil
	case err != nil:
		return err
	}
	d.Properties = shownProperties(c, &v)
	return nil
}

func (s *sessions) decideAll(c *dispatch.Call, who *session.Caller, p *validateParams) (validateResult, error) {
	touch := p.touches()
	switch {
	case p.TokenIDs != nil && p.TokenID != nil:
		return validateResult{}, bad("tokenIds", "and tokenId must not stand together: send one of them")
	case p.TokenIDs != nil:
		results := make([]decision, len(p.TokenIDs))
		for i, token := range p.TokenIDs {
			d, err := s.decide(c, token, touch, nil)
			if err != nil {
				return validateResult{}, err
			}
			results[i] = d
		}
		return validateResult{Results: results}, nil
	case p.TokenID != nil:
		d, err := s.decide(c, *p.TokenID, touch, c.Scratch[:0])
		if d.known != nil {
			c.Scratch = d.known
		}
		return validateResult{decision: d}, err
	}
	live := who.Live
	if touch {
		s.Sessions.TouchAt(c.Now, who.Handle)
		live.Use(c.Now)
	}
	return validateResult{decision: decision{Valid: true, Code: codeValid, live: live, known: c.Known}}, nil
}

// decide looks at one token. What is known of its account is appended to scratch.
func (s *sessions) decide(c *dispatch.Call, token api.Secret, touch bool, scratch []byte) (decision, error) {
	live, scratch, ok := s.Sessions.Check(c.Now, token.Reveal(), touch && c.Reach.All, scratch)
	if ok && !c.Reach.All {
		if !c.Reach.Covers(live.AccountID) {
			return decision{}, denied(account.SessionsValidate)
		}
		if touch {
			s.Sessions.TouchAt(c.Now, live.Handle)
			live.Use(c.Now)
		}
	}
	if !ok {
		return decision{Code: codeNotFound}, nil
	}
	return decision{Valid: true, Code: codeValid, live: live, known: scratch}, nil
}

// Codes of a decision. They are append-only.
const (
	codeValid    = "VALID"
	codeNotFound = "NOT_FOUND"
)

// decision is what validate says of one token. It writes itself, as the hot path
// wants; the members are those that AppendJSON writes.
type decision struct {
	Valid bool   `json:"valid" doc:"Is the token good at this moment?"`
	Code  string `json:"code" enum:"VALID,NOT_FOUND" doc:"VALID, or NOT_FOUND for whatever is dead."`
	decisionDetails

	live  session.Live
	known []byte
}

// decisionDetails stand only beside valid: true.
type decisionDetails struct {
	SessionHandle                 string    `json:"sessionHandle,omitzero" doc:"The session's public name."`
	AccountID                     string    `json:"accountId,omitzero" doc:"The account's identifier, which never comes back."`
	Username                      string    `json:"username,omitzero" doc:"The account's name."`
	Realm                         string    `json:"realm,omitzero" doc:"Where the account is checked."`
	Roles                         []string  `json:"roles,omitzero" doc:"Roles given to the account."`
	RealmRoles                    []string  `json:"realmRoles,omitzero" doc:"Roles that the realm gives."`
	RolesMode                     string    `json:"rolesMode,omitzero" doc:"live: the roles are those of this moment. frozen: they are those of the log-in."`
	PermanentSession              bool      `json:"permanentSession,omitzero" doc:"Is it an API key?"`
	AuthMethods                   []string  `json:"authMethods,omitzero" doc:"How the account proved itself: password, issued."`
	AuthenticationTimestamp       time.Time `json:"authenticationTimestamp,omitzero" doc:"When it did."`
	MaxIdleExpirationTimestamp    time.Time `json:"maxIdleExpirationTimestamp,omitzero" doc:"When the session idles out if it is not used; absent: never."`
	MaxSessionExpirationTimestamp time.Time `json:"maxSessionExpirationTimestamp,omitzero" doc:"When it expires whatever happens; absent: never."`

	Properties map[string]any `json:"properties,omitzero" doc:"With includeProperties: what applications keep with the session."`
}

// validateResult is the decision about one token, or, for tokenIds, about each.
type validateResult struct {
	decision
	Results []decision `json:"results,omitzero" doc:"For tokenIds: a decision each, in their order."`
}

// AppendJSON writes the result.
func (r *validateResult) AppendJSON(dst []byte) []byte {
	if r.Results == nil {
		return r.decision.AppendJSON(dst)
	}
	dst = append(dst, `{"results":[`...)
	for i := range r.Results {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = r.Results[i].AppendJSON(dst)
	}
	return append(dst, `]}`...)
}

// AppendJSON writes the decision.
func (d *decision) AppendJSON(dst []byte) []byte {
	if !d.Valid {
		return append(dst, `{"valid":false,"code":"NOT_FOUND"}`...)
	}
	l := &d.live
	dst = append(dst, `{"valid":true,"code":"VALID","sessionHandle":"`...)
	dst = session.AppendHandle(dst, l.Handle)
	dst = append(dst, '"')
	dst = append(dst, d.known...)
	dst = append(dst, `,"permanentSession":`...)
	dst = strconv.AppendBool(dst, l.Permanent)
	dst = append(dst, `,"authMethods":`...)
	dst = l.Methods.AppendJSON(dst)
	dst = appendTime(dst, `,"authenticationTimestamp":"`, l.Authenticated)
	dst = appendTime(dst, `,"maxIdleExpirationTimestamp":"`, l.IdleAt)
	dst = appendTime(dst, `,"maxSessionExpirationTimestamp":"`, l.MaxAt)
	if d.Properties != nil {
		dst = session.AppendProperties(append(dst, `,"properties":`...), d.Properties)
	}
	return append(dst, '}')
}

// appendTime writes a member, unless the time is 0, which is never.
func appendTime(dst []byte, member string, unix int64) []byte {
	if unix == 0 {
		return dst
	}
	dst = append(dst, member...)
	dst = time.Unix(unix, 0).UTC().AppendFormat(dst, time.RFC3339)
	return append(dst, '"')
}

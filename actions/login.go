package actions

import (
	"context"
	"errors"
	"net/netip"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
)

// sessions are the handlers of what concerns sessions.
type sessions struct{ Deps }

// login holds what makes a session.
func (s *sessions) login() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Optional(dispatch.Spec{
			Name: "createSession", APIs: both(), Work: dispatch.Writing, AnyToken: true, Allow: dispatch.Anyone(),
			Doc: "Logs an account in and returns a new session with its authToken, which is shown this once. " +
				"With permanentSession the authToken is an API key. In a trusted realm, holders of sessiond.sessions.issue name the user and no password is asked for.",
			Errors: []api.Code{
				api.LoginFailed, api.LoginThrottled, api.PasswordExpired, api.PasswordPolicy, api.RealmUnavailable, api.AddressNotAllowed, api.PermissionDenied, api.KindNotAllowed,
				api.SessionLimitReached, api.SessionLimitPerIPAddress, api.SessionLimitPerUsername, api.SessionLimitPerClient, api.PermanentSessionsDisabled,
				api.PropertyNotAllowed, api.Conflict, api.NotFound,
			},
		}, s.createCounted),
		dispatch.Optional(dispatch.Spec{
			Name: "pingSession", APIs: both(), Allow: dispatch.Anyone(), Work: dispatch.Quick,
			Doc: "Without an authToken tells that the server answers; with one also resets the session's idle time.",
		}, s.ping),
	}
}

// settingParams are the settings that createSession and alterSession take.
type settingParams struct {
	Description                  *string              `json:"description" max:"1024" doc:"Free text that helps to recognize the session."`
	DefaultAPI                   *string              `json:"defaultApi" enum:"admin,session,hub" doc:"The api of requests that name none."`
	DefaultDebug                 *string              `json:"defaultDebug" enum:"none,max" doc:"The debug of requests that name none."`
	DefaultDatabaseName          *string              `json:"defaultDatabaseName" max:"256" doc:"Kept for applications; without effect here."`
	DefaultOwnerName             *string              `json:"defaultOwnerName" max:"256" doc:"Kept for applications; without effect here."`
	DefaultBinaryFormat          *string              `json:"defaultBinaryFormat" enum:"hex,base64,byteArray" doc:"How binary values are written."`
	DefaultVariantFormat         *string              `json:"defaultVariantFormat" enum:"binary,json,string,variantObject" doc:"Kept for applications; without effect here."`
	DefaultResponseOptions       *api.ResponseOptions `json:"defaultResponseOptions" doc:"The responseOptions of requests that name none."`
	IdleConnectionTimeoutSeconds *int64               `json:"idleConnectionTimeoutSeconds" min:"-1" max:"31536000" doc:"Seconds without use after which the session expires; 0 is never, as is -1, which only API keys may have."`
	IdleCursorTimeoutSeconds     *int64               `json:"idleCursorTimeoutSeconds" min:"1" max:"31536000" doc:"Seconds for which the cursor of a listing is good."`
	TransformBufferInitialBytes  *int64               `json:"transformBufferInitialBytes" min:"0" max:"2147483647" doc:"Kept for applications; without effect here."`
	DefaultRetentionPolicy       *string              `json:"defaultRetentionPolicy" enum:"autoPurge,neverPurge" doc:"Accepted with a warning; services.json decides for all sessions."`
	DefaultRetentionUnit         *string              `json:"defaultRetentionUnit" enum:"minute,hour,day,week,month,year" doc:"Accepted with a warning; services.json decides for all sessions."`
	DefaultRetentionPeriod       *int64               `json:"defaultRetentionPeriod" min:"1" max:"100000" doc:"Accepted with a warning; services.json decides for all sessions."`
}

// warn tells of what was accepted and changes nothing.
func (p *settingParams) warn(c *dispatch.Call) {
	if p.DefaultRetentionPolicy != nil || p.DefaultRetentionUnit != nil || p.DefaultRetentionPeriod != nil {
		c.Warn(api.BadParam, "the retention is decided by services.json for all sessions: defaultRetentionPolicy, defaultRetentionUnit and defaultRetentionPeriod change nothing here")
	}
}

// apply changes what was named.
func (p *settingParams) apply(to *config.Settings) {
	set(&to.DefaultAPI, p.DefaultAPI)
	set(&to.DefaultDebug, p.DefaultDebug)
	set(&to.DefaultDatabaseName, p.DefaultDatabaseName)
	set(&to.DefaultOwnerName, p.DefaultOwnerName)
	set(&to.DefaultBinaryFormat, p.DefaultBinaryFormat)
	set(&to.DefaultVariantFormat, p.DefaultVariantFormat)
	set(&to.DefaultResponseOptions, p.DefaultResponseOptions)
	set(&to.TransformBufferBytes, p.TransformBufferInitialBytes)
}

func set[T any](to *T, value *T) {
	if value != nil {
		*to = *value
	}
}

// idle returns the idle time that was asked for, within the cap.
func (p *settingParams) idle(otherwise int64, permanent bool, d *config.Defaults) (int64, error) {
	if p.IdleConnectionTimeoutSeconds == nil {
		return otherwise, nil
	}
	asked := *p.IdleConnectionTimeoutSeconds
	switch limit := d.MaxIdleTimeoutSeconds; {
	case asked == -1 && permanent:
		return 0, nil
	case asked == -1:
		return 0, bad("idleConnectionTimeoutSeconds", "is -1 on API keys only: use 0 for a session that never idles out")
	case permanent && asked != 0:
		return 0, bad("idleConnectionTimeoutSeconds", "must be -1 or 0 on an API key, which does not idle out")
	case !permanent && limit > 0 && (asked == 0 || asked > limit):
		return 0, bad("idleConnectionTimeoutSeconds", "must be between 1 and %d", limit)
	}
	return asked, nil
}

// idleFits reports whether sessions of a kind take the idle time that was asked for,
// if one was.
func (p *settingParams) idleFits(permanent bool) bool {
	asked := p.IdleConnectionTimeoutSeconds
	return asked == nil || *asked == 0 || (*asked == -1) == permanent
}

// idleInCap refuses an idle time that no session may be given.
func (p *settingParams) idleInCap(d *config.Defaults) error {
	asked := p.IdleConnectionTimeoutSeconds
	_, err := p.idle(0, asked != nil && *asked == -1, d)
	return err
}

type createParams struct {
	Realm     string `json:"realm,omitzero" max:"64" doc:"Where the account is checked; native unless named."`
	RealmName string `json:"realmName,omitzero" max:"64" doc:"Another name of realm."`

	Username string     `json:"username" min:"1" max:"64" doc:"The account's name, compared without case."`
	Password api.Secret `json:"password,omitzero" max:"1024" doc:"The account's password; not for a trusted realm."`

	NewPassword    api.Secret `json:"newPassword,omitzero" max:"1024" doc:"Replaces the password in the same step, which ends the account's other temporary sessions; wanted where a password is good once, or too old."`
	Reauthenticate bool       `json:"reauthenticate,omitzero" doc:"With the caller's authToken: the new session takes over the settings and properties of the caller's, which ends as replaced. It takes no place beside it."`

	JoinClient bool `json:"joinClient,omitzero" doc:"With the caller's authToken: the new session joins the browser or device of the caller's, which stays."`

	Ticket           *api.Secret `json:"ticket" max:"255" null:"no" doc:"Of a refusal for maxJsonApiSessionsPerUsername, in place of the password, and good once: the log-in goes on and ends endSessionHandle."`
	EndSessionHandle string      `json:"endSessionHandle,omitzero" min:"1" max:"64" null:"no" doc:"Beside ticket: one of the sessions that the refusal listed."`

	IdempotencyKey string `json:"idempotencyKey,omitzero" min:"1" max:"128" null:"no" doc:"A random name of this log-in, for when its answer is lost: sent again within 10 minutes, with the password, it answers with the session that it made, under a new authToken, and makes none beside it."`

	PermanentSession         bool   `json:"permanentSession,omitzero" doc:"Makes an API key: a session that does not idle out."`
	RememberMe               bool   `json:"rememberMe,omitzero" doc:"Asks for the longer idle time that services.json has for this; without one the idle time is as ever."`
	MaxSessionTimeoutSeconds *int64 `json:"maxSessionTimeoutSeconds" min:"0" max:"315360000" doc:"Seconds after which the session expires whatever happens; 0 is never. Nobody can move it later."`

	Properties map[string]any `json:"properties,omitzero" doc:"What the application keeps with the session, by name, as updateSessionProperties takes it."`

	ClientIPAddress string `json:"clientIpAddress,omitzero" max:"64" doc:"The address of the person behind the request; for holders of sessiond.sessions.issue."`
	UserAgent       string `json:"userAgent,omitzero" max:"512" doc:"The user agent of the person behind the request; for holders of sessiond.sessions.issue."`

	settingParams
}

func (p *createParams) Validate() error {
	if p.Realm != "" && p.RealmName != "" && p.Realm != p.RealmName {
		return bad("realmName", "names another realm than realm does: send one of them")
	}
	if p.Reauthenticate && p.PermanentSession {
		return bad("permanentSession", "must not stand beside reauthenticate: an API key is no log-in")
	}
	if p.IdempotencyKey != "" && (p.Reauthenticate || !p.NewPassword.IsZero()) {
		return bad("idempotencyKey", "must not stand beside reauthenticate or newPassword: what they replace is gone when they are repeated")
	}
	if p.JoinClient && (p.Reauthenticate || p.PermanentSession) {
		return bad("joinClient", "must not stand beside reauthenticate, which stays on the caller's browser or device, or permanentSession, which is on none")
	}
	return p.validateTicket()
}

func (p *createParams) validateTicket() error {
	switch {
	case p.Ticket == nil && p.EndSessionHandle == "":
		return nil
	case p.Ticket == nil:
		return missing("ticket")
	case p.EndSessionHandle == "":
		return missing("endSessionHandle")
	case !p.Password.IsZero():
		return bad("password", "must not stand beside ticket, which takes its place")
	case p.Reauthenticate || !p.NewPassword.IsZero() || p.PermanentSession:
		return bad("ticket", "must not stand beside reauthenticate, newPassword or permanentSession: send the log-in with the password")
	}
	return isHandle("endSessionHandle", p.EndSessionHandle)
}

// createResult is a new session, or one whose log-in was repeated.
type createResult struct {
	sessionView

	Repeated bool `json:"repeated,omitzero" doc:"The idempotencyKey was used before: this is the session that was made then, and its old authToken stopped working."`
}

func (s *sessions) create(ctx context.Context, c *dispatch.Call, who *session.Caller, p createParams) (createResult, error) {
	name, member := p.Realm, "realm"
	if name == "" {
		name, member = p.RealmName, "realmName"
	}
	realm, err := realmOf(c.Config, name, member)
	if err == nil && p.Ticket == nil {
		err = fits(realm, p.Password, "password")
	}
	if err == nil && realm.Type == config.Trusted && !p.NewPassword.IsZero() {
		err = bad("newPassword", "must be absent: the realm checks no passwords")
	}
	if err != nil {
		return createResult{}, err
	}
	n, err := s.newSession(c, who, &p, realm)
	if err != nil {
		return createResult{}, err
	}
	p.warn(c)
	v, token, err := s.Sessions.Create(ctx, n)
	if e, ok := errors.AsType[*session.ChoiceError](err); ok {
		return createResult{}, choice(e)
	}
	if err != nil {
		return createResult{}, about(err, map[api.Code]string{api.BadParam: "/params/username"})
	}
	if !p.NewPassword.IsZero() && s.PasswordChanged != nil {
		s.PasswordChanged(v.Realm, v.Username)
	}
	c.Made(v.Handle)
	view := createResult{sessionView: s.view(c, &v, nil), Repeated: v.Repeated}
	view.AuthToken = token.Reveal()
	if who == nil || who.AccountID == v.AccountID {
		c.Issue(token)
		view.Current = true
	}
	return view, nil
}

// choice is a refusal with what is needed to go on.
func choice(e *session.ChoiceError) *api.Error {
	refusal := *e.Refusal
	refusal.Message = "the account has as many sessions as it may: send the log-in again with the ticket of errorData in place of the password, and as endSessionHandle the session of errorData that makes room"
	refusal.Data.Choice = &api.Choice{Ticket: e.Ticket.Reveal(), TicketExpirationTimestamp: at(e.Until)}
	for i := range e.Sessions {
		v := &e.Sessions[i]
		may := api.ChoiceSession{
			SessionHandle: session.HandleText(v.Handle), Description: v.Description, SessionStartTimestamp: at(v.Created), SessionLastAccessedTimestamp: at(v.LastAccess),
		}
		from, agent := v.LastUse()
		may.ClientIPAddress = addressText(from)
		if d := deviceOf(agent); d != nil {
			may.Browser, may.OS = d.Browser, d.OS
		}
		refusal.Data.Sessions = append(refusal.Data.Sessions, may)
	}
	return &refusal
}

// newSession puts together what the request, its caller and services.json say.
func (s *sessions) newSession(c *dispatch.Call, who *session.Caller, p *createParams, realm *config.Realm) (*session.NewSession, error) {
	d := &c.Config.Defaults
	n := &session.NewSession{
		Config: c.Config, Realm: realm, Username: p.Username, Password: p.Password, NewPassword: p.NewPassword, IdempotencyKey: p.IdempotencyKey,
		Permanent: p.PermanentSession, RememberMe: p.RememberMe && !p.PermanentSession,
		Settings: d.Settings, Abandon: d.AbandonAfterSeconds, Cursor: d.IdleCursorTimeoutSeconds,
	}
	if n.Permanent {
		if !d.PermanentSessions {
			return nil, api.Errorf(api.PermanentSessionsDisabled, "permanent sessions are switched off: enablePermanentJsonApiSessions in services.json allows them").At("/params/permanentSession")
		}
		if who != nil && who.IsKey() {
			return nil, api.Errorf(api.KindNotAllowed, "an API key may not make API keys: log in and use the session").At("/params/permanentSession")
		}
	}
	if p.JoinClient {
		switch {
		case who == nil:
			return nil, dispatch.InvalidToken()
		case who.IsKey():
			return nil, api.Errorf(api.KindNotAllowed, "an API key is on no browser or device").At("/params/joinClient")
		case realm.Type == config.Trusted:
			return nil, bad("joinClient", "needs a realm that checks passwords: who issues a session is not on the person's browser or device")
		case p.EndSessionHandle == session.HandleText(who.Handle):
			return nil, bad("endSessionHandle", "must not be the session that is joined")
		}
		n.Join = who
	}
	if p.Ticket != nil {
		n.Ticket = *p.Ticket
		n.Choice, _ = session.ParseHandle(p.EndSessionHandle)
	}
	if p.Reauthenticate {
		if err := s.reauthenticate(c, who, p, n); err != nil {
			return nil, err
		}
	}
	if err := s.origin(c, who, p, n); err != nil {
		return nil, err
	}
	p.apply(&n.Settings)
	set(&n.Description, p.Description)
	set(&n.Cursor, p.IdleCursorTimeoutSeconds)
	change, err := propertyChange(c.Config.PropertiesOf(realm.Name), p.Properties, nil)
	if err == nil {
		n.Properties, err = change.On(nil)
	}
	if err != nil {
		return nil, err
	}
	if n.Idle, err = p.idle(idleOf(d, realm, n), n.Permanent, d); err != nil {
		return nil, err
	}
	n.Max, err = p.lifetime(lifetimeOf(d, realm, n), d)
	return n, err
}

// reauthenticate has the new session take over from the caller's what the request
// does not set anew.
func (s *sessions) reauthenticate(c *dispatch.Call, who *session.Caller, p *createParams, n *session.NewSession) error {
	switch {
	case who == nil:
		return dispatch.InvalidToken()
	case who.IsKey():
		return api.Errorf(api.KindNotAllowed, "an API key has no log-in that could be renewed").At("/params/reauthenticate")
	case n.Realm.Type == config.Trusted:
		return bad("reauthenticate", "needs a realm that checks passwords")
	}
	if by := s.Sessions.Actor(who); by.Username != "" {
		if own, err := sameName(n.Realm.Name, p.Username, by.Realm, by.Username); err == nil && !own { // before his password is looked at
			return bad("username", "must be that of the session's own account, to reauthenticate")
		}
	}
	change, err := propertyChange(c.Config.PropertiesOf(n.Realm.Name), p.Properties, nil)
	if err != nil {
		return err
	}
	n.Instead = who
	n.Inherit = func(old *session.Record) (err error) {
		n.Settings, n.Client = old.Settings, old.ClientID()
		p.apply(&n.Settings)
		n.RememberMe = n.RememberMe || old.RememberMe
		if p.Description == nil {
			n.Description = old.Description
		}
		if p.IdleCursorTimeoutSeconds == nil {
			n.Cursor = old.CursorSeconds
		}
		if p.IdleConnectionTimeoutSeconds == nil && n.RememberMe == old.RememberMe {
			n.Idle = old.IdleSeconds
		}
		n.Properties, err = change.On(old.Properties)
		return err
	}
	return nil
}

// origin settles from where the session comes, and whose word stands for it.
func (s *sessions) origin(c *dispatch.Call, who *session.Caller, p *createParams, n *session.NewSession) error {
	issuing := who != nil && who.May(account.SessionsIssue)
	n.Address, n.UserAgent = c.Address, c.UserAgent
	if n.Realm.Type == config.Trusted {
		if who == nil {
			return dispatch.InvalidToken()
		}
		if !issuing {
			return denied(account.SessionsIssue)
		}
		n.Issuer, n.Address, n.UserAgent = who, netip.Addr{}, ""
	}
	for _, m := range []struct{ name, value string }{{"clientIpAddress", p.ClientIPAddress}, {"userAgent", p.UserAgent}} {
		if m.value != "" && who == nil {
			return dispatch.InvalidToken()
		}
		if m.value != "" && !issuing {
			return denied(account.SessionsIssue).At("/params/" + m.name)
		}
	}
	if p.ClientIPAddress != "" {
		var err error
		if n.Address, err = clientAddress(p.ClientIPAddress); err != nil {
			return err
		}
	}
	if p.UserAgent != "" {
		n.UserAgent = p.UserAgent
	}
	return nil
}

// clientAddress reads the address of a person behind a request.
func clientAddress(text string) (netip.Addr, error) {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, bad("clientIpAddress", "must be an IPv4 or IPv6 address")
	}
	return address.Unmap().WithZone(""), nil
}

// idleOf returns the idle time of a session that asks for none. What the realm says
// comes before what services.json says for all.
func idleOf(d *config.Defaults, realm *config.Realm, n *session.NewSession) int64 {
	switch {
	case n.Permanent:
		return 0
	case n.RememberMe && realm.RememberMeIdleSeconds > 0:
		return realm.RememberMeIdleSeconds
	case realm.IdleTimeoutSeconds > 0:
		return realm.IdleTimeoutSeconds
	case n.RememberMe && d.RememberMeIdleSeconds > 0:
		return d.RememberMeIdleSeconds
	}
	return d.IdleConnectionTimeoutSeconds
}

// lifetimeOf returns the lifetime of a session that asks for none. API keys have
// one only if it is asked for.
func lifetimeOf(d *config.Defaults, realm *config.Realm, n *session.NewSession) int64 {
	switch {
	case n.Permanent:
		return 0
	case realm.MaxLifetimeSeconds > 0:
		return realm.MaxLifetimeSeconds
	}
	return d.MaxSessionTimeoutSeconds
}

// lifetime returns the lifetime that was asked for, within the cap.
func (p *createParams) lifetime(otherwise int64, d *config.Defaults) (int64, error) {
	if p.MaxSessionTimeoutSeconds == nil {
		return otherwise, nil
	}
	asked, limit := *p.MaxSessionTimeoutSeconds, d.MaxLifetimeSeconds
	if !p.PermanentSession && limit > 0 && (asked == 0 || asked > limit) {
		return 0, bad("maxSessionTimeoutSeconds", "must be between 1 and %d", limit)
	}
	return asked, nil
}

func (s *sessions) ping(context.Context, *dispatch.Call, *session.Caller, empty) (empty, error) {
	return empty{}, nil
}

package actions

import (
	"net/netip"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/api"
	"sessiond/internal/session"
)

// sessionView is a session as the wire has it.
type sessionView struct {
	AuthToken                     string               `json:"authToken,omitzero" doc:"The token; only where it is new, or where the caller itself passed it."`
	Username                      string               `json:"username" doc:"The account's name, as it was created."`
	Description                   string               `json:"description" doc:"Free text that helps to recognize the session."`
	DefaultAPI                    string               `json:"defaultApi" doc:"The api of requests that name none."`
	DefaultDebug                  string               `json:"defaultDebug" doc:"The debug of requests that name none."`
	DefaultDatabaseName           string               `json:"defaultDatabaseName" doc:"Kept for applications; without effect here."`
	DefaultOwnerName              string               `json:"defaultOwnerName" doc:"Kept for applications; without effect here."`
	DefaultBinaryFormat           string               `json:"defaultBinaryFormat" doc:"How binary values are written."`
	DefaultVariantFormat          string               `json:"defaultVariantFormat,omitzero" doc:"Kept for applications; without effect here."`
	DefaultResponseOptions        api.ResponseOptions  `json:"defaultResponseOptions" doc:"The responseOptions of requests that name none."`
	IdleConnectionTimeoutSeconds  int64                `json:"idleConnectionTimeoutSeconds" doc:"Seconds without use after which the session expires; 0 is never; -1 on API keys."`
	IdleCursorTimeoutSeconds      int64                `json:"idleCursorTimeoutSeconds" doc:"Seconds for which the cursor of a listing is good."`
	TransformBufferInitialBytes   int64                `json:"transformBufferInitialBytes" doc:"Kept for applications; without effect here."`
	PermanentSession              bool                 `json:"permanentSession" doc:"Is it an API key?"`
	SessionStartTimestamp         time.Time            `json:"sessionStartTimestamp" doc:"When it was created."`
	SessionLastAccessedTimestamp  time.Time            `json:"sessionLastAccessedTimestamp" doc:"When it was used last, as exactly as lastAccessAccuracySeconds says after a restart."`
	DefaultRetentionPolicy        string               `json:"defaultRetentionPolicy" doc:"Whether ended sessions and events are purged."`
	DefaultRetentionUnit          string               `json:"defaultRetentionUnit" doc:"The unit of defaultRetentionPeriod."`
	DefaultRetentionPeriod        int64                `json:"defaultRetentionPeriod" doc:"For how many units ended sessions and events are kept."`
	Hostname                      string               `json:"hostname" doc:"The server's host name."`
	HostUUID                      string               `json:"hostUuid" doc:"The server's identifier, which stays with its data."`
	HostIPAddresses               []netip.Addr         `json:"hostIpAddresses" doc:"The server's addresses."`
	HostServerNamePort            string               `json:"hostServerNamePort" doc:"The server's name and port."`
	SessionHandle                 string               `json:"sessionHandle" doc:"The session's public name: safe in lists, logs and URLs."`
	MaskedToken                   string               `json:"maskedToken" doc:"The token's prefix and last characters."`
	AccountID                     string               `json:"accountId" doc:"The account's identifier, which never comes back."`
	Realm                         string               `json:"realm" doc:"Where the account is checked."`
	Roles                         []string             `json:"roles" doc:"Roles given to the account."`
	RealmRoles                    []string             `json:"realmRoles" doc:"Roles that the realm gives."`
	RolesMode                     string               `json:"rolesMode" doc:"live: changes of roles act on it at once. frozen: it keeps those of its log-in."`
	AuthMethods                   []string             `json:"authMethods" doc:"How the account proved itself: password, issued."`
	AuthenticationTimestamp       time.Time            `json:"authenticationTimestamp" doc:"When it did."`
	ClientIPAddress               string               `json:"clientIpAddress,omitzero" doc:"The address that the session was created from."`
	ClientIPAddresses             map[string]time.Time `json:"clientIpAddresses,omitzero" doc:"The last five addresses that it was used from, and when it first was; absent: clientIpAddress alone. A new one shows after some seconds."`
	UserAgent                     string               `json:"userAgent,omitzero" doc:"The user agent that it was created with."`
	Device                        *device              `json:"device,omitzero" doc:"What the user agent says it is."`
	LastClientIPAddress           string               `json:"lastClientIpAddress,omitzero" doc:"The address that it was used from last. It is noted some seconds later, and once a minute."`
	LastUserAgent                 string               `json:"lastUserAgent,omitzero" doc:"The user agent that used it then."`
	LastDevice                    *device              `json:"lastDevice,omitzero" doc:"What that says it is."`
	ClientHandle                  string               `json:"clientHandle" doc:"The public name of the browser or device: sessions that were joined there have the same one."`
	Status                        string               `json:"status" doc:"pending, active, ended, removed, revoked, expired, abandoned or replaced."`
	Current                       bool                 `json:"current" doc:"Is it the session of the caller?"`
	MaxSessionTimeoutSeconds      int64                `json:"maxSessionTimeoutSeconds" doc:"Seconds after its creation at which it expires whatever happens; 0 is never."`
	RememberMe                    bool                 `json:"rememberMe" doc:"Was the longer idle time asked for?"`
	MaxIdleExpirationTimestamp    time.Time            `json:"maxIdleExpirationTimestamp,omitzero" doc:"When it idles out if it is not used; absent: never."`
	MaxSessionExpirationTimestamp time.Time            `json:"maxSessionExpirationTimestamp,omitzero" doc:"When it expires whatever happens; absent: never."`
	AbandonTimestamp              time.Time            `json:"abandonTimestamp,omitzero" doc:"When it counts as abandoned if it is not used; absent: never."`
	EndedTimestamp                time.Time            `json:"endedTimestamp,omitzero" doc:"When it ended."`
	EndReason                     string               `json:"endReason,omitzero" doc:"What ended it: logout, revoked, idleTimeout, sessionTimeout, passwordChanged, massLogout, accountDisabled, or the reason that was given."`
	EndedBy                       string               `json:"endedBy,omitzero" doc:"The handle of the session that ended it; absent: the server."`
	Revision                      uint64               `json:"revision" doc:"Counts its alterations, from 1."`
	Properties                    map[string]any       `json:"properties" doc:"What applications keep with it."`
	LastAccessAccuracySeconds     int64                `json:"lastAccessAccuracySeconds" doc:"How much of the last access a crash of the server may lose."`
}

// device is what a user agent says it is.
type device struct {
	Browser string `json:"browser,omitzero" doc:"Name and version."`
	OS      string `json:"os,omitzero" doc:"Name and version."`
	Kind    string `json:"kind" doc:"desktop, mobile, tablet, bot or other."`
}

// view renders a session for a caller, who is nil where the session is his own
// new one.
func (s *sessions) view(c *dispatch.Call, v *session.View, who *session.Caller) sessionView {
	d := &c.Config.Defaults
	view := sessionView{
		Username: v.Username, Description: v.Description,
		DefaultAPI: v.Settings.DefaultAPI, DefaultDebug: v.Settings.DefaultDebug, DefaultDatabaseName: v.Settings.DefaultDatabaseName,
		DefaultOwnerName: v.Settings.DefaultOwnerName, DefaultBinaryFormat: v.Settings.DefaultBinaryFormat,
		DefaultVariantFormat: v.Settings.DefaultVariantFormat, DefaultResponseOptions: v.Settings.DefaultResponseOptions,
		IdleConnectionTimeoutSeconds: idleShown(v), IdleCursorTimeoutSeconds: v.CursorSeconds, TransformBufferInitialBytes: v.Settings.TransformBufferBytes,
		PermanentSession: v.Permanent, SessionStartTimestamp: at(v.Created), SessionLastAccessedTimestamp: at(v.LastAccess),
		DefaultRetentionPolicy: d.RetentionPolicy, DefaultRetentionUnit: d.RetentionUnit, DefaultRetentionPeriod: d.RetentionPeriod,
		Hostname: s.Host.Name, HostUUID: s.Host.UUID, HostIPAddresses: s.Host.Addresses, HostServerNamePort: s.Host.ServerNamePort,
		SessionHandle: session.HandleText(v.Handle), MaskedToken: v.MaskedToken(), AccountID: v.AccountID.String(), Realm: v.Realm,
		Roles: v.Roles, RealmRoles: v.RealmRoles, RolesMode: v.RolesMode(), AuthMethods: v.Methods.Names(), AuthenticationTimestamp: at(v.Authenticated),
		UserAgent: v.UserAgent, ClientHandle: session.ClientText(v.ClientID()), Status: v.Status().String(), Current: who != nil && who.Handle == v.Handle,
		MaxSessionTimeoutSeconds: v.MaxSeconds, RememberMe: v.RememberMe,
		MaxIdleExpirationTimestamp: at(v.IdleAt), MaxSessionExpirationTimestamp: at(v.MaxAt), AbandonTimestamp: at(v.AbandonAt()),
		EndedTimestamp: at(v.End.At), EndReason: v.End.Reason, EndedBy: v.End.By,
		Revision: v.Revision, Properties: shownProperties(c, v), LastAccessAccuracySeconds: s.Sessions.Accuracy(v.IdleSeconds),
	}
	view.ClientIPAddress = addressText(v.Address)
	if len(v.Sightings) > 0 {
		view.ClientIPAddresses = make(map[string]time.Time, len(v.Sightings))
	}
	for _, seen := range v.Sightings {
		view.ClientIPAddresses[seen.Address.String()] = at(seen.At)
	}
	view.Device = deviceOf(v.UserAgent)
	lastAddress, lastAgent := v.LastUse()
	view.LastClientIPAddress, view.LastUserAgent, view.LastDevice = addressText(lastAddress), lastAgent, view.Device
	if lastAgent != v.UserAgent {
		view.LastDevice = deviceOf(lastAgent)
	}
	return view
}

// deviceOf returns what a user agent says it is; none says nothing.
func deviceOf(userAgent string) *device {
	if userAgent == "" {
		return nil
	}
	d := session.ParseUserAgent(userAgent)
	return &device{Browser: d.Browser, OS: d.OS, Kind: d.Kind}
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// idleShown returns a session's idle time as the wire has it.
func idleShown(v *session.View) int64 {
	if v.Permanent {
		return -1
	}
	return v.IdleSeconds
}

// at returns a moment; 0 is none.
func at(unix int64) time.Time {
	if unix == 0 {
		return time.Time{}
	}
	return time.Unix(unix, 0).UTC()
}

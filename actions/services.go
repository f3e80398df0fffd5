package actions

import (
	"context"
	"slices"
	"strings"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

// Services are the listeners, and the file from which the server is set up.
type Services interface {
	// Listeners returns the listeners as they are now.
	Listeners() []api.Listener
	// Manage does a command to the listener of a service, and returns it as it is
	// then and whether that changed anything. What changes is recorded first, once
	// nothing else can fail: if that does, nothing has changed. Refusals are
	// api.Errors without a pointer, NotFound if there is no such listener.
	Manage(ctx context.Context, service string, command api.ServiceCommand, record func() error) (api.Listener, bool, error)
	// Reload puts services.json in force, with the certificates that it names, and
	// records it first; or it leaves everything as it was and returns why. The notes
	// are for the operator: what in the file has no effect, or not yet.
	Reload(ctx context.Context, record func() error) (notes []string, err error)
	// Webhooks returns the receivers of events as they are now.
	Webhooks() []api.Webhook
	// ReplayWebhook lets a receiver go on from a cursor, an empty one being the
	// oldest event that is kept, and returns it as it is then. It is recorded first.
	// Refusals are api.Errors: NotFound without a pointer, or BadParam for the cursor.
	ReplayWebhook(ctx context.Context, name, cursor string, record func() error) (api.Webhook, error)
}

// services are the handlers of what shows and turns apis and listeners.
type services struct{ Deps }

func (s *services) table() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Optional(dispatch.Spec{
			Name: "listServices", APIs: admin(), Allow: dispatch.Anyone(), Work: dispatch.Quick,
			Doc: "Lists the apis and the listeners and where each stands. Holders of " + account.PermissionName(account.ServicesRead) +
				" see them whole, and the limits and settings in force.",
		}, s.list),
		dispatch.Protected(dispatch.Spec{
			Name: "manageService", APIs: admin(), Allow: dispatch.Holders(account.ServicesManage).Recent(), Work: dispatch.Ending,
			Errors: []api.Code{api.MissingParam, api.NotFound, api.Conflict},
			Doc: "Does a command to an api or a listener, in force at once and until the server stops, or reloads services.json. " +
				"What is so already succeeds and changes nothing. Whatever would leave nobody able to manage the server is refused.",
		}, s.manage),
		s.replaying(),
	}
}

type listServicesParams struct {
	ServiceNames []string `json:"serviceNames,omitzero" max:"100" doc:"Only these, by name, compared without case; nothing else is listed then."`
}

type listServicesResult struct {
	Listeners []listenerView `json:"listeners" doc:"The listeners."`
	APIs      []apiView      `json:"apis" doc:"The apis."`
	Webhooks  []webhookView  `json:"webhooks,omitzero" doc:"The receivers of events; with the permission, and if there are any."`
	Defaults  *defaultsView  `json:"jsonActionApiDefaults,omitzero" doc:"Settings and limits in force; with the permission, and unless serviceNames chooses."`
}

type apiView struct {
	ServiceName string           `json:"serviceName" doc:"What requests name as api."`
	State       api.ServiceState `json:"state" doc:"running, paused or stopped."`
	Enabled     *bool            `json:"enabled,omitzero" doc:"Whether services.json has it enabled."`
}

type listenerView struct {
	ServiceName string           `json:"serviceName" doc:"Its name."`
	State       api.ServiceState `json:"state" doc:"running, paused or stopped."`
	Enabled     *bool            `json:"enabled,omitzero" doc:"Whether services.json has it enabled; here and below: with the permission."`
	Description string           `json:"description,omitzero" doc:"As in services.json."`
	Address     string           `json:"address,omitzero" doc:"What it listens on, as in services.json."`
	Port        *int             `json:"port,omitzero" doc:"Its port: the one that is open, where services.json leaves it to the system."`
	Protocol    string           `json:"protocol,omitzero" doc:"http or https."`
	Connections *int             `json:"connections,omitzero" doc:"Its open connections."`
	TLS         *tlsView         `json:"tls,omitzero" doc:"Of https."`
}

type tlsView struct {
	CertificateFile string           `json:"serverCertificateFilename" doc:"As in services.json."`
	KeyFile         string           `json:"serverKeyFilename,omitzero" doc:"As in services.json; absent: the key is in the certificate's file."`
	Certificate     *certificateView `json:"certificate,omitzero" doc:"What new connections get; absent while the port is closed."`
}

type certificateView struct {
	Subject   string    `json:"subject" doc:"Its subject."`
	NotBefore time.Time `json:"notBefore" doc:"It holds from then."`
	NotAfter  time.Time `json:"notAfter" doc:"It holds until then."`
	SHA256    string    `json:"fingerprintSha256" doc:"SHA-256 over its DER form, in hex."`
}

func (s *services) list(_ context.Context, c *dispatch.Call, who *session.Caller, p listServicesParams) (listServicesResult, error) {
	whole := who != nil && who.May(account.ServicesRead)
	chosen := func(name string) bool {
		return p.ServiceNames == nil || slices.ContainsFunc(p.ServiceNames, func(n string) bool { return strings.EqualFold(n, name) })
	}
	r := listServicesResult{Listeners: []listenerView{}, APIs: []apiView{}}
	for _, l := range s.Services.Listeners() {
		if chosen(l.ServiceName) {
			r.Listeners = append(r.Listeners, viewOfListener(l, whole))
		}
	}
	for _, name := range apis() {
		if !chosen(name) {
			continue
		}
		view := apiView{ServiceName: name, State: s.APIs.State(c.Config, name)}
		if whole {
			view.Enabled = new(c.Config.APIs[name])
		}
		r.APIs = append(r.APIs, view)
	}
	for _, w := range s.Services.Webhooks() {
		if whole && chosen(w.Name) {
			r.Webhooks = append(r.Webhooks, viewOfWebhook(w))
		}
	}
	if whole && p.ServiceNames == nil {
		r.Defaults = viewOfDefaults(&c.Config.Defaults)
	}
	return r, nil
}

func apis() []string { return []string{api.Admin, api.Session, api.Hub} }

func viewOfListener(l api.Listener, whole bool) listenerView {
	if !whole {
		return listenerView{ServiceName: l.ServiceName, State: l.State}
	}
	view := listenerView{
		ServiceName: l.ServiceName, State: l.State, Enabled: &l.Enabled, Description: l.Description, Address: l.Address, Port: &l.Port,
		Protocol: l.Protocol, Connections: &l.Connections,
	}
	if l.CertificateFile != "" {
		view.TLS = &tlsView{CertificateFile: l.CertificateFile, KeyFile: l.KeyFile}
		if c := l.Certificate; c != nil {
			view.TLS.Certificate = &certificateView{c.Subject, c.NotBefore, c.NotAfter, c.SHA256}
		}
	}
	return view
}

type manageServiceParams struct {
	ServiceName string             `json:"serviceName,omitzero" max:"64" doc:"An api or a listener, as listServices names it; apis come first. Not for reload."`
	Command     api.ServiceCommand `json:"command" enum:"pause,resume,restart,shutdown,startup,reload" doc:"pause turns new requests of an api, or new connections of a listener, away; resume ends that; shutdown makes an api unknown, or closes a port and its connections once what runs is answered; startup ends that; restart is both, the certificate read anew; reload is about services.json."`
}

type manageServiceResult struct {
	ServiceName string           `json:"serviceName" doc:"What was meant; services.json after a reload."`
	State       api.ServiceState `json:"state,omitzero" doc:"Where it stands now."`
	Port        int              `json:"port,omitzero" doc:"Of a listener: its port."`
	Changed     bool             `json:"changed" doc:"false: it was so already."`
	Notes       []string         `json:"notes,omitzero" doc:"After a reload: what in the file has no effect, or not yet."`
}

func (s *services) manage(ctx context.Context, c *dispatch.Call, who *session.Caller, p manageServiceParams) (manageServiceResult, error) {
	r := manageServiceResult{ServiceName: p.ServiceName}
	record := func() error { return s.record(ctx, c, who, r.ServiceName, p.Command) }
	var err error
	switch i := slices.IndexFunc(apis(), func(name string) bool { return strings.EqualFold(name, p.ServiceName) }); {
	case p.Command == api.Reload && p.ServiceName != "":
		return r, bad("serviceName", "must be absent: a reload is about services.json")
	case p.Command == api.Reload:
		r.ServiceName, r.Changed = config.FileName, true
		r.Notes, err = s.Services.Reload(ctx, record)
	case p.ServiceName == "":
		return r, missing("serviceName")
	case i >= 0:
		r.ServiceName = apis()[i]
		r.State, r.Changed, err = s.APIs.Turn(c.Config, r.ServiceName, p.Command, record)
	default:
		for _, l := range s.Services.Listeners() {
			if strings.EqualFold(l.ServiceName, p.ServiceName) {
				r.ServiceName = l.ServiceName // as it stands in services.json, for the log of changes
			}
		}
		var l api.Listener
		l, r.Changed, err = s.Services.Manage(ctx, p.ServiceName, p.Command, record)
		r.State, r.Port = l.State, l.Port
	}
	return r, about(err, map[api.Code]string{
		api.NotFound: "/params/serviceName", api.Conflict: "/params/command", api.BadParam: "/params/command",
	})
}

// record writes what is about to be done into the log of changes.
func (s *services) record(ctx context.Context, c *dispatch.Call, who *session.Caller, service string, command api.ServiceCommand) error {
	e := event.Event{Time: s.Clock.Now(), Kind: event.ServiceManaged, Service: service, Reason: string(command), By: s.Sessions.Actor(who)}
	if c.Address.IsValid() {
		e.ClientIPAddress = c.Address.String()
	}
	return s.Record(ctx, e)
}

// defaultsView is jsonActionApiDefaults as it is in force.
type defaultsView struct {
	DefaultAPI             string              `json:"defaultApi" doc:"The api of requests that name none."`
	DefaultDebug           string              `json:"defaultDebug" doc:"none or max."`
	DefaultResponseOptions api.ResponseOptions `json:"defaultResponseOptions" doc:"The form of results."`

	IdleConnectionTimeoutSeconds int64 `json:"idleConnectionTimeoutSeconds" doc:"0: never."`
	MaxSessionTimeoutSeconds     int64 `json:"maxSessionTimeoutSeconds" doc:"0: no end of life."`
	RememberMeIdleSeconds        int64 `json:"rememberMeIdleTimeoutSeconds" doc:"0: as without rememberMe."`
	AbandonAfterSeconds          int64 `json:"abandonAfterSeconds" doc:"0: never."`
	IdleToleranceSeconds         int64 `json:"idleToleranceSeconds" doc:"How long after its idle time a new session still lives."`
	ExpiryJitterPercent          int64 `json:"expiryJitterPercent" doc:"By how much at most the lifetime of a new session is cut, at random."`
	MaxIdleTimeoutSeconds        int64 `json:"largestIdleConnectionTimeoutSeconds" doc:"The largest idle time that a request may ask for; 0: any."`
	MaxLifetimeSeconds           int64 `json:"largestMaxSessionTimeoutSeconds" doc:"The largest lifetime that a request may ask for; 0: any."`
	IdleCursorTimeoutSeconds     int64 `json:"idleCursorTimeoutSeconds" doc:"How long the cursor of a listing is good."`
	RotationGraceSeconds         int64 `json:"rotationGraceSeconds" doc:"How long the old token of a rotated session is good."`
	LatestAccessSeconds          int64 `json:"latestAccessTimeUpdateFrequencySeconds" doc:"How often at most a last use is written."`

	MaxSessions             int64 `json:"maxJsonApiSessions" doc:"Live sessions; here and below, 0: no limit."`
	MaxSessionsPerIPAddress int64 `json:"maxJsonApiSessionsPerIpAddress" doc:"From one address."`
	MaxSessionsPerUsername  int64 `json:"maxJsonApiSessionsPerUsername" doc:"Of one account."`
	MaxSessionsPerClient    int64 `json:"maxJsonApiSessionsPerClient" doc:"Of one browser or device."`
	PermanentSessions       bool  `json:"enablePermanentJsonApiSessions" doc:"Whether new API keys may be made."`

	RetentionPolicy string `json:"defaultRetentionPolicy" doc:"autoPurge or neverPurge."`
	RetentionUnit   string `json:"defaultRetentionUnit" doc:"Unit of defaultRetentionPeriod."`
	RetentionPeriod int64  `json:"defaultRetentionPeriod" doc:"How long ended sessions and events are kept."`
}

func viewOfDefaults(d *config.Defaults) *defaultsView {
	return &defaultsView{
		DefaultAPI: d.DefaultAPI, DefaultDebug: d.DefaultDebug, DefaultResponseOptions: d.DefaultResponseOptions,
		IdleConnectionTimeoutSeconds: d.IdleConnectionTimeoutSeconds, MaxSessionTimeoutSeconds: d.MaxSessionTimeoutSeconds,
		RememberMeIdleSeconds: d.RememberMeIdleSeconds, AbandonAfterSeconds: d.AbandonAfterSeconds,
		IdleToleranceSeconds: d.IdleToleranceSeconds, ExpiryJitterPercent: d.ExpiryJitterPercent, RotationGraceSeconds: d.RotationGraceSeconds,
		MaxIdleTimeoutSeconds: d.MaxIdleTimeoutSeconds, MaxLifetimeSeconds: d.MaxLifetimeSeconds,
		IdleCursorTimeoutSeconds: d.IdleCursorTimeoutSeconds, LatestAccessSeconds: d.LatestAccessSeconds,
		MaxSessions: d.MaxSessions, MaxSessionsPerIPAddress: d.MaxSessionsPerIPAddress, MaxSessionsPerUsername: d.MaxSessionsPerUsername,
		MaxSessionsPerClient: d.MaxSessionsPerClient, PermanentSessions: d.PermanentSessions,
		RetentionPolicy: d.RetentionPolicy, RetentionUnit: d.RetentionUnit, RetentionPeriod: d.RetentionPeriod,
	}
}

package config

import (
	"net/netip"

	"sessiond/internal/api"
)

// topRows is services.json: every member that it may have. What stands here is
// read, checked, documented and offered by editors; nothing else is.
func topRows() []entry[Config] {
	request := seconds("requestTimeoutSeconds", 1, func(c *Config) *Secs { return &c.RequestTimeout },
		"Time to read one request and to answer it.").afterRestart()
	idle := seconds("idleTimeoutSeconds", 1, func(c *Config) *Secs { return &c.IdleTimeout },
		"Time that a connection may stay open without a request.").afterRestart()
	rows := []entry[Config]{
		{
			note: note{name: "$schema", kind: "string", max: longestText, doc: "Where an editor finds the JSON Schema of this file; the server ignores it."},
			read: func(r *reader, at string, n *wireNode, _ *Config) { r.text(at, n, form{}) },
		},
		list("listeners", listenerRows(), blankListener,
			func(c *Config) []Listener { return c.Listeners }, func(c *Config, l []Listener) { c.Listeners = l },
			"Ports that take requests. At least one must be enabled.").
			afterRestart().usually("http on 127.0.0.1:8080"),
		text("apiRoot", pathForm(), func(c *Config) *string { return &c.APIRoot },
			"Path of the endpoint.").afterRestart(),
		apisRow(),
		object("jsonActionApiDefaults", defaultsRows(), func(c *Config) *Defaults { return &c.Defaults },
			"What sessions begin with, and limits. Members that are absent come from the profile, then from the defaults below."),

		choice("profile", profileNames(), func(c *Config) *string { return &c.Profile },
			"A set of times for sessions, beneath what `jsonActionApiDefaults` says."),
		list("realms", realmRows(), func() Realm { return Realm{Type: Native} },
			func(c *Config) []Realm { return c.Realms }, func(c *Config, realms []Realm) { c.Realms = realms },
			"Places where accounts are checked. The realm `native` is always there, named or not.").usually("native alone"),
		propertiesRow(func(c *Config) *[]Property { return &c.Properties },
			"What applications may keep with a session of any realm. What stands neither here nor in the session's realm is refused."),

		choice("rolesMode", []string{LiveRoles, FrozenRoles}, func(c *Config) *string { return &c.RolesMode },
			"live: a change of roles acts on running sessions at once. frozen: a session keeps the roles of its log-in; API keys are live all the same."),
		seconds("recentLoginSeconds", 0, func(c *Config) *int64 { return &c.RecentLoginSeconds },
			"How long after its log-in a session may do what is sensitive; then it has to reauthenticate. 0 means always."),
		durations("expiringNoticeSeconds", func(c *Config) *[]int64 { return &c.ExpiringNoticeSeconds },
			"How long before the end of an API key's lifetime there is an event sessionExpiring, once for each. An empty array means never."),
		list("webhooks", webhookRows(), blankWebhook,
			func(c *Config) []Webhook { return c.Webhooks }, func(c *Config, w []Webhook) { c.Webhooks = w },
			"Where events are sent, signed and in order, until each was taken.").usually("none"),
		strs("passwordContextWords", wordForm(), func(c *Config) *[]string { return &c.PasswordContextWords },
			"Words that passwords here must not be made of: names of the product, the company, the place.").usually("none"),

		texts("trustedProxies", prefixForm(), netip.MustParsePrefix, netip.Prefix.String,
			func(c *Config) *[]netip.Prefix { return &c.TrustedProxies },
			"Addresses and prefixes of proxies whose `forwardedHeader` is believed.").usually("none"),
		text("forwardedHeader", headerForm(), func(c *Config) *string { return &c.ForwardedHeader },
			"The one header that tells a client's address, read only from `trustedProxies`."),
		strs("allowedHosts", hostForm(), func(c *Config) *[]string { return &c.AllowedHosts },
			"Host names that requests may be addressed to, with a port for that port alone; IP addresses always pass. Without it a listener on loopback takes the names of loopback, others take any.").usually("none"),
		strs("allowedOrigins", originForm(), func(c *Config) *[]string { return &c.AllowedOrigins },
			"Origins of web pages on other sites whose requests are taken.").usually("none"),
		flag("insecureHttp", func(c *Config) *bool { return &c.InsecureHTTP },
			"Allow listeners of plain HTTP beyond loopback, where everybody on the way can read tokens and passwords. The flag --insecure-http does the same."),

		integer("maxRequestBytes", 1024, 64<<20, func(c *Config) *int { return &c.MaxRequestBytes },
			"Size of a request's body."),
		integer("maxRequestMembers", 16, 1_000_000, func(c *Config) *int { return &c.MaxRequestMembers },
			"Members and elements of one request, all objects and arrays together."),
		integer("maxConnections", 1, 1_000_000, func(c *Config) *int { return &c.MaxConnections },
			"Connections at one time."),
		integer("maxConnectionsPerIpAddress", 0, 1_000_000, func(c *Config) *int { return &c.MaxConnectionsPerIP },
			"Connections at one time from one address, /64 for IPv6, of which a /56 may have four times and a /48 sixteen times as many; 0 means no limit."),
		request, request.as("connRequestTimeout"),
		idle, idle.as("connInactiveTimeout"),
		seconds("drainTimeoutSeconds", 0, func(c *Config) *Secs { return &c.DrainTimeout },
			"Time to finish what runs when the server stops."),
		flag("echoAuthToken", func(c *Config) *bool { return &c.EchoAuthToken },
			"Repeat the caller's token at the top of successful answers, as the protocol does."),
		flag("httpStatusFromErrorCode", func(c *Config) *bool { return &c.HTTPStatusFromErrorCode },
			"Answer failures with an HTTP status of their own instead of 200."),

		object("storage", storageRows(), func(c *Config) *Storage { return &c.Storage }, "Where the data is.").afterRestart(),
		object("log", logRows(), func(c *Config) *Log { return &c.Log }, "What is logged and how.").afterRestart(),
	}
	rows = append(rows, foreign[Config]("string", "applicationRoot")...)
	rows = append(rows, foreign[Config]("array", "applications", "integrationServices", "transformServices", "otherServices")...)
	rows = append(rows, foreign[Config]("object", "mqtt", "storeAndForward")...)
	return append(rows, foreign[Config]("integer", "requestIterationMilliseconds", "requestMaxThreads", "maxDBconnCount")...)
}

// The protocols of a listener; FairCom's others are ignored with a warning.
const (
	HTTP  = "http"
	HTTPS = "https"
)

func listenerRows() []entry[Listener] {
	return []entry[Listener]{
		text("serviceName", serviceNameForm(), func(l *Listener) *string { return &l.ServiceName },
			"Name of the listener in logs and for `manageService`; no two alike.").needed(),
		text("description", form{most: 1024}, func(l *Listener) *string { return &l.Description }, "For people."),
		text("address", addressForm(), func(l *Listener) *string { return &l.Address },
			"IP address or name to listen on: 127.0.0.1 for this machine alone, `*` for all networks."),
		integer("port", 0, 65535, func(l *Listener) *int { return &l.Port }, "TCP port; 0 picks a free one.").needed(),
		choiceOrIgnored("protocol", []string{HTTP, HTTPS}, []string{"mqtt", "mqtts", "mqttws", "mqttwss"},
			func(l *Listener) *string { return &l.Protocol }, "http or https; listeners of FairCom's MQTT protocols are ignored with a warning.").needed(),
		flag("enabled", func(l *Listener) *bool { return &l.Enabled }, "Whether the port is opened."),
		object("tls", tlsRows(), func(l *Listener) *TLS { return &l.TLS }, "Files of an https listener, which needs them."),
	}
}

func blankListener() Listener { return Listener{Address: "127.0.0.1", Enabled: true} }

func tlsRows() []entry[TLS] {
	file := form{least: 1, most: 4096, example: "./tls/server.pem"}
	certificate := text("serverCertificateFilename", file, func(t *TLS) *string { return &t.CertificateFile },
		"PEM file with the server's certificate and the chain above it.")
	return []entry[TLS]{
		certificate,
		certificate.as("certificateFilename"),
		text("serverKeyFilename", file, func(t *TLS) *string { return &t.KeyFile }, "PEM file with the private key.").
			usually("in the certificate's file"),
		{
			note: note{name: "allowedCipherSuites", kind: "string", max: longestText, doc: "FairCom's; the server allows TLS 1.2 and 1.3 with their secure suites, whatever stands here."},
			read: func(r *reader, at string, n *wireNode, _ *TLS) {
				if v, ok := r.text(at, n, form{}); ok && v != "" {
					r.warn(at, "has no effect: TLS 1.2 and 1.3 with their secure suites are allowed, whatever stands here")
				}
			},
		},
	}
}

// apiSwitch is an element of apis.
type apiSwitch struct {
	name    string
	enabled bool
}

func apiNames() []string { return []string{api.Admin, api.Session, api.Hub} }

func apisRow() entry[Config] {
	get := func(c *Config) []apiSwitch {
		var all []apiSwitch
		for _, name := range apiNames() {
			all = append(all, apiSwitch{name, c.APIs[name]})
		}
		return all
	}
	set := func(c *Config, all []apiSwitch) {
		for _, s := range all {
			if _, known := c.APIs[s.name]; known {
				c.APIs[s.name] = s.enabled
			}
		}
	}
	rows := []entry[apiSwitch]{
		choiceOrIgnored("serviceName", apiNames(), []string{"db", "mq", "transform"},
			func(s *apiSwitch) *string { return &s.name }, "Name of the api; FairCom's db, mq and transform are ignored with a warning.").needed(),
		flag("enabled", func(s *apiSwitch) *bool { return &s.enabled }, "Whether requests may name it."),
	}
	return list("apis", rows, func() apiSwitch { return apiSwitch{enabled: true} }, get, set,
		"Switches for the apis `admin`, `session` and `hub`; one that is not named is enabled.").usually("all enabled")
}

// The types of a realm.
const (
	Native  = "native"  // checked by the server itself; also the name of the default realm
	Trusted = "trusted" // checked by whoever holds sessions.issue
)

func realmRows() []entry[Realm] {
	return []entry[Realm]{
		text("name", realmNameForm(), func(r *Realm) *string { return &r.Name },
			"Letters, digits, `.`, `_`, `-` and `/`; no two alike but for case.").needed(),
		choice("type", []string{Native, Trusted}, func(r *Realm) *string { return &r.Type },
			"native: the server keeps passwords. trusted: holders of the permission sessions.issue vouch for the account.").needed(),
		strs("roles", roleNameForm(), func(r *Realm) *[]string { return &r.Roles },
			"Roles that every account of the realm has.").usually("none"),
		flag("allowServerRoles", func(r *Realm) *bool { return &r.AllowServerRoles },
			"Of a trusted realm: its accounts may hold permissions over this server."),
		seconds("idleConnectionTimeoutSeconds", 0, func(r *Realm) *int64 { return &r.IdleTimeoutSeconds },
			"Idle time of sessions in this realm; 0 means as in `jsonActionApiDefaults`."),
		seconds("maxSessionTimeoutSeconds", 0, func(r *Realm) *int64 { return &r.MaxLifetimeSeconds },
			"Lifetime of sessions in this realm; 0 means as in `jsonActionApiDefaults`."),
		seconds("rememberMeIdleTimeoutSeconds", 0, func(r *Realm) *int64 { return &r.RememberMeIdleSeconds },
			"Idle time of sessions in this realm with rememberMe; 0 means as without where the realm has an idle time of its own, else as in `jsonActionApiDefaults`."),
		propertiesRow(func(r *Realm) *[]Property { return &r.Properties },
			"What applications may keep with a session of this realm, beside what stands at the top level."),
	}
}

func storageRows() []entry[Storage] {
	return []entry[Storage]{
		choice("type", []string{"bolt", "memory"}, func(s *Storage) *string { return &s.Type },
			"bolt: one file in `dir`. memory: gone when the server stops."),
		text("dir", form{least: 1, most: 4096}, func(s *Storage) *string { return &s.Dir },
			"Folder of the data, made if it is not there; the flag --data comes first."),
		text("revocationLog", form{least: 1, most: 4096}, func(s *Storage) *string { return &s.RevocationLog },
			"File of the journal by which a restored backup does not bring back what was revoked since. Best on another disk than `dir`. A relative path is one from the working directory of the server.").
			usually("`revocations.log` in `dir`"),
		integer("backupBytesPerSecond", 0, 1<<40, func(s *Storage) *int64 { return &s.BackupBytesPerSecond },
			"Bytes of data that a backup or compacting copies in a second at the most, so that others get at the disk; 0 means no limit."),
		integer("ballastBytes", 0, 1<<40, func(s *Storage) *int64 { return &s.BallastBytes },
			"Space that is set aside in the folder, so that sessions can be ended when the disk is full: at most an eighth of the file system; 0 means none."),
		integer("maxBytes", 0, 1<<50, func(s *Storage) *int64 { return &s.MaxBytes },
			"Size that the file may grow to, of which an eighth at most is kept for ends; 0 means no limit."),
	}
}

func logRows() []entry[Log] {
	return []entry[Log]{
		choice("level", []string{"trace", "debug", "info", "warn", "error"}, func(l *Log) *string { return &l.Level }, "The least that is logged."),
		choice("format", []string{"json", "console"}, func(l *Log) *string { return &l.Format }, "json: a line each. console: for people.").
			usually("console on a terminal, json elsewhere"),
	}
}

// Package config turns services.json into a Config, or into every reason why
// not, each with its line and its JSON Pointer.
//
// FairCom's names stand wherever they exist; our own stand beside them at the
// top level. All that is known about a member (its name, form, default, meaning,
// and whether a reload reaches it) is one row of a table, table.go and
// defaults.go, from which the file is read, the JSON Schema and the reference are
// written and two configurations are compared. What a row cannot know, how
// members fit together, is in check.go.
//
// A Config is a value: nothing reads the file or the environment later, and a
// reload makes a new one. Requests see one snapshot each (Holder).
package config

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sessiond/internal/api"
)

// Config is services.json, checked, with every default filled in.
type Config struct {
	Listeners []Listener
	APIRoot   string          // path of the endpoint, "/api"
	APIs      map[string]bool // enabled apis by name: admin, session, hub
	Defaults  Defaults        // jsonActionApiDefaults: session settings and limits
	Realms    []Realm         // native always among them

	Profile         string         // faircom, fusion, am, clerk, web
	RolesMode       string         // LiveRoles or FrozenRoles
	Properties      []Property     // services.json: sessionProperties; that sessions of every realm may have
	AllowedHosts    []string       // names that Host may carry, lower case, perhaps with a port; empty: see Listener
	AllowedOrigins  []string       // origins whose cross-site requests are taken, as browsers send them
	TrustedProxies  []netip.Prefix // whose forwarding header is believed
	ForwardedHeader string         // the one header that is read from them

	ExpiringNoticeSeconds []int64 // how long before an API key's end there are notices, the longest first
	Webhooks              []Webhook

	RecentLoginSeconds   int64    // how long a log-in counts as recent; 0 for ever
	PasswordContextWords []string // what passwords must not be made of

	MaxRequestBytes         int  // 262,144
	MaxRequestMembers       int  // members and elements of one request, 10,000
	MaxConnections          int  // 10,000
	MaxConnectionsPerIP     int  // 256; services.json: maxConnectionsPerIpAddress
	RequestTimeout          Secs // reading one request and answering it, 5 s
	IdleTimeout             Secs // a connection without a request, 30 s
	DrainTimeout            Secs // finishing what runs at the end, 10 s
	EchoAuthToken           bool // true
	HTTPStatusFromErrorCode bool // false
	InsecureHTTP            bool // plain HTTP beyond loopback is accepted

	Storage Storage
	Log     Log

	Warnings []string // known names without a meaning here, and the like
}

// Whose changes of roles a session sees.
const (
	LiveRoles   = "live"   // all of them, at once
	FrozenRoles = "frozen" // those before its log-in
)

// Secs is a duration of whole seconds.
type Secs int64

// Duration returns s as a time.Duration.
func (s Secs) Duration() time.Duration { return time.Duration(s) * time.Second }

// Listener is a port that takes requests.
type Listener struct {
	ServiceName string
	Description string
	Address     string // host to bind: an IP address, a name, "*" for all; empty means loopback
	Port        int    // 0 picks a free one
	Protocol    string // http or https
	Enabled     bool
	TLS         TLS
}

// TLS names the files of an https listener.
type TLS struct {
	CertificateFile string // PEM, the chain; services.json: serverCertificateFilename or certificateFilename
	KeyFile         string // PEM; empty: in the certificate's file; services.json: serverKeyFilename
}

// Defaults are the session settings and limits of jsonActionApiDefaults, with
// the members of the profile beneath them.
type Defaults struct {
	Settings

	IdleConnectionTimeoutSeconds int64 // 0 never
	MaxSessionTimeoutSeconds     int64 // 0 none
	RememberMeIdleSeconds        int64 // services.json: rememberMeIdleTimeoutSeconds; 0 as without rememberMe
	AbandonAfterSeconds          int64 // after the last use; 0 never
	IdleToleranceSeconds         int64 // after the idle time, in which a use still keeps a session alive
	ExpiryJitterPercent          int64 // by how much a lifetime may be cut at random
	IdleCursorTimeoutSeconds     int64
	RotationGraceSeconds         int64 // for which an old token is good
	LatestAccessSeconds          int64 // services.json: latestAccessTimeUpdateFrequencySeconds
	MaxIdleTimeoutSeconds        int64 // cap for what a request may ask; 0 none; services.json: largestIdleConnectionTimeoutSeconds
	MaxLifetimeSeconds           int64 // cap for what a request may ask; 0 none; services.json: largestMaxSessionTimeoutSeconds

	MaxSessions             int64 // maxJsonApiSessions; 0 no limit, here and below
	MaxSessionsPerIPAddress int64
	MaxSessionsPerUsername  int64
	MaxSessionsPerClient    int64
	OnSessionLimit          OnLimit
	PermanentSessions       bool // enablePermanentJsonApiSessions

	RetentionPolicy string // autoPurge or neverPurge
	RetentionUnit   string // minute, hour, day, week, month, year
	RetentionPeriod int64
}

// Retention returns how long tombstones and events are kept; 0 means for ever.
func (d Defaults) Retention() time.Duration {
	unit := map[string]time.Duration{
		"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour,
		"month": 30 * 24 * time.Hour, "year": 365 * 24 * time.Hour,
	}[d.RetentionUnit]
	if d.RetentionPolicy != "autoPurge" {
		return 0
	}
	return time.Duration(d.RetentionPeriod) * unit
}

// Settings are what a session carries for its requests. services.json gives
// them, createSession and alterSession may replace them.
type Settings struct {
	DefaultAPI             string
	DefaultDebug           string
	DefaultDatabaseName    string
	DefaultOwnerName       string
	DefaultBinaryFormat    string
	DefaultVariantFormat   string
	DefaultResponseOptions api.ResponseOptions
	TransformBufferBytes   int64
}

// Realm is a place where accounts are checked.
type Realm struct {
	Name               string
	Type               string   // native or trusted
	Roles              []string // that the realm gives to every account in it
	AllowServerRoles   bool     // trusted: its accounts may hold sessiond. permissions
	IdleTimeoutSeconds int64    // services.json: idleConnectionTimeoutSeconds; 0 as in the defaults
	MaxLifetimeSeconds int64    // services.json: maxSessionTimeoutSeconds; 0 as in the defaults

	RememberMeIdleSeconds int64 // services.json: rememberMeIdleTimeoutSeconds; 0 as without, if the realm has an idle time, else as in the defaults

	Properties []Property // services.json: sessionProperties; beside those of Config
}

// Realm returns the realm of a name, native for an empty one.
func (c *Config) Realm(name string) (*Realm, bool) {
	if name == "" {
		name = Native
	}
	i := slices.IndexFunc(c.Realms, func(r Realm) bool { return r.Name == name })
	if i < 0 {
		return nil, false
	}
	return &c.Realms[i], true
}

// Storage says where the data is.
type Storage struct {
	Type          string // bolt or memory
	Dir           string
	RevocationLog string // path of the journal of revocations; empty: in Dir

	BackupBytesPerSecond int64 // that backups and compacting may copy; 0: any number
	BallastBytes         int64 // set aside for when the disk is full; 0: none
	MaxBytes             int64 // that the file may grow to; 0: no limit
}

// Log says what is written and how.
type Log struct {
	Level  string // trace, debug, info, warn, error
	Format string // json or console; empty: what fits where the log goes
}

// Holder keeps the Config in force. The zero Holder is not usable; see NewHolder.
type Holder struct{ current atomic.Pointer[Config] }

// NewHolder returns a holder of c.
func NewHolder(c *Config) *Holder {
	h := &Holder{}
	h.current.Store(c)
	return h
}

// Get returns the Config in force. Callers do not change it.
func (h *Holder) Get() *Config { return h.current.Load() }

// Set puts c in force for every request that begins from now on.
func (h *Holder) Set(c *Config) { h.current.Store(c) }

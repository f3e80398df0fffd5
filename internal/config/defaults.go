package config

import "sessiond/internal/api"

// defaultsRows is jsonActionApiDefaults.
func defaultsRows() []entry[Defaults] {
	const most = 1_000_000_000
	rows := []entry[Defaults]{
		choiceOrIgnored("defaultApi", apiNames(), []string{"db", "mq", "transform"}, func(d *Defaults) *string { return &d.DefaultAPI },
			"The api of requests that name none.").usually("the first enabled one of hub, admin, session"),
		choice("defaultDebug", []string{"none", "max"}, func(d *Defaults) *string { return &d.DefaultDebug },
			"max adds debugInfo to answers and indents them."),
		text("defaultDatabaseName", form{}, func(d *Defaults) *string { return &d.DefaultDatabaseName }, "Kept for applications, without effect here."),
		text("defaultOwnerName", form{}, func(d *Defaults) *string { return &d.DefaultOwnerName }, "Kept for applications, without effect here."),
		choice("defaultBinaryFormat", []string{"hex", "base64", "byteArray"}, func(d *Defaults) *string { return &d.DefaultBinaryFormat },
			"How binary values are written."),
		choice("defaultVariantFormat", []string{"json", "binary", "string", "variantObject"}, func(d *Defaults) *string { return &d.DefaultVariantFormat },
			"Kept for applications, without effect here."),
		object("defaultResponseOptions", responseRows(), func(d *Defaults) *api.ResponseOptions { return &d.DefaultResponseOptions },
			"The form of results, where a request does not ask for another."),
		integer("transformBufferInitialBytes", 0, 1<<31-1, func(d *Defaults) *int64 { return &d.TransformBufferBytes },
			"Kept for applications, without effect here."),

		seconds("idleConnectionTimeoutSeconds", 0, func(d *Defaults) *int64 { return &d.IdleConnectionTimeoutSeconds },
			"Time without a request after which a session expires; 0 means never.").usually("by profile"),
		seconds("maxSessionTimeoutSeconds", 0, func(d *Defaults) *int64 { return &d.MaxSessionTimeoutSeconds },
			"Lifetime of a session, however busy; 0 means no end.").usually("by profile"),
		seconds("rememberMeIdleTimeoutSeconds", 0, func(d *Defaults) *int64 { return &d.RememberMeIdleSeconds },
			"Idle time of sessions with rememberMe, in realms without an idle time of their own; 0 means as without.").usually("by profile"),
		seconds("abandonAfterSeconds", 0, func(d *Defaults) *int64 { return &d.AbandonAfterSeconds },
			"Time after the last use at which an expired session that is still kept counts as abandoned; 0 means never.").usually("by profile"),
		seconds("largestIdleConnectionTimeoutSeconds", 0, func(d *Defaults) *int64 { return &d.MaxIdleTimeoutSeconds },
			"The largest idleConnectionTimeoutSeconds that a request may ask for, and that anything in this file may give; 0 means any."),
		seconds("largestMaxSessionTimeoutSeconds", 0, func(d *Defaults) *int64 { return &d.MaxLifetimeSeconds },
			"The largest maxSessionTimeoutSeconds that a request may ask for, and that anything in this file may give; 0 means any. API keys may have more."),
		integer("expiryJitterPercent", 0, 25, func(d *Defaults) *int64 { return &d.ExpiryJitterPercent },
			"By how much at most the lifetime of a new session is cut, at random, so that sessions made together do not expire together; not of API keys."),
		integer("idleToleranceSeconds", 0, 600, func(d *Defaults) *int64 { return &d.IdleToleranceSeconds },
			"How long after its idle time a session that is used then still lives; times that are answered do not hold it. New sessions get it; a lifetime has none."),
		seconds("idleCursorTimeoutSeconds", 1, func(d *Defaults) *int64 { return &d.IdleCursorTimeoutSeconds },
			"How long the cursor of a listing is good."),
		integer("rotationGraceSeconds", 0, 3600, func(d *Defaults) *int64 { return &d.RotationGraceSeconds },
			"How long the old token of a session that was rotated is good: asking again gives the same new one. Used later it ends the session, as it was stolen."),
		integer("latestAccessTimeUpdateFrequencySeconds", 1, 24*3600, func(d *Defaults) *int64 { return &d.LatestAccessSeconds },
			"How often at most the time of a session's last use is written, at least four times in its idle time."),

		integer(LimitTotal, 0, most, func(d *Defaults) *int64 { return &d.MaxSessions }, "Live sessions; 0 means no limit."),
		integer(LimitPerIPAddress, 0, most, func(d *Defaults) *int64 { return &d.MaxSessionsPerIPAddress },
			"Live sessions from one client address, /64 for IPv6, of which a /56 may have four times and a /48 sixteen times as many; permanent ones do not count; 0 means no limit."),
		integer(LimitPerUsername, 0, most, func(d *Defaults) *int64 { return &d.MaxSessionsPerUsername },
			"Live sessions of one account; 0 means no limit."),
		integer(LimitPerClient, 0, most, func(d *Defaults) *int64 { return &d.MaxSessionsPerClient },
			"Live sessions of one browser or device; 0 means no limit."),
		object("onSessionLimit", onLimitRows(), func(d *Defaults) *OnLimit { return &d.OnSessionLimit },
			"What becomes of a log-in for which a limit leaves no place. deny refuses it; the others end sessions of the same account, never API keys: the one that was created first, the one that was not used for the longest time, the one that expires next, or all."),
		flag("enablePermanentJsonApiSessions", func(d *Defaults) *bool { return &d.PermanentSessions },
			"Allow new permanent sessions, that is API keys. Existing ones stay when it is turned off."),

		choice("defaultRetentionPolicy", []string{autoPurge, "neverPurge"}, func(d *Defaults) *string { return &d.RetentionPolicy },
			"Whether ended sessions and events are purged once they are older than the period: every ten minutes, and at once when that is changed."),
		choice("defaultRetentionUnit", []string{"minute", "hour", "day", "week", "month", "year"}, func(d *Defaults) *string { return &d.RetentionUnit },
			"Unit of defaultRetentionPeriod; a month has 30 days, a year 365."),
		integer("defaultRetentionPeriod", 1, 100, func(d *Defaults) *int64 { return &d.RetentionPeriod },
			"How many units ended sessions and events are kept."),
	}
	return append(rows, foreign[Defaults]("string", "defaultStringFormat", "defaultFixedLengthCharFormat")...)
}

const autoPurge = "autoPurge"

func responseRows() []entry[api.ResponseOptions] {
	name := form{least: 1}
	rows := []entry[api.ResponseOptions]{
		choice("numberFormat", []string{"number", "string"}, func(o *api.ResponseOptions) *string { return &o.NumberFormat },
			"string quotes every number inside result."),
		choiceOrIgnored("dataFormat", []string{"objects", "arrays"}, []string{"default"}, func(o *api.ResponseOptions) *string { return &o.DataFormat },
			"arrays turns each array of objects in result into fields and rows."),
		choice("binaryFormat", []string{"hex", "base64", "byteArray"}, func(o *api.ResponseOptions) *string { return &o.BinaryFormat },
			"How binary values are written.").usually("as defaultBinaryFormat"),
		strs("omit", name, func(o *api.ResponseOptions) *[]string { return &o.Omit },
			"Members to leave out of the answer, such as errorMessage, or of result.").usually("none"),
		strs("includeFields", name, func(o *api.ResponseOptions) *[]string { return &o.IncludeFields },
			"Keep only these members of result, or of the objects in its arrays.").usually("all"),
		strs("excludeFields", name, func(o *api.ResponseOptions) *[]string { return &o.ExcludeFields },
			"Leave out these members of result, or of the objects in its arrays.").usually("none"),
	}
	rows = append(rows, foreign[api.ResponseOptions]("string", "variantFormat", "stringFormat", "fixedLengthCharFormat")...)
	rows = append(rows, foreign[api.ResponseOptions]("boolean", "includeBookmarks")...)
	return append(rows, foreign[api.ResponseOptions]("array", "includePaths", "excludePaths")...)
}

// A profile is a set of times that another system is known for.
type profile struct {
	name, doc string
	idle      int64
	lifetime  int64
	remember  int64
	abandon   int64
}

func profiles() []profile {
	const minute, hour, day = 60, 3600, 24 * 3600
	return []profile{
		{name: "faircom", doc: "1 h idle, no end of life", idle: hour},
		{name: "fusion", doc: "1 h idle, 8 h of life", idle: hour, lifetime: 8 * hour},
		{name: "am", doc: "30 min idle, 120 min of life", idle: 30 * minute, lifetime: 120 * minute},
		{name: "clerk", doc: "no idle time, 7 d of life; abandoned 30 d after the last use", lifetime: 7 * day, abandon: 30 * day},
		{name: "web", doc: "7 d idle, 30 d idle with rememberMe, no end of life", idle: 7 * day, remember: 30 * day},
	}
}

func profileNames() []string {
	var names []string
	for _, p := range profiles() {
		names = append(names, p.name)
	}
	return names
}

// over puts the profile beneath what the file is to say.
func (p profile) over(d *Defaults) {
	d.IdleConnectionTimeoutSeconds = p.idle
	d.MaxSessionTimeoutSeconds = p.lifetime
	d.RememberMeIdleSeconds = p.remember
	d.AbandonAfterSeconds = p.abandon
}

// builtin is what an empty file means, under a profile; an unknown one is the
// first.
func builtin(name string) *Config {
	c := &Config{
		Listeners: []Listener{func() Listener {
			l := blankListener()
			l.ServiceName, l.Port, l.Protocol = "http8080", 8080, HTTP
			return l
		}()},
		APIRoot: "/api",
		APIs:    map[string]bool{api.Admin: true, api.Session: true, api.Hub: true},
		Defaults: Defaults{
			Settings: Settings{
				DefaultDebug:           "none",
				DefaultDatabaseName:    "faircom",
				DefaultOwnerName:       "admin",
				DefaultBinaryFormat:    "hex",
				DefaultVariantFormat:   "json",
				DefaultResponseOptions: api.ResponseOptions{NumberFormat: "number", DataFormat: "objects"},
			},
			IdleCursorTimeoutSeconds: 600,
			RotationGraceSeconds:     30,
			OnSessionLimit:           OnLimit{Deny, Deny, Deny, Deny},
			LatestAccessSeconds:      60,
			MaxSessions:              1024,
			MaxSessionsPerIPAddress:  50,
			MaxSessionsPerUsername:   50,
			RetentionPolicy:          autoPurge,
			RetentionUnit:            "week",
			RetentionPeriod:          4,
		},
		Realms:             []Realm{{Name: Native, Type: Native}},
		RolesMode:          LiveRoles,
		RecentLoginSeconds: 900,

		ExpiringNoticeSeconds: []int64{7 * 24 * 3600, 24 * 3600},
		ForwardedHeader:       "X-Forwarded-For",
		MaxRequestBytes:       256 << 10,
		MaxRequestMembers:     10_000,
		MaxConnections:        10_000,
		MaxConnectionsPerIP:   256,
		RequestTimeout:        5,
		IdleTimeout:           30,
		DrainTimeout:          10,
		EchoAuthToken:         true,
		Storage:               Storage{Type: "bolt", Dir: "./data", BackupBytesPerSecond: 64 << 20, BallastBytes: 16 << 20},
		Log:                   Log{Level: "info"},
	}
	table := profiles()
	chosen := table[0]
	for _, p := range table {
		if p.name == name {
			chosen = p
		}
	}
	c.Profile = chosen.name
	chosen.over(&c.Defaults)
	return c
}

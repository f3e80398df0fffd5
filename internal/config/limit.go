package config

// OnLimit says, for each limit of sessions, what becomes of a log-in for which it
// leaves no place.
type OnLimit struct{ Total, PerIPAddress, PerUsername, PerClient string }

// What becomes of a log-in for which a limit leaves no place. Whoever has to make
// room is one of the same account's sessions, and never an API key.
const (
	Deny                   = "deny"                   // it is refused
	EvictOldest            = "evictOldest"            // the session that was created first ends
	EvictLeastRecentlyUsed = "evictLeastRecentlyUsed" // the one that was not used for the longest time
	EvictNextToExpire      = "evictNextToExpire"      // the one with the least time left
	EvictAll               = "evictAll"               // all of them
	Ask                    = "ask"                    // whoever logs in chooses
)

// The limits of sessions, as services.json, errors and the reasons of evictions name
// them.
const (
	LimitTotal        = "maxJsonApiSessions"
	LimitPerIPAddress = "maxJsonApiSessionsPerIpAddress"
	LimitPerUsername  = "maxJsonApiSessionsPerUsername"
	LimitPerClient    = "maxJsonApiSessionsPerClient"
)

func onLimitRows() []entry[OnLimit] {
	policies := []string{Deny, EvictOldest, EvictLeastRecentlyUsed, EvictNextToExpire, EvictAll}
	return []entry[OnLimit]{
		choice(LimitTotal, policies, func(l *OnLimit) *string { return &l.Total }, "For the limit of all sessions."),
		choice(LimitPerIPAddress, policies, func(l *OnLimit) *string { return &l.PerIPAddress }, "For the limit of an address; those of the account's sessions that are counted there make room."),
		choice(LimitPerUsername, append(policies, Ask), func(l *OnLimit) *string { return &l.PerUsername },
			"For the limit of an account. ask: the refusal lists the account's sessions, and has a ticket with which one of them is ended and the log-in goes on."),
		choice(LimitPerClient, policies, func(l *OnLimit) *string { return &l.PerClient }, "For the limit of a browser or device; those of the account's sessions that are there make room."),
	}
}

package actions

import (
	"cmp"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/filter"
	"sessiond/internal/session"
)

// A field is a member of sessionView as filters see it.
type field struct {
	filter.Field

	value   func(r *record, member string) filter.Value
	ended   bool // it is of ended sessions: a filter with it is about them too
	inTable bool // session.Keeper.EachLiving shows it
}

// A record is a session that is filtered for a caller. Its values are those of
// sessionView, made only where they are asked for.
type record struct {
	*session.View

	fields  []field
	server  *sessions
	caller  api.ID
	devices map[string]session.Device // by the text of the user agent, which many sessions share
}

// Value implements filter.Record.
func (r *record) Value(number int, member string) filter.Value {
	return r.fields[number].value(r, member)
}

// maxDevices is how many user agents one filter remembers at a time.
const maxDevices = 1000

func (r *record) device(userAgent string) session.Device {
	d, ok := r.devices[userAgent]
	if !ok && userAgent != "" {
		d = session.ParseUserAgent(userAgent)
		if len(r.devices) == maxDevices {
			clear(r.devices) // those to come are rather like the last ones than like the first
		}
		r.devices[userAgent] = d
	}
	return d
}

// lastAgent returns the user agent that used the session last.
func (r *record) lastAgent() string {
	_, agent := r.LastUse()
	return agent
}

// The numbers of the fields by which sessions are looked up, or which say how far
// to look. They stand first.
const (
	byUsername = iota
	byRealm
	byAccountID
	byHandle
	byStatus
)

// sessionFields are the fields of sessions. Their kinds stand in docs/filter.md.
func sessionFields(c *config.Config) []field {
	settings := func(name string, value func(*record) string, oneOf ...string) field {
		return inTable(text(name, func(r *record) filter.Value { return filter.OfText(value(r)) }, oneOf...))
	}
	kinds := []string{"desktop", "mobile", "tablet", "bot", "other"}
	username := text("username", func(r *record) filter.Value { return filter.OfText(foldName(r.Username)) })
	username.Fold = foldName
	status := text("status", func(r *record) filter.Value { return filter.OfText(r.Status().String()) }, statuses()...)
	return []field{
		byUsername:  inTable(username),
		byRealm:     inTable(text("realm", func(r *record) filter.Value { return filter.OfText(r.Realm) })),
		byAccountID: inTable(text("accountId", func(r *record) filter.Value { return filter.OfText(r.AccountID.String()) })),
		byHandle:    inTable(text("sessionHandle", func(r *record) filter.Value { return filter.OfText(session.HandleText(r.Handle)) })),
		byStatus:    inTable(ofEnded(status)),

		text("description", func(r *record) filter.Value { return filter.OfText(r.Description) }),
		text("maskedToken", func(r *record) filter.Value { return filter.OfText(r.MaskedToken()) }),
		inTable(text("rolesMode", func(r *record) filter.Value { return filter.OfText(r.RolesMode()) }, "live", "frozen")),
		text("userAgent", func(r *record) filter.Value { return given(r.UserAgent) }),
		text("device/browser", func(r *record) filter.Value { return given(r.device(r.UserAgent).Browser) }),
		text("device/os", func(r *record) filter.Value { return given(r.device(r.UserAgent).OS) }),
		text("device/kind", func(r *record) filter.Value { return given(r.device(r.UserAgent).Kind) }, kinds...),
		text("lastUserAgent", func(r *record) filter.Value { return given(r.lastAgent()) }),
		text("lastDevice/browser", func(r *record) filter.Value { return given(r.device(r.lastAgent()).Browser) }),
		text("lastDevice/os", func(r *record) filter.Value { return given(r.device(r.lastAgent()).OS) }),
		text("lastDevice/kind", func(r *record) filter.Value { return given(r.device(r.lastAgent()).Kind) }, kinds...),
		text("clientHandle", func(r *record) filter.Value { return filter.OfText(session.ClientText(r.ClientID())) }),
		ofEnded(text("endReason", func(r *record) filter.Value { return given(r.End.Reason) })),
		ofEnded(text("endedBy", func(r *record) filter.Value { return given(r.End.By) })),
		settings("defaultApi", func(r *record) string { return r.Settings.DefaultAPI }, "admin", "session", "hub"),
		settings("defaultDebug", func(r *record) string { return r.Settings.DefaultDebug }, "none", "max"),
		settings("defaultDatabaseName", func(r *record) string { return r.Settings.DefaultDatabaseName }),
		settings("defaultOwnerName", func(r *record) string { return r.Settings.DefaultOwnerName }),
		settings("defaultBinaryFormat", func(r *record) string { return r.Settings.DefaultBinaryFormat }, "hex", "base64", "byteArray"),
		text("defaultVariantFormat", func(r *record) filter.Value { return given(r.Settings.DefaultVariantFormat) }, "binary", "json", "string", "variantObject"),

		inTable(names("roles", func(r *record) []string { return r.Roles })),
		inTable(names("realmRoles", func(r *record) []string { return r.RealmRoles })),
		inTable(names("authMethods", func(r *record) []string { return r.Methods.Names() }, "password", "issued")),

		inTable(instant("sessionStartTimestamp", func(r *record) int64 { return r.Created })),
		inTable(instant("sessionLastAccessedTimestamp", func(r *record) int64 { return r.LastAccess })),
		inTable(instant("authenticationTimestamp", func(r *record) int64 { return r.Authenticated })),
		inTable(instant("maxIdleExpirationTimestamp", func(r *record) int64 { return r.IdleAt })),
		inTable(instant("maxSessionExpirationTimestamp", func(r *record) int64 { return r.MaxAt })),
		instant("abandonTimestamp", func(r *record) int64 { return r.AbandonAt() }),
		ofEnded(instant("endedTimestamp", func(r *record) int64 { return r.End.At })),

		inTable(number("idleConnectionTimeoutSeconds", func(r *record) int64 { return idleShown(r.View) })),
		number("idleCursorTimeoutSeconds", func(r *record) int64 { return r.CursorSeconds }),
		inTable(number("maxSessionTimeoutSeconds", func(r *record) int64 { return r.MaxSeconds })),
		inTable(number("transformBufferInitialBytes", func(r *record) int64 { return r.Settings.TransformBufferBytes })),
		inTable(number("lastAccessAccuracySeconds", func(r *record) int64 { return r.server.Sessions.Accuracy(r.IdleSeconds) })),
		number("revision", func(r *record) int64 { return int64(r.Revision) }), //nolint:gosec // counts alterations

		inTable(flag("permanentSession", func(r *record) bool { return r.Permanent })),
		inTable(flag("rememberMe", func(r *record) bool { return r.RememberMe })),
		inTable(flag("current", func(r *record) bool { return r.Handle == r.caller })),

		{
			Field: filter.Field{Name: "clientIpAddress", Kind: filter.Address},
			value: func(r *record, _ string) filter.Value { return filter.OfAddress(r.Address) },
		},
		{
			Field: filter.Field{Name: "lastClientIpAddress", Kind: filter.Address},
			value: func(r *record, _ string) filter.Value {
				from, _ := r.LastUse()
				return filter.OfAddress(from)
			},
		},
		propertiesField(c),
	}
}

// propertiesField is what applications keep with sessions, as services.json says what
// it is. What is of several types in several realms is a Text, as it is stored, as is
// what is allowed no longer.
func propertiesField(c *config.Config) field {
	types := map[string]string{}
	for _, p := range c.AllProperties() {
		if known, ok := types[p.Name]; ok && known != p.Type {
			types[p.Name] = config.StringProperty
		} else {
			types[p.Name] = p.Type
		}
	}
	kinds := map[string]filter.Kind{config.IntegerProperty: filter.Number, config.BooleanProperty: filter.Bool}
	return field{
		Field: filter.Field{Name: "properties", Members: func(member string) (filter.Kind, bool) {
			return cmp.Or(kinds[types[member]], filter.Text), member != ""
		}},
		value: func(r *record, member string) filter.Value {
			text, ok := r.Properties[member]
			if !ok {
				return filter.Value{}
			}
			switch v := propertyValue(&config.Property{Type: types[member]}, text).(type) {
			case int64:
				return filter.OfNumber(v)
			case bool:
				return filter.OfBool(v)
			}
			return filter.OfText(text)
		},
	}
}

func text(name string, value func(*record) filter.Value, oneOf ...string) field {
	return field{Field: filter.Field{Name: name, Kind: filter.Text, OneOf: oneOf}, value: func(r *record, _ string) filter.Value { return value(r) }}
}

func names(name string, value func(*record) []string, oneOf ...string) field {
	return field{Field: filter.Field{Name: name, Kind: filter.Set, OneOf: oneOf}, value: func(r *record, _ string) filter.Value { return filter.OfSet(value(r)) }}
}

func instant(name string, value func(*record) int64) field {
	return field{Field: filter.Field{Name: name, Kind: filter.Time}, value: func(r *record, _ string) filter.Value { return filter.OfUnix(value(r)) }}
}

func number(name string, value func(*record) int64) field {
	return field{Field: filter.Field{Name: name, Kind: filter.Number}, value: func(r *record, _ string) filter.Value { return filter.OfNumber(value(r)) }}
}

func flag(name string, value func(*record) bool) field {
	return field{Field: filter.Field{Name: name, Kind: filter.Bool}, value: func(r *record, _ string) filter.Value { return filter.OfBool(value(r)) }}
}

// ofEnded returns f as a field that is of ended sessions.
func ofEnded(f field) field {
	f.ended = true
	return f
}

// inTable returns f as a field that the live table knows.
func inTable(f field) field {
	f.inTable = true
	return f
}

// given is a text that is absent where it is empty.
func given(text string) filter.Value {
	if text == "" {
		return filter.Value{}
	}
	return filter.OfText(text)
}

// foldName is the form in which user names are compared. What cannot be a name,
// nor the beginning of one, stays as it is.
func foldName(name string) string {
	if canonical, err := account.CanonicalPrefix(name); err == nil {
		return canonical
	}
	return name
}

// statuses are all that a session may have.
func statuses() (names []string) {
	for s := session.Pending; s <= session.Replaced; s++ {
		names = append(names, s.String())
	}
	return names
}

// living are the statuses of sessions that have not ended.
func living() []string { return []string{session.Pending.String(), session.Active.String()} }

// parseFilter reads a filter of sessions.
func parseFilter(source string, fields []field, now time.Time) (*filter.Filter, error) {
	table := make(filter.Table, len(fields))
	for i := range fields {
		table[i] = fields[i].Field
	}
	f, bad := filter.Parse(source, table, now)
	if bad != nil {
		return nil, bad.At("/params/filter")
	}
	return f, nil
}

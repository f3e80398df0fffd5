package config

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Property is a name under which applications may keep a value with a session.
type Property struct {
	Name string
	Type string // StringProperty, IntegerProperty or BooleanProperty
	Max  int64  // bytes of a string
}

// The types of a property's value.
const (
	StringProperty  = "string"
	IntegerProperty = "integer"
	BooleanProperty = "boolean"
)

// PropertiesOf returns the properties that sessions of a realm may have: its own
// and those of all realms. No two have the same name.
func (c *Config) PropertiesOf(realm string) []Property {
	r, ok := c.Realm(realm)
	switch {
	case !ok || len(r.Properties) == 0:
		return c.Properties
	case len(c.Properties) == 0:
		return r.Properties
	}
	return slices.Concat(c.Properties, r.Properties)
}

// AllProperties returns the properties that sessions of any realm may have. Of two
// realms they may have the same name.
func (c *Config) AllProperties() []Property {
	all := slices.Clone(c.Properties)
	for _, r := range c.Realms {
		all = append(all, r.Properties...)
	}
	return all
}

// propertiesRow is the list of properties of a T, whose sessions are described by
// doc.
func propertiesRow[T any](field func(*T) *[]Property, doc string) entry[T] {
	return list("sessionProperties", propertyRows(), blankProperty,
		func(t *T) []Property { return *field(t) }, func(t *T, p []Property) { *field(t) = p }, doc).usually("none")
}

func propertyRows() []entry[Property] {
	return []entry[Property]{
		text("name", propertyNameForm(), func(p *Property) *string { return &p.Name },
			"Letters, digits, `.`, `_`, `-` and `:`; none of the server's own names, nor one that begins with `sessiond`.").needed(),
		choice("type", []string{StringProperty, IntegerProperty, BooleanProperty}, func(p *Property) *string { return &p.Type },
			"What its values are."),
		integer("max", 1, mostPropertyBytes, func(p *Property) *int64 { return &p.Max }, "Bytes of a string."),
	}
}

// mostPropertyBytes is as much as a session's properties may take in all.
const mostPropertyBytes = 8 << 10

func blankProperty() Property { return Property{Type: StringProperty, Max: 1024} }

// A name of this pattern can stand in a filter, after properties/.
var propertyPattern = regexp.MustCompile(`^[A-Za-z0-9._:-]+$`)

func propertyNameForm() form {
	return form{
		least: 1, most: 64, pattern: propertyPattern.String(), parse: matching(propertyPattern),
		want: `a name of letters, digits, ".", "_", "-" and ":"`,
	}
}

func checkProperties(r *reader, c *Config) {
	checkNames(r, "/sessionProperties", c.Properties, nil)
	for i, realm := range c.Realms {
		checkNames(r, "/realms/"+strconv.Itoa(i)+"/sessionProperties", realm.Properties, c.Properties)
	}
}

func checkNames(r *reader, at string, properties, ofAll []Property) {
	for i, p := range properties {
		here := at + "/" + strconv.Itoa(i) + "/name"
		same := func(other Property) bool { return p.Name != "" && other.Name == p.Name }
		switch {
		case isInternal(p.Name):
			r.fault(here, "is a name of the server's own; choose another one")
		case slices.ContainsFunc(properties[:i], same):
			r.fault(here, "is the name of an earlier property; each needs its own")
		case slices.ContainsFunc(ofAll, same):
			r.fault(here, "stands in sessionProperties at the top level already, for all realms; remove one of the two")
		}
	}
}

// isInternal reports whether a property could be taken for what the server says of
// a session itself.
func isInternal(name string) bool {
	return len(name) >= len("sessiond") && strings.EqualFold(name[:len("sessiond")], "sessiond") ||
		slices.ContainsFunc(strings.Fields(internalNames), func(own string) bool { return strings.EqualFold(own, name) })
}

// internalNames are the members that sessions are shown with.
const internalNames = `
	authToken username description defaultApi defaultDebug defaultDatabaseName defaultOwnerName defaultBinaryFormat
	defaultVariantFormat defaultResponseOptions idleConnectionTimeoutSeconds idleCursorTimeoutSeconds
	transformBufferInitialBytes permanentSession sessionStartTimestamp sessionLastAccessedTimestamp defaultRetentionPolicy
	defaultRetentionUnit defaultRetentionPeriod hostname hostUuid hostIpAddresses hostServerNamePort sessionHandle
	maskedToken accountId realm roles realmRoles rolesMode authMethods authenticationTimestamp clientIpAddress clientIpAddresses userAgent
	device status current maxSessionTimeoutSeconds rememberMe maxIdleExpirationTimestamp maxSessionExpirationTimestamp
	lastClientIpAddress lastUserAgent lastDevice clientHandle abandonTimestamp endedTimestamp endReason endedBy revision properties lastAccessAccuracySeconds
`

package account

// Role is a named set of permissions.
type Role struct {
	Name        string
	Doc         string
	Permissions []string // patterns, as Grant reads them
}

// BuiltinRoles returns the roles that exist from the start.
func BuiltinRoles() []Role {
	return []Role{
		{"admin", "May do everything.", []string{"sessiond.*"}},
		{"operator", "Sees, changes and ends sessions and keys; sees accounts and events.", []string{
			"sessiond.sessions.read", "sessiond.sessions.write", "sessiond.sessions.revoke",
			"sessiond.keys.*", "sessiond.accounts.read", "sessiond.events.read",
		}},
		{"auditor", "Sees everything and changes nothing.", []string{
			"sessiond.sessions.read", "sessiond.keys.read", "sessiond.accounts.read", "sessiond.events.read", "sessiond.services.read",
		}},
		{"gateway", "Validates the sessions of others.", []string{"sessiond.sessions.validate"}},
		{"issuer", "Makes sessions for the accounts of trusted realms.", []string{"sessiond.sessions.issue"}},
	}
}

// granted maps the built-in roles to what they allow; nothing writes to it.
var granted = func() map[string]Permissions {
	table := make(map[string]Permissions)
	for _, role := range BuiltinRoles() {
		table[role.Name] = Grant(role.Permissions)
	}
	return table
}()

// IsRole reports whether a role of that name exists.
func IsRole(name string) bool {
	_, ok := granted[name]
	return ok
}

// Effective returns what the roles together allow. A name that no role has
// adds nothing.
func Effective(roles []string) Permissions {
	var p Permissions
	for _, name := range roles {
		p |= granted[name]
	}
	return p
}

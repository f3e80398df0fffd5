package account

import (
	"fmt"
	"strings"
	"time"

	"sessiond/internal/api"
	"sessiond/store"
)

// Role is a named set of permissions. Callers do not change one that they were
// given.
type Role struct {
	Name        string    // lower case: names are compared without case
	ID          api.ID    // zero: built in
	Description string    //
	Permissions []string  // patterns, as Grant reads them; those of applications among them
	Created     time.Time // zero: built in
	Changed     time.Time
	Rev         store.Rev // of the record as read; not part of the value

	grants Permissions // of the server's own
}

// RoleRef is a role as an account holds it. A role of the same name that is
// created later is another one: nobody holds it.
type RoleRef struct {
	Name string
	ID   api.ID
}

// Ref returns the reference to r.
func (r *Role) Ref() RoleRef { return RoleRef{r.Name, r.ID} }

// Grants returns the server's own permissions among the role's.
func (r *Role) Grants() Permissions { return r.grants }

// IsBuiltin reports whether r exists from the start and for ever.
func (r *Role) IsBuiltin() bool { return r.ID.IsZero() }

// adminRole is the role of which somebody must be left.
const adminRole = "admin"

// builtinRoles returns the roles that exist from the start.
func builtinRoles() []*Role {
	roles := []*Role{
		{Name: adminRole, Description: "May do everything, and give every permission.", Permissions: []string{"*", "sessiond.*"}},
		{Name: "operator", Description: "Sees, changes and ends sessions and keys; sees accounts and events.", Permissions: []string{
			"sessiond.sessions.read", "sessiond.sessions.write", "sessiond.sessions.revoke",
			"sessiond.keys.*", "sessiond.accounts.read", "sessiond.events.read",
		}},
		{Name: "auditor", Description: "Sees everything and changes nothing.", Permissions: []string{
			"sessiond.sessions.read", "sessiond.keys.read", "sessiond.accounts.read", "sessiond.events.read", "sessiond.services.read",
		}},
		{Name: "gateway", Description: "Validates the sessions of others.", Permissions: []string{"sessiond.sessions.validate"}},
		{Name: "issuer", Description: "Makes sessions for the accounts of trusted realms.", Permissions: []string{"sessiond.sessions.issue"}},
	}
	for _, r := range roles {
		r.grants = Grant(r.Permissions)
	}
	return roles
}

// The bounds of a role.
const (
	MaxRoleName    = 64  // bytes
	MaxPermissions = 100 // patterns of one role
	MaxPattern     = 128 // bytes of one
	MaxRoles       = 64  // of one account: each may be a condition of its creation
)

// RoleName returns the one form of a role's name. The error is an *api.Error of
// code BadParam.
func RoleName(name string) (string, error) {
	ok := name != "" && len(name) <= MaxRoleName
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-')
	}
	if !ok {
		return "", api.Errorf(api.BadParam, "a role's name has 1 to %d letters, digits, dots, underscores and hyphens", MaxRoleName)
	}
	return strings.ToLower(name), nil
}

// roleKeys begins the key of every role's record.
const roleKeys = "role/"

// roleRecord is the stored form of a Role.
type roleRecord struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Description string    `json:"description,omitzero"`
	Permissions []string  `json:"permissions,omitzero"`
	Created     time.Time `json:"created"`
	Changed     time.Time `json:"changed"`
}

// Conds hold while the roles are what they were when somebody decided to give them.
func Conds(roles []*Role) []store.Cond {
	var list []store.Cond
	for _, role := range roles {
		if !role.IsBuiltin() {
			list = append(list, role.cond())
		}
	}
	return list
}

func (r *Role) cond() store.Cond { return store.Cond{Key: roleKeys + r.Name, Rev: r.Rev} }

func (r *Role) put() (store.Put, error) {
	value, err := encodeRecord(roleRecord{
		ID: r.ID.String(), Name: r.Name, Description: r.Description, Permissions: r.Permissions, Created: r.Created, Changed: r.Changed,
	})
	if err != nil {
		return store.Put{}, fmt.Errorf("account: encode role: %w", err)
	}
	return store.Put{Key: roleKeys + r.Name, Value: value}, nil
}

// decodeRole reads a record. An error wraps store.ErrCorrupt.
func decodeRole(item store.Item) (*Role, error) {
	var r roleRecord
	err := decodeRecord(item.Value, &r)
	var id api.ID
	if err == nil {
		id, err = api.ParseID(r.ID)
	}
	if err == nil && (roleKeys+r.Name != item.Key || id.IsZero()) {
		err = fmt.Errorf("it stands under the key of another")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: role record: %w", store.ErrCorrupt, err)
	}
	return &Role{
		Name: r.Name, ID: id, Description: r.Description, Permissions: r.Permissions, Created: r.Created, Changed: r.Changed,
		Rev: item.Rev, grants: Grant(r.Permissions),
	}, nil
}

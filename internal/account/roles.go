package account

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"sessiond/store"
)

// Roles are all roles that exist: the built-in ones, and those of the store, of
// which it is a projection. It may be used from any goroutine; who asks sees the
// roles of one moment.
type Roles struct {
	mu      sync.Mutex // held by who writes
	current atomic.Pointer[map[string]*Role]
}

// NewRoles returns the built-in roles.
func NewRoles() *Roles {
	r := &Roles{}
	all := map[string]*Role{}
	for _, role := range builtinRoles() {
		all[role.Name] = role
	}
	r.current.Store(&all)
	return r
}

// apply takes over what a commit changed, and reports whether it changed a role.
func (r *Roles) apply(c store.Change) (changed bool, err error) {
	for i := range c.Put {
		if !strings.HasPrefix(c.Put[i].Key, roleKeys) {
			continue
		}
		role, e := decodeRole(c.Put[i])
		if e != nil {
			err = e
			continue
		}
		r.set(role.Name, role)
		changed = true
	}
	for _, key := range c.Delete {
		if name, ok := strings.CutPrefix(key, roleKeys); ok {
			r.set(name, nil)
			changed = true
		}
	}
	return changed, err
}

// set replaces a role; nil removes it.
func (r *Roles) set(name string, role *Role) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := maps.Clone(*r.current.Load())
	if role == nil {
		delete(all, name)
	} else {
		all[name] = role
	}
	r.current.Store(&all)
}

// Get returns the role of a name, compared without case.
func (r *Roles) Get(name string) (*Role, bool) {
	role, ok := (*r.current.Load())[strings.ToLower(name)]
	return role, ok
}

// All returns the roles by name.
func (r *Roles) All() []*Role {
	return slices.SortedFunc(maps.Values(*r.current.Load()), func(a, b *Role) int { return cmp.Compare(a.Name, b.Name) })
}

// Named returns the roles of those names that there are.
func (r *Roles) Named(names []string) []*Role {
	var list []*Role
	for _, name := range names {
		if role, ok := r.Get(name); ok {
			list = append(list, role)
		}
	}
	return list
}

// Held returns those of the roles held that still exist.
func (r *Roles) Held(refs []RoleRef) []*Role {
	var list []*Role
	all := *r.current.Load()
	for _, ref := range refs {
		if role := all[ref.Name]; role != nil && role.ID == ref.ID {
			list = append(list, role)
		}
	}
	return list
}

// Names returns the names of roles.
func Names(roles []*Role) []string {
	names := make([]string, len(roles))
	for i, role := range roles {
		names[i] = role.Name
	}
	return names
}

// Effective returns the server's own permissions that the roles together give.
func Effective(roles []*Role) Permissions {
	var p Permissions
	for _, role := range roles {
		p |= role.grants
	}
	return p
}

// Patterns returns the patterns of the roles together.
func Patterns(roles []*Role) []string {
	var list []string
	for _, role := range roles {
		list = append(list, role.Permissions...)
	}
	return list
}

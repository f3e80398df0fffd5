package account

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

// Roles returns the roles that exist.
func (d *Directory) Roles() *Roles { return d.roles }

// LoadRoles reads the roles of the store, to which nobody writes meanwhile.
func (d *Directory) LoadRoles(ctx context.Context) error {
	r := store.Range{Prefix: roleKeys, Limit: 1000}
	for {
		items, err := d.store.List(ctx, r)
		if err != nil {
			return fmt.Errorf("account: load roles: %w", err)
		}
		for i := range items {
			role, err := decodeRole(items[i])
			if err != nil {
				return err
			}
			d.roles.set(role.Name, role)
		}
		if len(items) < r.Limit {
			return nil
		}
		r.After = items[len(items)-1].Key
	}
}

// refs returns references to the roles of those names, each once and in their
// order. The error has code BadParam.
func (d *Directory) refs(names []string) ([]RoleRef, error) {
	var refs []RoleRef
	for _, name := range names {
		role, ok := d.roles.Get(name)
		if !ok {
			return nil, api.Errorf(api.BadParam, "there is no such role: listRoles shows which there are")
		}
		refs = append(refs, role.Ref())
	}
	return uniq(refs), nil
}

func uniq(refs []RoleRef) []RoleRef {
	slices.SortFunc(refs, func(a, b RoleRef) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(refs)
}

// CheckPermissions refuses patterns that cannot be, pointing at the first below
// /params/permissions.
func CheckPermissions(patterns []string) error {
	for i, pattern := range patterns {
		if err := CheckPattern(pattern); err != nil {
			return err.At(fmt.Sprintf("/params/permissions/%d", i))
		}
	}
	return nil
}

// NewRole is what a role is created from. Its permissions have been checked.
type NewRole struct {
	Name        string
	Description string
	Permissions []string
	May         Authority
}

// CreateRole stores a new role and its event. Errors: AlreadyExists, BadParam for
// its name.
func (d *Directory) CreateRole(ctx context.Context, by event.Actor, n NewRole) (*Role, error) {
	name, err := RoleName(n.Name)
	if err != nil {
		return nil, err
	}
	if _, exists := d.roles.Get(name); exists {
		return nil, roleExists()
	}
	id, err := d.newID()
	if err != nil {
		return nil, err
	}
	now := d.clock.Now()
	role := &Role{Name: name, ID: id, Description: n.Description, Permissions: n.Permissions, Created: now, Changed: now, grants: Grant(n.Permissions)}
	err = d.commitRole(ctx, by, role, event.RoleCreated, nil, n.May)
	if _, exists := d.roles.Get(name); exists && errors.Is(err, store.ErrConflict) {
		return nil, roleExists()
	}
	return role, err
}

func roleExists() *api.Error {
	return api.Errorf(api.AlreadyExists, "a role of this name exists: alterRole changes it")
}

// commitRole writes a role on the condition that it is as it was read.
func (d *Directory) commitRole(ctx context.Context, by event.Actor, role *Role, kind event.Kind, changed []string, may Authority) error {
	put, err := role.put()
	if err != nil {
		return err
	}
	conds, err := may.Conds(ctx)
	if err != nil {
		return err
	}
	tx := store.Tx{If: append([]store.Cond{role.cond()}, conds...), Put: []store.Put{put}}
	event.Append(&tx, event.Event{Time: d.clock.Now(), Kind: kind, Role: role.Name, Changed: changed, By: by})
	if role.Rev, err = d.store.Commit(ctx, tx); err != nil {
		return fmt.Errorf("account: write role: %w", err)
	}
	return nil
}

// A RoleChange is what alterRole changes; nil leaves as it is.
type RoleChange struct {
	Description *string
	Permissions *[]string
	May         Authority
	Allow       func(before *Role) error // refuses what the caller may not change; may be called more than once
}

// AlterRole changes a role, to permissions that have been checked. Errors:
// NotFound, BadParam for a built-in role.
func (d *Directory) AlterRole(ctx context.Context, by event.Actor, name string, c RoleChange) (*Role, error) {
	var altered Role
	err := store.Retry(func() error {
		role, err := d.ownRole(name)
		if err != nil {
			return err
		}
		if err := c.Allow(role); err != nil {
			return err
		}
		altered = *role
		var changed []string
		if c.Description != nil && *c.Description != role.Description {
			altered.Description, changed = *c.Description, append(changed, "description")
		}
		if c.Permissions != nil && !slices.Equal(*c.Permissions, role.Permissions) {
			altered.Permissions, changed = *c.Permissions, append(changed, "permissions")
			altered.grants = Grant(altered.Permissions)
		}
		if changed == nil {
			return nil
		}
		altered.Changed = d.clock.Now()
		return d.commitRole(ctx, by, &altered, event.RoleAltered, changed, c.May)
	})
	return &altered, err
}

// ownRole returns a role that can be changed.
func (d *Directory) ownRole(name string) (*Role, error) {
	role, ok := d.roles.Get(name)
	switch {
	case !ok:
		return nil, api.Errorf(api.NotFound, "there is no such role: listRoles shows which there are")
	case role.IsBuiltin():
		return nil, api.Errorf(api.BadParam, "a built-in role stays as it is: create one of your own")
	}
	return role, nil
}

// DropRoles removes roles, all or none, and returns the names of those that there
// were. Whoever holds one holds it no more: one of the same name that is created
// later is another. Errors: BadParam for a built-in role.
func (d *Directory) DropRoles(ctx context.Context, by event.Actor, names []string, may Authority, allow func(*Role) error) (dropped []string, err error) {
	err = store.Retry(func() error {
		dropped = []string{}
		conds, err := may.Conds(ctx)
		if err != nil {
			return err
		}
		tx := store.Tx{If: conds, Urgent: true}
		for i, name := range names {
			role, err := d.ownRole(name)
			if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.NotFound {
				continue
			}
			if err == nil {
				err = allow(role)
			}
			if e, ok := errors.AsType[*api.Error](err); ok {
				return e.At(fmt.Sprintf("/params/roleNames/%d", i))
			}
			if err != nil {
				return err
			}
			if slices.Contains(dropped, role.Name) {
				continue
			}
			tx.If = append(tx.If, role.cond())
			tx.Delete = append(tx.Delete, role.cond().Key)
			event.Append(&tx, event.Event{Time: d.clock.Now(), Kind: event.RoleDropped, Role: role.Name, By: by})
			dropped = append(dropped, role.Name)
		}
		if len(dropped) == 0 {
			return nil
		}
		if _, err := d.store.Commit(ctx, tx); err != nil {
			return fmt.Errorf("account: drop roles: %w", err)
		}
		return nil
	})
	return dropped, err
}

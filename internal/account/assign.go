package account

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

// A RoleGrant names roles and accounts of a realm: each of the accounts is given,
// or loses, each of the roles.
type RoleGrant struct {
	Realm     string
	Usernames []string
	Roles     []string
}

// An Assignment changes the roles of accounts, all or none of them. What is
// removed is so after what is added.
type Assignment struct {
	Add, Remove []RoleGrant
	May         Authority
	Allow       func(role *Role, to *Account, add bool) error // refuses what may not be given or taken; may be called more than once
}

// maxAssigned is the most accounts, and the most roles, of one Assignment: each
// account is two of a commit's changes, and each of them may be a condition.
const maxAssigned = 32

// AssignRoles changes the roles of accounts in one commit and returns those that
// changed. Errors: NotFound for a role or an account, TooLarge, Conflict where no
// administrator would be left; they point at the member.
func (d *Directory) AssignRoles(ctx context.Context, by event.Actor, w Assignment) (altered []*Account, err error) {
	err = store.Retry(func() error {
		altered, err = d.assign(ctx, by, &w)
		return err
	})
	return altered, err
}

// assignees are the accounts of an assignment, as they are and as they will be.
type assignees struct {
	before, after []*Account
	conds         []store.Cond // of the roles
}

func (d *Directory) assign(ctx context.Context, by event.Actor, w *Assignment) ([]*Account, error) {
	var all assignees
	for i := range w.Add {
		if err := d.each(ctx, &all, &w.Add[i], fmt.Sprintf("/params/add/%d", i), w.Allow, true); err != nil {
			return nil, err
		}
	}
	for i := range w.Remove {
		if err := d.each(ctx, &all, &w.Remove[i], fmt.Sprintf("/params/remove/%d", i), w.Allow, false); err != nil {
			return nil, err
		}
	}
	witness, err := d.KeepsAdministrator(ctx, all.before, all.after)
	if err != nil {
		return nil, err
	}
	may, err := w.May.Conds(ctx)
	if err != nil {
		return nil, err
	}
	tx := store.Tx{If: slices.Concat(may, all.conds, witness)}
	var altered []*Account
	for i, a := range all.after {
		if slices.Equal(a.Roles, all.before[i].Roles) {
			continue
		}
		put, err := a.Put()
		if err != nil {
			return nil, err
		}
		tx.Put = append(tx.Put, put)
		if !slices.Contains(tx.If, a.Cond()) {
			tx.If = append(tx.If, a.Cond())
		}
		event.Append(&tx, event.Event{
			Time: d.clock.Now(), Kind: event.AccountAltered, AccountID: a.ID.String(), Realm: a.Realm, Username: a.Username, Changed: []string{"roles"}, By: by,
		})
		altered = append(altered, a)
	}
	if len(altered) == 0 {
		return nil, nil
	}
	if _, err = d.store.Commit(ctx, tx); err != nil {
		return nil, fmt.Errorf("account: assign roles: %w", err)
	}
	return altered, nil
}

// each gives the roles of a grant to its accounts, or takes them.
func (d *Directory) each(ctx context.Context, all *assignees, g *RoleGrant, at string, allow func(*Role, *Account, bool) error, add bool) error {
	var roles []*Role
	for i, name := range g.Roles {
		role, ok := d.roles.Get(name)
		if !ok {
			return api.Errorf(api.NotFound, "there is no such role: listRoles shows which there are").At(fmt.Sprintf("%s/roleNames/%d", at, i))
		}
		roles = append(roles, role)
		if cond := role.cond(); !role.IsBuiltin() && !slices.Contains(all.conds, cond) {
			all.conds = append(all.conds, cond)
		}
	}
	if len(all.conds) > maxAssigned {
		return api.Errorf(api.TooLarge, "at most %d roles are assigned at once", maxAssigned).At(at + "/roleNames")
	}
	for i, name := range g.Usernames {
		a, err := d.assignee(ctx, all, g.Realm, name)
		if e, ok := errors.AsType[*api.Error](err); ok {
			return e.At(fmt.Sprintf("%s/usernames/%d", at, i))
		}
		if err != nil {
			return err
		}
		for j, role := range roles {
			if err := allow(role, a, add); err != nil {
				return api.FromError(err).At(fmt.Sprintf("%s/roleNames/%d", at, j))
			}
			a.Roles = slices.DeleteFunc(a.Roles, func(ref RoleRef) bool { return ref.Name == role.Name })
			if add {
				a.Roles = append(a.Roles, role.Ref())
			}
		}
		if a.Roles = uniq(a.Roles); len(a.Roles) > MaxRoles {
			return api.Errorf(api.TooLarge, "an account has at most %d roles", MaxRoles).At(fmt.Sprintf("%s/usernames/%d", at, i))
		}
	}
	return nil
}

// assignee returns the account of a name as it will be.
func (d *Directory) assignee(ctx context.Context, all *assignees, realm, username string) (*Account, error) {
	canonical, err := Canonical(username)
	if err != nil {
		return nil, err
	}
	for _, a := range all.after {
		if a.Realm == realm && a.Canonical == canonical {
			return a, nil
		}
	}
	if len(all.after) == maxAssigned {
		return nil, api.Errorf(api.TooLarge, "roles are assigned to at most %d accounts at once", maxAssigned)
	}
	a, err := d.Find(ctx, realm, username)
	if err != nil {
		return nil, err
	}
	all.before = append(all.before, a)
	all.after = append(all.after, a.Clone())
	return all.after[len(all.after)-1], nil
}

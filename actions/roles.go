package actions

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
)

// roles holds what concerns roles.
func (a *accounts) roles() []dispatch.Action {
	manages := dispatch.Holders(account.RolesWrite).Recent()
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "createRole", APIs: admin(), Work: dispatch.Writing, Allow: manages,
			Doc:    "Creates a role: a named set of permissions. Nobody puts permissions into it that he does not hold himself.",
			Errors: []api.Code{api.AlreadyExists, api.Conflict, api.KindNotAllowed},
		}, a.createRole),
		dispatch.Protected(dispatch.Spec{
			Name: "alterRole", APIs: admin(), Work: dispatch.Writing, Allow: manages,
			Doc: "Changes a role; what is not named stays as it is. With rolesMode live that acts on running sessions at once. " +
				"Built-in roles stay as they are; nobody changes a role of permissions that he does not hold himself.",
			Errors: []api.Code{api.NotFound, api.Conflict, api.KindNotAllowed},
		}, a.alterRole),
		dispatch.Protected(dispatch.Spec{
			Name: "dropRoles", APIs: admin(), Work: dispatch.Ending, Allow: manages,
			Doc: "Drops roles, all or none of them: whoever has one has it no more. A name that no role has is told as a warning. " +
				"A role that is created later under such a name is another one.",
			Errors: []api.Code{api.Conflict, api.KindNotAllowed},
		}, a.dropRoles),
		dispatch.Protected(dispatch.Spec{
			Name: "listRoles", APIs: admin(), Work: dispatch.Listing, Allow: dispatch.Holders(account.AccountsRead),
			Doc: "Lists the roles by name.",
		}, a.listRoles),
		dispatch.Protected(dispatch.Spec{
			Name: "describeRoles", APIs: admin(), Work: dispatch.Listing, Allow: dispatch.Holders(account.AccountsRead),
			Doc: "Shows roles with their permissions: those of roleNames, or all.",
		}, a.describeRoles),
		dispatch.Protected(dispatch.Spec{
			Name: "assignRolesToAccounts", APIs: admin(), Work: dispatch.Writing, Allow: manages,
			Doc: "Gives roles to accounts, and takes roles from accounts, in one step: all of it or nothing. " +
				"Nobody gives or takes a role whose permissions he does not hold himself.",
			Errors: []api.Code{api.NotFound, api.Conflict, api.RealmUnavailable, api.KindNotAllowed},
		}, a.assignRoles),
	}
}

type createRoleParams struct {
	RoleName        string   `json:"roleName" min:"1" max:"64" doc:"Letters, digits, dots, underscores and hyphens; compared without case."`
	RoleDescription string   `json:"roleDescription,omitzero" max:"1024" doc:"Free text."`
	Permissions     []string `json:"permissions" max:"100" doc:"Permissions such as orders.read, or patterns such as orders.*; those of the server begin with sessiond."`
}

// roleSummary is a role in a list.
type roleSummary struct {
	RoleName        string `json:"roleName" doc:"The role's name."`
	RoleDescription string `json:"roleDescription" doc:"Free text."`
	BuiltIn         bool   `json:"builtIn" doc:"Is it there from the start, and for ever?"`
}

type roleView struct {
	roleSummary

	Permissions      []string  `json:"permissions" doc:"What it allows."`
	CreatedTimestamp time.Time `json:"createdTimestamp,omitzero" doc:"When it was created; absent: it is built in."`
	ChangedTimestamp time.Time `json:"changedTimestamp,omitzero" doc:"When it was changed last."`
}

func summaryOf(r *account.Role) roleSummary {
	return roleSummary{RoleName: r.Name, RoleDescription: r.Description, BuiltIn: r.IsBuiltin()}
}

func viewOfRole(r *account.Role) roleView {
	return roleView{
		roleSummary: summaryOf(r), Permissions: slices.Concat([]string{}, r.Permissions),
		CreatedTimestamp: r.Created.Truncate(time.Second), ChangedTimestamp: r.Changed.Truncate(time.Second),
	}
}

// roleChanged is the answer to what changes a role.
type roleChanged struct {
	roleView
	rolesMode
}

// rolesMode says whether a change of roles acts on running sessions.
type rolesMode struct {
	RolesMode string `json:"rolesMode" doc:"live: the change acts on running sessions at once. frozen: running sessions keep what they had at log-in, API keys do not."`
}

func modeOf(c *config.Config) rolesMode { return rolesMode{c.RolesMode} }

// mayHold refuses permissions that the caller does not hold himself.
func (a *accounts) mayHold(who *session.Caller, permissions []string) error {
	if refusal := a.holds(who, permissions, "nobody puts permissions into a role, or takes them out, that he does not hold himself"); refusal != nil {
		return refusal.At("/params/permissions")
	}
	return nil
}

func (a *accounts) createRole(ctx context.Context, c *dispatch.Call, who *session.Caller, p createRoleParams) (roleChanged, error) {
	err := account.CheckPermissions(p.Permissions)
	if err == nil {
		err = a.mayHold(who, p.Permissions)
	}
	if err == nil && isOfRealm(c.Config, p.RoleName) {
		if refusal := a.holds(who, []string{"*", "sessiond.*"}, "a realm of services.json gives this role to all of its accounts: only who holds everything creates it"); refusal != nil {
			err = refusal.At("/params/roleName")
		}
	}
	if err != nil {
		return roleChanged{}, err
	}
	role, err := a.Accounts.CreateRole(ctx, a.Sessions.Actor(who), account.NewRole{
		Name: p.RoleName, Description: p.RoleDescription, Permissions: p.Permissions, May: a.Sessions.Authority(who),
	})
	if err != nil {
		return roleChanged{}, about(err, map[api.Code]string{api.BadParam: "/params/roleName", api.AlreadyExists: "/params/roleName"})
	}
	return roleChanged{viewOfRole(role), modeOf(c.Config)}, nil
}

// isOfRealm reports whether a realm gives a role of that name.
func isOfRealm(c *config.Config, name string) bool {
	return slices.ContainsFunc(c.Realms, func(r config.Realm) bool {
		return slices.ContainsFunc(r.Roles, func(given string) bool { return strings.EqualFold(given, name) })
	})
}

type alterRoleParams struct {
	RoleName        string    `json:"roleName" min:"1" max:"64" doc:"The role."`
	RoleDescription *string   `json:"roleDescription" max:"1024" doc:"Free text."`
	Permissions     *[]string `json:"permissions" max:"100" doc:"Its permissions from now on, all of them."`
}

func (a *accounts) alterRole(ctx context.Context, c *dispatch.Call, who *session.Caller, p alterRoleParams) (roleChanged, error) {
	if p.Permissions != nil {
		if err := account.CheckPermissions(*p.Permissions); err != nil {
			return roleChanged{}, err
		}
	}
	role, err := a.Accounts.AlterRole(ctx, a.Sessions.Actor(who), p.RoleName, account.RoleChange{
		Description: p.RoleDescription, Permissions: p.Permissions, May: a.Sessions.Authority(who),
		Allow: func(before *account.Role) error {
			err := a.mayHold(who, before.Permissions)
			if err == nil && p.Permissions != nil {
				err = a.mayHold(who, *p.Permissions)
			}
			return err
		},
	})
	if err != nil {
		return roleChanged{}, about(err, map[api.Code]string{api.BadParam: "/params/roleName", api.NotFound: "/params/roleName"})
	}
	return roleChanged{viewOfRole(role), modeOf(c.Config)}, nil
}

type roleNamesParams struct {
	RoleNames []string `json:"roleNames" max:"48" doc:"Names of roles."`
}

type dropRolesResult struct {
	Dropped []string `json:"dropped" doc:"Names of the roles that were dropped."`
	rolesMode
}

func (a *accounts) dropRoles(ctx context.Context, c *dispatch.Call, who *session.Caller, p roleNamesParams) (dropRolesResult, error) {
	dropped, err := a.Accounts.DropRoles(ctx, a.Sessions.Actor(who), p.RoleNames, a.Sessions.Authority(who), func(role *account.Role) error {
		return a.mayHold(who, role.Permissions)
	})
	if err != nil {
		return dropRolesResult{}, err
	}
	for i, name := range p.RoleNames {
		if !slices.Contains(dropped, strings.ToLower(name)) {
			c.Warn(api.NotFound, "roleNames/"+strconv.Itoa(i)+" names no role: there was nothing to drop")
		}
	}
	return dropRolesResult{dropped, modeOf(c.Config)}, nil
}

type listRolesParams struct {
	PartialNames []string `json:"partialNames,omitzero" max:"100" doc:"Only roles whose names begin with one of these."`
}

type listRolesResult struct {
	Roles []roleSummary `json:"roles" doc:"The roles, by name."`
}

func (a *accounts) listRoles(_ context.Context, _ *dispatch.Call, _ *session.Caller, p listRolesParams) (listRolesResult, error) {
	r := listRolesResult{Roles: []roleSummary{}}
	for _, role := range a.Accounts.Roles().All() {
		begins := func(prefix string) bool { return strings.HasPrefix(role.Name, strings.ToLower(prefix)) }
		if len(p.PartialNames) == 0 || slices.ContainsFunc(p.PartialNames, begins) {
			r.Roles = append(r.Roles, summaryOf(role))
		}
	}
	return r, nil
}

type describeRolesParams struct {
	RoleNames []string `json:"roleNames,omitzero" max:"1000" doc:"Names of roles."`
}

type describeRolesResult struct {
	Roles []roleView `json:"roles" doc:"The roles."`
	rolesMode
}

func (a *accounts) describeRoles(_ context.Context, c *dispatch.Call, _ *session.Caller, p describeRolesParams) (describeRolesResult, error) {
	r := describeRolesResult{[]roleView{}, modeOf(c.Config)}
	all := a.Accounts.Roles()
	for i, name := range p.RoleNames {
		if role, ok := all.Get(name); ok {
			r.Roles = append(r.Roles, viewOfRole(role))
		} else {
			c.Warn(api.NotFound, "roleNames/"+strconv.Itoa(i)+" names no role")
		}
	}
	if len(p.RoleNames) == 0 {
		for _, role := range all.All() {
			r.Roles = append(r.Roles, viewOfRole(role))
		}
	}
	return r, nil
}

type roleGrant struct {
	Realm     string   `json:"realm,omitzero" max:"64" doc:"Where the accounts are checked; native unless named."`
	RoleNames []string `json:"roleNames" min:"1" max:"32" doc:"Names of roles."`
	Usernames []string `json:"usernames" min:"1" max:"32" doc:"Names of accounts, at most 32 in all."`
}

type assignRolesParams struct {
	Add    []roleGrant `json:"add,omitzero" max:"32" doc:"Each account of an entry gets each of its roles."`
	Remove []roleGrant `json:"remove,omitzero" max:"32" doc:"Each account of an entry loses each of its roles, after add."`
}

func (p *assignRolesParams) Validate() error {
	if len(p.Add)+len(p.Remove) == 0 {
		return api.Errorf(api.MissingParam, "add or remove is required").At("/params/add")
	}
	return nil
}

type assignRolesResult struct {
	Accounts []accountView `json:"accounts" doc:"The accounts whose roles changed."`
	rolesMode
}

func (a *accounts) assignRoles(ctx context.Context, c *dispatch.Call, who *session.Caller, p assignRolesParams) (assignRolesResult, error) {
	work := account.Assignment{May: a.Sessions.Authority(who), Allow: func(role *account.Role, of *account.Account, add bool) error {
		if !add {
			if refusal := a.mayTake(who, role); refusal != nil {
				return refusal
			}
			return nil
		}
		realm, err := a.managed(c.Config, of.Realm, "add")
		if err != nil {
			return err
		}
		if refusal := a.mayGive(who, realm, role); refusal != nil {
			return refusal
		}
		return nil
	}}
	for _, side := range []struct {
		name   string
		grants []roleGrant
		to     *[]account.RoleGrant
	}{{"add", p.Add, &work.Add}, {"remove", p.Remove, &work.Remove}} {
		for i, g := range side.grants {
			realm, err := a.managed(c.Config, cmp.Or(g.Realm, config.Native), side.name+"/"+strconv.Itoa(i)+"/realm")
			if err != nil {
				return assignRolesResult{}, err
			}
			*side.to = append(*side.to, account.RoleGrant{Realm: realm.Name, Usernames: g.Usernames, Roles: g.RoleNames})
		}
	}
	altered, err := a.Accounts.AssignRoles(ctx, a.Sessions.Actor(who), work)
	if err != nil {
		return assignRolesResult{}, err
	}
	r := assignRolesResult{[]accountView{}, modeOf(c.Config)}
	for _, of := range altered {
		r.Accounts = append(r.Accounts, a.view(of))
	}
	return r, nil
}

package session

import (
	"slices"
	"sync/atomic"

	"sessiond/internal/account"
	"sessiond/internal/config"
	"sessiond/internal/wire"
)

// A roleSet is the roles that some accounts hold. Which of them still exist, and
// what they allow, follows every change of a role at once.
type roleSet struct {
	refs  []account.RoleRef
	state atomic.Pointer[held]
}

// held is a list of roles at a moment.
type held struct {
	names    []string // as they are shown
	rendered []byte   // the same as a JSON array
	roles    []*account.Role
	perms    account.Permissions
}

func holding(names []string, roles []*account.Role) *held {
	return &held{names: names, rendered: appendNames(nil, names), roles: roles, perms: account.Effective(roles)}
}

// heldBy returns what an account holds of the roles that exist.
func (t *Table) heldBy(refs []account.RoleRef) *held {
	roles := t.roles.Held(refs)
	return holding(account.Names(roles), roles)
}

// heldIn returns what a realm gives. Its names are the configuration's: one that no
// role has may mean something to applications, and allows nothing here.
func (t *Table) heldIn(names []string) *held { return holding(names, t.roles.Named(names)) }

// roleSetOf returns the number of the set of an account's roles, until it is given
// back.
func (t *Table) roleSetOf(refs []account.RoleRef) uint32 {
	var form []byte
	for _, ref := range refs {
		form = append(append(form, ref.String()...), 0)
	}
	return t.roleSets.put(form, func() *roleSet {
		set := &roleSet{refs: slices.Clone(refs)}
		set.state.Store(t.heldBy(refs))
		return set
	})
}

// rolesChanged puts the roles in force as they are now.
func (t *Table) rolesChanged() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roleSets.each(func(set *roleSet) { set.state.Store(t.heldBy(set.refs)) })
	all := slices.Clone(*t.realms.Load())
	for i, r := range all {
		changed := *r
		changed.held = t.heldIn(r.held.names)
		all[i] = &changed
	}
	t.realms.Store(&all)
}

// Frozen is what a session holds that keeps the roles of its log-in, or, as a
// ceiling, what permissions one holds at the most whose roles are live.
type Frozen struct {
	Ceiling     bool
	Roles       []string
	RealmRoles  []string
	Permissions account.Permissions
}

// freeze returns what an account holds at this moment.
func freeze(own, inRealm *held) *Frozen {
	return &Frozen{Roles: own.names, RealmRoles: inRealm.names, Permissions: own.perms | inRealm.perms}
}

// A frozenSet is what frozen sessions show and hold.
type frozenSet struct {
	*Frozen

	names, realmNames []byte // rendered JSON arrays
}

func (t *Table) frozenSetOf(f *Frozen) uint32 {
	return t.frozenSets.put(f.encode(), func() *frozenSet {
		return &frozenSet{f, appendNames(nil, f.Roles), appendNames(nil, f.RealmRoles)}
	})
}

// rights are what a living session holds.
type rights struct {
	names, realmNames []byte
	perms             account.Permissions
	frozen            *Frozen // nil: live
	live, inRealm     *held
}

// rightsOf returns what an entry's session holds, for a caller who holds its shard
// and its account's stripe.
func (t *Table) rightsOf(s *shard, n uint32, e *entry, slot *accountSlot, r *realm) rights {
	if e.flags&isFrozen != 0 {
		set := t.frozenSets.get(s.frozen[n])
		if set.Ceiling {
			x := t.liveRights(slot, r)
			x.perms &= set.Permissions
			return x
		}
		return rights{names: set.names, realmNames: set.realmNames, perms: set.Permissions & r.mask, frozen: set.Frozen}
	}
	return t.liveRights(slot, r)
}

// liveRights returns what an account's sessions hold whose roles are not frozen.
func (t *Table) liveRights(slot *accountSlot, r *realm) rights {
	own := t.roleSets.get(slot.roles).state.Load()
	return rights{names: own.rendered, realmNames: r.held.rendered, perms: (own.perms | r.held.perms) & r.mask, live: own, inRealm: r.held}
}

// append renders the members of validate's answer that say what is held.
func (x *rights) append(dst []byte) []byte {
	dst = append(append(dst, `,"roles":`...), x.names...)
	dst = append(append(dst, `,"realmRoles":`...), x.realmNames...)
	dst = append(append(dst, `,"rolesMode":"`...), x.mode()...)
	return append(dst, '"')
}

func (x *rights) mode() string {
	if x.frozen != nil {
		return config.FrozenRoles
	}
	return config.LiveRoles
}

// list returns the names of the roles held.
func (x *rights) list() (roles, inRealm []string) {
	if x.frozen != nil {
		return x.frozen.Roles, x.frozen.RealmRoles
	}
	return x.live.names, x.inRealm.names
}

func appendNames(dst []byte, names []string) []byte {
	dst = append(dst, '[')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = wire.AppendString(dst, name)
	}
	return append(dst, ']')
}

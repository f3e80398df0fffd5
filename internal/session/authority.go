package session

import (
	"context"
	"errors"
	"slices"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/store"
)

// Authority returns under which conditions a caller may make a change for which
// his rights have been looked at: his session lives, and his account and the roles
// that it holds are what they were. Between that look and the commit there may be
// seconds, in which a password is hashed; a session that is thrown out in them, or
// loses its rights, changes nothing any more.
func (k *Keeper) Authority(c *Caller) account.Authority {
	roles := k.table.liveRoles(c.Handle)
	return func(ctx context.Context) ([]store.Cond, error) {
		live, _, ok := k.table.look(proof{handle: c.Handle, now: k.now()}, nil)
		if !ok {
			return nil, endedMeanwhile()
		}
		if live.Permissions != c.Permissions || !slices.Equal(k.table.liveRoles(c.Handle), roles) {
			return nil, api.Errorf(api.Conflict, "the caller's rights changed meanwhile: nothing was changed, send it again")
		}
		return k.standing(ctx, c.Handle, roles)
	}
}

// maxRoleConds is how many of a caller's own roles are a condition of what he
// changes; of more than anybody has the rest has just been looked at.
const maxRoleConds = 16

// standing returns the conditions under which a session lives, with its account and
// roles as they are, by what is stored.
func (k *Keeper) standing(ctx context.Context, h api.ID, roles []*account.Role) ([]store.Cond, error) {
	r, rev, err := k.read(ctx, h)
	if errors.Is(err, store.ErrNotFound) {
		return nil, endedMeanwhile()
	}
	if err != nil {
		return nil, err
	}
	server, realm, err := k.generations(ctx, r.Realm)
	if err != nil {
		return nil, err
	}
	a, err := k.accounts.Named(ctx, r.Realm, r.Username)
	if err != nil {
		return nil, err
	}
	if a == nil || a.ID != r.AccountID || !a.Active(k.clock.Now()) ||
		r.Epochs != (Epochs{server.For(r.Permanent), realm.For(r.Permanent), a.Epoch.For(r.Permanent)}) {
		return nil, endedMeanwhile()
	}
	own := account.Conds(roles)
	return append([]store.Cond{
		{Key: liveKey(h), Rev: rev}, {Key: endKey(h)}, {Key: serverEpoch, Rev: server.Rev}, {Key: realmEpoch(r.Realm), Rev: realm.Rev}, a.Cond(),
	}, own[:min(len(own), maxRoleConds)]...), nil
}

func endedMeanwhile() *api.Error {
	return api.Errorf(api.InvalidAuthToken, "the authToken belongs to no live session any more: nothing was changed")
}

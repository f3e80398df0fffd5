package session

import (
	"context"
	"errors"
	"slices"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/store"
)

// join has a new session join the browser or device of the caller, or of the session
// that it replaces. It returns those that the limit there has make room.
func (k *Keeper) join(ctx context.Context, c *creation, a *account.Account, h api.ID, tx *store.Tx) ([]eviction, error) {
	switch {
	case c.Join != nil:
		if err := k.joinCaller(ctx, c, tx); err != nil {
			return nil, err
		}
	case c.Instead == nil:
		return nil, nil
	}
	client, rev, err := k.client(ctx, c.Client)
	if err != nil || rev == 0 && c.Join == nil {
		return nil, err
	}
	if rev == 0 {
		client.Members = []api.ID{c.Join.Handle}
	}
	var evicted []eviction
	if c.Join != nil {
		if evicted, err = k.roomOn(client, c, a); err != nil {
			return nil, err
		}
	}
	if client.Members, err = k.withoutGone(ctx, client.Members); err != nil {
		return nil, err
	}
	client.Members, client.Active = append(client.Members, h), h
	tx.If = append(tx.If, store.Cond{Key: clientKey(c.Client), Rev: rev})
	tx.Put = append(tx.Put, store.Put{Key: clientKey(c.Client), Value: client.encode()})
	return evicted, nil
}

// joinCaller finds the client of the session that is joined, and writes it into its
// record, by which its tombstone is known to be on it.
func (k *Keeper) joinCaller(ctx context.Context, c *creation, tx *store.Tx) error {
	h := c.Join.Handle
	live, ok := k.Living(Reach{All: true}, h)
	if !ok {
		return endedMeanwhile()
	}
	r, rev, err := k.unended(ctx, h)
	if errors.Is(err, store.ErrNotFound) {
		return endedMeanwhile()
	}
	if err != nil {
		return err
	}
	c.Client = r.ClientID()
	tx.If = append(tx.If, store.Cond{Key: liveKey(h), Rev: rev}, store.Cond{Key: endKey(h)})
	if r.Client.IsZero() {
		r.Client, r.LastAccess = h, live.LastAccess
		tx.Put = append(tx.Put, store.Put{Key: liveKey(h), Value: r.encode()})
	}
	return nil
}

// roomOn says whether the limit of a client leaves a place for a new session, and who
// makes room for it.
func (k *Keeper) roomOn(client *Client, c *creation, a *account.Account) ([]eviction, error) {
	d := &c.Config.Defaults
	most := d.MaxSessionsPerClient
	if most == 0 {
		return nil, nil
	}
	if k.holdsIn(c.Realm, a)&account.SessionsRevoke != 0 {
		most += operatorReserve
	}
	var count int64
	var ending, living []Live
	for _, member := range client.Members {
		live, ok := k.Endable(Reach{All: true}, member)
		own := live.AccountID == a.ID && !live.Permanent
		if !ok || slices.Contains(c.leaving(), member) || own && !c.NewPassword.IsZero() {
			continue
		}
		count++
		if !own || member == c.Join.Handle {
			continue
		}
		if _, lives := k.Living(Reach{All: true}, member); lives {
			living = append(living, live)
		} else {
			ending = append(ending, live)
		}
	}
	if count < most {
		return nil, nil
	}
	r := full(api.SessionLimitPerClient, config.LimitPerClient, d.OnSessionLimit.PerClient, most, count, 0,
		"the browser or device has as many sessions as it may: end one of them and try again")
	r.refusal.Data.Max = d.MaxSessionsPerClient
	if !r.evicts() {
		return nil, r.refusal
	}
	chosen := choose(ending, living, r.policy, r.excess)
	if len(chosen) == 0 {
		return nil, r.refusal
	}
	evicted := make([]eviction, len(chosen))
	for i, h := range chosen {
		evicted[i] = eviction{h, r.limit}
	}
	return evicted, nil
}

// withoutGone returns a client's sessions without those that are gone, if they are
// many, and without the oldest that have ended, if they are too many.
func (k *Keeper) withoutGone(ctx context.Context, members []api.ID) ([]api.ID, error) {
	if len(members) < manyEnded {
		return members, nil
	}
	var kept []api.ID
	for i, h := range members {
		if _, ok := k.Endable(Reach{All: true}, h); ok {
			kept = append(kept, h)
			continue
		}
		v, err := k.Get(ctx, h)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		if err == nil && v.Status() != Removed && len(kept)+len(members)-i < maxMembers {
			kept = append(kept, h)
		}
	}
	return kept, nil
}

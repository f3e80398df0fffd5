package session

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"slices"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/store"
)

// Where a limit leaves no place, sessions of the same account make room: they end in
// the commit of the session that takes their place, and so does nobody whose
// successor was not made.

// An eviction is a session that makes room, and for which limit.
type eviction struct {
	handle api.ID
	limit  string
}

// maxEvicted is how many sessions end in the commit of their successor. Should there
// be more in its way, as when a limit was lowered, those end before.
const maxEvicted = 30

// evictable returns the account's sessions that a limit has make room for a claim;
// none: the claim is refused. No session makes room for an API key.
func (t *Table) evictable(n uint32, c *claim, r *reached, now int64) []api.ID {
	if !r.evicts() || c.permanent {
		return nil
	}
	slot := t.account(n)
	t.settleDead(slot)
	var candidates []Live
	for i := slot.head; i != 0; i = t.entry(i).accNext {
		e := t.entry(i)
		if e.state&isCounted == 0 || e.flags&isPermanent != 0 || e.handle == c.keep || (r.network != addressKey{} && !t.isWithin(e, r.network)) {
			continue
		}
		if live, _, ok := t.look(proof{handle: e.handle, ending: true, now: now}, nil); ok {
			candidates = append(candidates, live)
		}
	}
	return choose(candidates, r.policy, r.excess)
}

// isWithin reports whether a session counts in a network.
func (t *Table) isWithin(e *entry, key addressKey) bool {
	for a := e.address; a != 0; a = t.address(a).wider {
		if t.address(a).key == key {
			return true
		}
	}
	return false
}

// choose returns which of some sessions have to go, so that there are n fewer; none
// if there are not so many.
func choose(candidates []Live, policy string, n int64) []api.ID {
	var rank func(*Live) int64
	switch policy {
	case config.EvictOldest, config.EvictAll:
		rank = func(l *Live) int64 { return l.Created }
	case config.EvictLeastRecentlyUsed:
		rank = func(l *Live) int64 { return l.LastAccess }
	case config.EvictNextToExpire:
		rank = (*Live).expiresAt
	}
	if rank == nil || int64(len(candidates)) < n {
		return nil
	}
	if policy == config.EvictAll {
		n = int64(len(candidates))
	}
	slices.SortFunc(candidates, func(a, b Live) int {
		return cmp.Or(cmp.Compare(rank(&a), rank(&b)), bytes.Compare(a.Handle[:], b.Handle[:]))
	})
	var chosen []api.ID
	for i := range candidates[:n] {
		chosen = append(chosen, candidates[i].Handle)
	}
	return chosen
}

// expiresAt returns when the session will expire if it is not used; what never does
// comes last.
func (l *Live) expiresAt() int64 {
	at := int64(math.MaxInt64)
	for _, end := range []int64{l.IdleAt, l.MaxAt} {
		if end != 0 {
			at = min(at, end)
		}
	}
	return at
}

// evict has sessions end in the commit of their successor. Those that have ended
// already are left as they are.
func (k *Keeper) evict(ctx context.Context, a *account.Account, evicted []eviction, successor api.ID, tx *store.Tx) error {
	by := event.Actor{SessionHandle: HandleText(successor), Realm: a.Realm, Username: a.Username}
	if n := len(evicted) - maxEvicted; n > 0 {
		handles := make([]api.ID, n)
		for i := range handles {
			handles[i] = evicted[i].handle
		}
		if _, err := k.EndAll(ctx, handles, End{Status: Replaced, At: k.now(), Reason: evicted[0].limit, By: by.SessionHandle}, by); err != nil {
			return err
		}
		evicted = evicted[n:]
	}
	for _, v := range evicted {
		r, rev, err := k.unended(ctx, v.handle)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		k.endIn(tx, r, rev, End{Status: Replaced, At: k.now(), Reason: v.limit, By: by.SessionHandle}, by)
	}
	return nil
}

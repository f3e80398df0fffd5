package session

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"slices"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/store"
)

// Where a limit leaves no place, sessions of the same account make room: they end in
// the commit of the session that takes their place, and nobody does whose successor
// was not made. The log-ins of an account go one after the other then: of two at once
// the second would find nobody left who may go, or have one too many go.

// An eviction is a session that makes room, and for which limit.
type eviction struct {
	handle api.ID
	limit  string
}

// maxEvicted is how many sessions end in the commit of their successor. Should there
// be more in its way, as when a limit was lowered, those end right after it.
const maxEvicted = 30

// evictable returns the account's sessions that a limit has make room for a claim;
// none: the claim is refused. No session makes room for an API key.
func (t *Table) evictable(n uint32, c *claim, r *reached, now int64) []api.ID {
	if !r.evicts() || c.permanent {
		return nil
	}
	slot := t.account(n)
	t.settleDead(slot)
	var ending, living []Live
	for i := slot.head; i != 0; i = t.entry(i).accNext {
		e := t.entry(i)
		if e.state&isCounted == 0 || e.flags&isPermanent != 0 || e.handle == c.keep || (r.network != addressKey{} && !t.isWithin(e, r.network)) {
			continue
		}
		if live, _, ok := t.look(proof{handle: e.handle, now: now}, nil); ok {
			living = append(living, live)
		} else if live, _, ok := t.look(proof{handle: e.handle, ending: true, now: now}, nil); ok {
			ending = append(ending, live)
		}
	}
	return choose(ending, living, r.policy, r.excess)
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
// if there are not so many. Those that are ending go first: they are dead already.
func choose(ending, living []Live, policy string, n int64) (chosen []api.ID) {
	var rank func(*Live) int64
	switch policy {
	case config.EvictOldest, config.EvictAll:
		rank = func(l *Live) int64 { return l.Created }
	case config.EvictLeastRecentlyUsed:
		rank = func(l *Live) int64 { return l.LastAccess }
	case config.EvictNextToExpire:
		rank = (*Live).expiresAt
	}
	all := int64(len(ending) + len(living))
	if rank == nil || all < n {
		return nil
	}
	if policy == config.EvictAll {
		n = all
	}
	for _, candidates := range [][]Live{ending, living} {
		slices.SortFunc(candidates, func(a, b Live) int {
			return cmp.Or(cmp.Compare(rank(&a), rank(&b)), bytes.Compare(a.Handle[:], b.Handle[:]))
		})
		for i := range candidates[:min(n-int64(len(chosen)), int64(len(candidates)))] {
			chosen = append(chosen, candidates[i].Handle)
		}
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

// evict has sessions end in the commit of their successor, and returns those that end
// after it. Those that have ended already are left as they are.
func (k *Keeper) evict(ctx context.Context, evicted []eviction, by event.Actor, tx *store.Tx) (rest []eviction, err error) {
	n := min(maxEvicted, len(evicted))
	for _, v := range evicted[:n] {
		r, rev, err := k.unended(ctx, v.handle)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		k.endIn(tx, r, rev, k.evicted(v, by), by)
	}
	return evicted[n:], nil
}

// evictRest ends those who were too many for the commit of their successor. What could
// not be written is dead all the same, and the first to make room for the next one.
func (k *Keeper) evictRest(ctx context.Context, rest []eviction, by event.Actor) {
	handles, ends := make([]api.ID, len(rest)), make(map[api.ID]End, len(rest))
	for i, v := range rest {
		handles[i], ends[v.handle] = v.handle, k.evicted(v, by)
	}
	_, _ = atOnce(handles, func(h api.ID) (bool, error) { return k.End(ctx, h, ends[h], by) })
}

func (k *Keeper) evicted(v eviction, by event.Actor) End {
	return End{Status: Replaced, At: k.now(), Reason: v.limit, By: by.SessionHandle}
}

package session

import (
	"context"

	"sessiond/internal/api"
	"sessiond/store"
)

// Reach says whose sessions somebody may see or change: an account's, or all.
// The zero Reach covers nothing.
type Reach struct {
	Account api.ID
	All     bool
}

// Covers reports whether an account's sessions are within reach.
func (r Reach) Covers(account api.ID) bool {
	return r.All || (!account.IsZero() && account == r.Account)
}

// Find is Get within a reach: what lies beyond it does not exist.
func (k *Keeper) Find(ctx context.Context, r Reach, h api.ID) (View, error) {
	v, err := k.Get(ctx, h)
	if err == nil && !r.Covers(v.AccountID) {
		return View{}, store.ErrNotFound
	}
	return v, err
}

// Living returns a living session within a reach.
func (k *Keeper) Living(r Reach, h api.ID) (Live, bool) {
	live, _, ok := k.table.look(proof{handle: h, now: k.now()}, nil)
	return live, ok && r.Covers(live.AccountID)
}

// Endable returns a session within a reach that has not ended durably: it lives,
// or its end is under way or was refused by the store. An end that was refused is
// so repeated by those who asked for it.
func (k *Keeper) Endable(r Reach, h api.ID) (Live, bool) {
	live, _, ok := k.table.look(proof{handle: h, ending: true, now: k.now()}, nil)
	return live, ok && r.Covers(live.AccountID)
}

// EndableBy is Endable for whoever shows the session's token.
func (k *Keeper) EndableBy(token string) (Caller, bool) {
	h, ok := Locate(token)
	if !ok {
		return Caller{}, false
	}
	sum := hashOf(token)
	live, _, ok := k.table.look(proof{handle: h, hash: &sum, ending: true, now: k.now()}, nil)
	return Caller{live}, ok
}

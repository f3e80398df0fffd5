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

package account

import (
	"context"
	"net/netip"

	"github.com/alexedwards/argon2id"

	"sessiond/internal/api"
	"sessiond/internal/network"
	"sessiond/store"
)

// upgrade stores a password's hash anew if it was made at another cost than the
// present one: the moment after a log-in is the only one at which the password
// is at hand. It returns the account as it is stored then. Nothing else of it
// changes and nobody has to know, so there is no event. Whatever stands in the
// way, a full queue or a full disk, leaves it to the next log-in.
func (d *Directory) upgrade(ctx context.Context, from netip.Addr, a *Account, password api.Secret) *Account {
	if d.hasher.atPresentCost(a.PasswordHash) {
		return a
	}
	prepared, err := prepare(password)
	if err != nil {
		return a
	}
	lane := Lane{Familiar: true, Network: network.Of(from)} // he has just shown the password
	hash, err := d.hasher.Hash(ctx, lane, prepared)
	if err != nil {
		return a
	}
	upgraded := a.Clone()
	upgraded.PasswordHash = hash
	put, err := upgraded.Put()
	if err != nil {
		return a
	}
	upgraded.Rev, err = d.store.Commit(ctx, store.Tx{If: []store.Cond{a.Cond()}, Put: []store.Put{put}})
	if err != nil {
		return a
	}
	return upgraded
}

// atPresentCost reports whether a hash is as expensive as those that h makes, and
// of the same form. What cannot be read is left as it is.
func (h *Hasher) atPresentCost(phc api.Secret) bool {
	p, _, _, err := argon2id.DecodeHash(phc.Reveal())
	return err != nil || *p == h.params
}

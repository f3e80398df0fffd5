package account

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"sessiond/internal/api"
	"sessiond/store"
)

// Verify checks a password and returns its account. from may be the zero
// address. Errors: LoginFailed, the same for every cause; LoginThrottled and
// Overloaded, both with RetryAfterSeconds; ShuttingDown. Whoever acts on the
// account makes it a condition (Account.Cond) of what he commits.
func (d *Directory) Verify(ctx context.Context, realm, username string, password api.Secret, from netip.Addr) (*Account, error) {
	who, err := d.lookup(ctx, realm, username)
	if err != nil {
		return nil, err
	}
	attempt, refusal := d.throttle.begin(who.Key, who.exists, from)
	if refusal != nil {
		d.failed(reasonThrottled, realm, who, from)
		return nil, refusal
	}
	settle := attempt.refund // also where check panics: an attempt under way counts
	defer func() { settle() }()
	a, reason, err := d.check(ctx, Lane{Network: network(from)}, who, password)
	switch {
	case err != nil:
		return nil, err
	case reason != "":
		settle = attempt.fail
		d.failed(reason, realm, who, from)
		return nil, LoginFailed()
	}
	settle = attempt.pass
	return d.upgrade(ctx, from, a, password), nil
}

// claimed is whom a log-in names: the key his failures count under, and his
// record if there is one.
type claimed struct {
	store.Item
	exists bool
}

// lookup gets the record of an account. A text that cannot be a user name is
// one that does not exist.
func (d *Directory) lookup(ctx context.Context, realm, username string) (claimed, error) {
	canonical, err := Canonical(username)
	if err != nil {
		return claimed{Item: store.Item{Key: Key(realm, username)}}, nil //nolint:nilerr // answered like any unknown name
	}
	key := Key(realm, canonical)
	item, err := d.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return claimed{Item: store.Item{Key: key}}, nil
	}
	if err != nil {
		return claimed{}, fmt.Errorf("account: verify: %w", err)
	}
	return claimed{Item: item, exists: true}, nil
}

// check does the same work whatever the record says: one hash. It returns why
// the log-in fails, or "". An error means that nothing was checked.
func (d *Directory) check(ctx context.Context, lane Lane, who claimed, password api.Secret) (a *Account, reason string, err error) {
	a = &Account{}
	reason = reasonUnknown
	if who.exists {
		if a, err = Decode(who.Item); err != nil {
			return nil, "", err
		}
		reason = reasonPassword
	}
	phc := a.PasswordHash
	prepared, err := prepare(password)
	if err != nil {
		phc = api.Secret{} // it is no account's password
	}
	match, err := d.hasher.Verify(ctx, lane, prepared, phc)
	switch {
	case err != nil:
		return nil, "", err
	case match && a.Disabled:
		return a, reasonDisabled, nil
	case match:
		return a, "", nil
	}
	return a, reason, nil
}

func (d *Directory) failed(reason, realm string, who claimed, from netip.Addr) {
	f := failure{reason: reason, realm: realm, address: from.Unmap().WithZone("")}
	if who.exists {
		f.key = who.Key
	}
	d.failures.add(f, 1)
}

// FlushFailures writes the failed log-ins since the last time as events, summed
// up by account and address. It is called every few seconds and at the end.
func (d *Directory) FlushFailures(ctx context.Context) error {
	return d.failures.flush(ctx, d.store, d.clock)
}

// LoginFailed is the one answer to every log-in that is refused, whatever the cause.
func LoginFailed() *api.Error {
	return api.Errorf(api.LoginFailed, "the log-in was refused: the user name or the password is wrong, or the account may not log in")
}

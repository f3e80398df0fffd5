package account

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/network"
	"sessiond/store"
)

// Verify checks a password and returns its account. from may be the zero
// address. Errors: LoginFailed, the same for every cause; LoginThrottled and
// Overloaded, both with RetryAfterSeconds; ShuttingDown. Whoever acts on the
// account makes it a condition (Account.Cond) of what he commits; who creates a
// session has Remember's changes in the same commit.
func (d *Directory) Verify(ctx context.Context, realm, username string, password api.Secret, from netip.Addr) (*Account, error) {
	who, err := d.lookup(ctx, realm, username, from)
	if err != nil {
		return nil, err
	}
	attempt, refusal := d.throttle.begin(who.target, from)
	if refusal != nil {
		d.failed(reasonThrottled, realm, who, from)
		return nil, refusal
	}
	settle := attempt.refund // also where check panics: an attempt under way counts
	defer func() { settle() }()
	reason, err := d.check(ctx, who, password, from)
	switch {
	case err != nil:
		return nil, err
	case reason != "":
		settle = attempt.fail
		d.failed(reason, realm, who, from)
		return nil, LoginFailed()
	}
	settle = attempt.pass
	return d.upgrade(ctx, from, who.record, password), nil
}

// claimed is whom a log-in names: how his failures count, and his account if
// there is one.
type claimed struct {
	target

	record *Account
}

// id returns the account's identifier, zero if there is none.
func (c *claimed) id() api.ID {
	if c.record == nil {
		return api.ID{}
	}
	return c.record.ID
}

// lookup reads an account and where it logs in from. For a name that does not
// exist it does the same work. A text that cannot be a user name is one that
// does not exist.
func (d *Directory) lookup(ctx context.Context, realm, username string, from netip.Addr) (claimed, error) {
	canonical, err := Canonical(username)
	if err != nil {
		return claimed{target: target{name: Key(realm, username)}}, nil //nolint:nilerr // answered like any unknown name
	}
	who := claimed{target: target{name: Key(realm, canonical)}}
	item, err := d.store.Get(ctx, who.name)
	switch {
	case err == nil:
		a, err := Decode(item)
		if err != nil {
			return claimed{}, err
		}
		if !a.Dropped {
			who.record, who.account, who.policy = a, a.tallyID(), policyOf(a)
		}
	case !errors.Is(err, store.ErrNotFound):
		return claimed{}, fmt.Errorf("account: verify: %w", err)
	}
	known, err := d.sources(ctx, sourceKey(realm, canonical), who.id())
	if err != nil {
		return claimed{}, err
	}
	who.familiar = isFamiliar(known, network.Of(from), dayOf(clock.Sure(d.clock)))
	return who, nil
}

// check does the same work whether there is an account or none: one hash. It
// returns why the log-in fails, or "". An error means that nothing was checked.
func (d *Directory) check(ctx context.Context, who claimed, password api.Secret, from netip.Addr) (reason string, err error) {
	var phc api.Secret
	reason = reasonUnknown
	if who.record != nil {
		phc, reason = who.record.PasswordHash, reasonPassword
	}
	prepared, err := prepare(password)
	if err != nil {
		phc = api.Secret{} // it is no account's password
	}
	match, err := d.hasher.Verify(ctx, Lane{Familiar: who.familiar, Network: network.Of(from)}, prepared, phc)
	switch {
	case err != nil:
		return "", err
	case match:
		return who.record.barred(d.clock.Now(), network.Clean(from)), nil
	}
	return reason, nil
}

func (d *Directory) failed(reason, realm string, who claimed, from netip.Addr) {
	f := failure{reason: reason, realm: realm, address: network.Clean(from)}
	if who.record != nil {
		f.key = who.name
	}
	d.failures.add(f, 1)
}

// FlushFailures writes the failed log-ins since the last time as events, summed
// up by account and address, and the counters that they have moved. It is called
// every few seconds and at the end.
func (d *Directory) FlushFailures(ctx context.Context) error {
	return errors.Join(d.failures.flush(ctx, d.store, d.clock), d.throttle.flush(ctx, d.store))
}

// LoginFailed is the one answer to every log-in that is refused, whatever the cause.
func LoginFailed() *api.Error {
	return api.Errorf(api.LoginFailed, "the log-in was refused: the user name or the password is wrong, or the account may not log in")
}

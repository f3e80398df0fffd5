// Package account holds who may log in: accounts, their roles and permissions,
// their passwords, and what slows guessing down.
//
// # Names
//
// An account is a realm and a user name. Canonical gives the one form of a name
// that the key of its record, the counters of failures and every comparison
// use, so that no spelling of a name meets another account, counter or limit.
//
// # Log-in
//
// Directory.Verify is the one way to check a password. It charges the attempt
// before it looks at the password and takes the charge back if nothing was
// checked, so parallel guesses cannot outrun the count. An unknown name, a wrong
// password, a disabled account and one without a password cost the same work
// and get the same answer. The work is done by the few workers of a Hasher,
// whose queue is bounded; when it is full the answer is "overloaded" at once.
//
// # Records
//
// The key is Key(realm, canonical). The value is a byte of format version and
// then JSON, read strictly: a record with a member that this program does not
// know was written by a newer one and is refused, because rewriting it would
// lose that member. Whoever adds a member raises the version and reads the
// older ones too.
package account

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/network"
	"sessiond/internal/wire"
	"sessiond/store"
)

// Account is one who may have sessions. It is a value of its reader: changing it
// changes nothing until Put is committed under Cond.
type Account struct {
	ID          api.ID    // never comes back after a drop
	Realm       string    //
	Username    string    // as it was created, for display
	Canonical   string    // see Canonical
	Description string    //
	Metadata    Metadata  // what applications keep with it
	Roles       []RoleRef // given directly; those of the realm come on top
	Created     time.Time //

	PasswordHash    api.Secret // PHC string; zero: no password fits (a trusted realm)
	PasswordChanged time.Time  // zero without a password
	PasswordSerial  uint64     // counts the passwords that it has had; hashing one anew does not
	OneTimeUntil    time.Time  // until then the password is good, once, to set another one; zero: it is an ordinary one

	Settings

	Dropped bool // what remains of an account is its identifier, so that its sessions are known to be dead
	Epoch   Epoch
	Rev     store.Rev // of the record as read, 0 before it is stored; not part of the value
}

// Settings are the rules of an account: what a clone of it has too.
type Settings struct {
	Disabled           bool           // refuses log-ins
	EnableAt           time.Time      // refuses log-ins before; zero: none
	DisableAt          time.Time      // refuses log-ins, and ends sessions, from then on; zero: none
	LockoutAfter       int            // consecutive failures that lock a lane of log-ins; 0: the built-in back-off
	LockoutMinutes     int            // for how long; 0: defaultLockoutMinutes
	PasswordMaxDays    int            // age at which the password must be changed; 0: none
	LoginWithinMinutes int            // without a log-in for so long none is taken; 0: no matter
	LastLogin          time.Time      // noted while LoginWithinMinutes is set, or when that was set
	AllowedAddresses   []netip.Prefix // from where it may be used; none: from anywhere
}

// An Authority returns the conditions under which a change may be committed that
// somebody asked for, or why it may not any more. It is asked before each try. The
// nil Authority is the server's own.
type Authority func(ctx context.Context) ([]store.Cond, error)

// Conds returns the conditions, of which the server's own authority has none.
func (may Authority) Conds(ctx context.Context) ([]store.Cond, error) {
	if may == nil {
		return nil, nil
	}
	return may(ctx)
}

// Metadata is what applications keep with an account: any JSON values by name.
type Metadata map[string]wire.Raw

// SizeOf returns the size of m as JSON, in bytes.
func SizeOf(m Metadata) int {
	text, err := wire.Marshal(m)
	if err != nil {
		return math.MaxInt
	}
	return len(text)
}

// KeyPrefix begins the key of every account's record.
const KeyPrefix = "acct/"

// Key returns the key of an account's record. Names of realms hold no colon.
func Key(realm, canonical string) string { return KeyPrefix + realm + ":" + canonical }

// Key returns the key of the account's record.
func (a *Account) Key() string { return Key(a.Realm, a.Canonical) }

// Cond holds while the record is as it was read, or does not exist if it was
// never stored.
func (a *Account) Cond() store.Cond { return store.Cond{Key: a.Key(), Rev: a.Rev} }

// Put writes the record. It goes into a commit together with Cond.
func (a *Account) Put() (store.Put, error) {
	value, err := encode(a)
	if err != nil {
		return store.Put{}, fmt.Errorf("account: encode: %w", err)
	}
	return store.Put{Key: a.Key(), Value: value}, nil
}

// Decode reads a record. An error wraps store.ErrCorrupt.
func Decode(item store.Item) (*Account, error) {
	a, err := decode(item.Value)
	if err != nil {
		return nil, fmt.Errorf("%w: account record: %w", store.ErrCorrupt, err)
	}
	if a.Key() != item.Key {
		return nil, fmt.Errorf("%w: account record: it stands under the key of another", store.ErrCorrupt)
	}
	a.Rev = item.Rev
	return a, nil
}

// SetPassword replaces the password. With oneTimeUntil it is good until then, and
// only to set another one. Who commits it ends the account's temporary sessions.
func (a *Account) SetPassword(hash api.Secret, at, oneTimeUntil time.Time) {
	a.PasswordHash, a.PasswordChanged, a.OneTimeUntil = hash, at, oneTimeUntil
	a.PasswordSerial++
}

// MustChange reports whether the password is good only to set another one.
func (a *Account) MustChange(now time.Time) bool {
	return !a.OneTimeUntil.IsZero() || a.PasswordMaxDays > 0 && !now.Before(a.PasswordChanged.AddDate(0, 0, a.PasswordMaxDays))
}

// Active reports whether the account may have sessions at a moment.
func (a *Account) Active(now time.Time) bool {
	return !a.Dropped && !a.Disabled && !now.Before(a.EnableAt) && (a.DisableAt.IsZero() || now.Before(a.DisableAt))
}

// Lapsed reports whether the account's time was over at a moment, to the second:
// its sessions died at DisableAt, if nothing else had ended them.
func (a *Account) Lapsed(now time.Time) bool {
	return !a.DisableAt.IsZero() && a.DisableAt.Unix() <= now.Unix()
}

// AllowsFrom reports whether the account may be used from an address. One that is
// not known is none of those that are allowed.
func (a *Account) AllowsFrom(from netip.Addr) bool {
	from = network.Clean(from)
	return len(a.AllowedAddresses) == 0 || slices.ContainsFunc(a.AllowedAddresses, func(p netip.Prefix) bool { return p.Contains(from) })
}

// barred says why a log-in with the right password is refused, or "".
func (a *Account) barred(now time.Time, from netip.Addr) string {
	switch {
	case !a.Active(now):
		return reasonDisabled
	case !a.OneTimeUntil.IsZero() && !now.Before(a.OneTimeUntil):
		return reasonOneTime
	case a.LoginWithinMinutes > 0 && now.After(a.LastLogin.Add(time.Duration(a.LoginWithinMinutes)*time.Minute)):
		return reasonInactive
	case !a.AllowsFrom(from):
		return reasonAddress
	}
	return ""
}

// NoteLogin notes a log-in where that matters, not more often than it does. It
// reports whether the record is to be written.
func (a *Account) NoteLogin(now time.Time) bool {
	within := time.Duration(a.LoginWithinMinutes) * time.Minute
	if within == 0 || now.Sub(a.LastLogin) < within/16 {
		return false
	}
	a.LastLogin = now
	return true
}

// Drop leaves of the account what is needed to know that its sessions are dead.
func (a *Account) Drop() {
	*a = Account{ID: a.ID, Realm: a.Realm, Username: a.Username, Canonical: a.Canonical, Created: a.Created, Dropped: true, Epoch: a.Epoch, Rev: a.Rev}
}

// Clone returns a copy that shares nothing with a.
func (a *Account) Clone() *Account {
	c := *a
	c.Roles = slices.Clone(a.Roles)
	c.Metadata = maps.Clone(a.Metadata)
	c.AllowedAddresses = slices.Clone(a.AllowedAddresses)
	return &c
}

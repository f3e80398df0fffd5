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
	"fmt"
	"slices"
	"time"

	"sessiond/internal/api"
	"sessiond/store"
)

// Account is one who may have sessions. It is a value of its reader: changing it
// changes nothing until Put is committed under Cond.
type Account struct {
	ID              api.ID     // never comes back after a drop
	Realm           string     //
	Username        string     // as it was created, for display
	Canonical       string     // see Canonical
	Description     string     //
	Roles           []string   // given directly; those of the realm come on top
	PasswordHash    api.Secret // PHC string; zero: no password fits (a trusted realm)
	PasswordChanged time.Time  // zero without a password
	Created         time.Time  //
	Disabled        bool       // refuses log-ins
	Epoch           Epoch      //
	Rev             store.Rev  // of the record as read, 0 before it is stored; not part of the value
}

// Epoch ends many sessions in one write: a session remembers the number it was
// created under and is dead when the account's differs.
type Epoch struct {
	Temporary uint64 // remembered by temporary sessions
	All       uint64 // remembered by permanent sessions
	Why       Why    // of the last rise
}

// Why says what an epoch ended its sessions for: their tombstones are written
// later.
type Why struct {
	At     time.Time
	Reason string
	By     string // handle of the session that did it, as the wire has it; empty: the server
}

// For returns the number that a session of the given kind remembers.
func (e *Epoch) For(permanent bool) uint64 {
	if permanent {
		return e.All
	}
	return e.Temporary
}

// EndTemporary ends the temporary sessions and spares the permanent ones.
func (e *Epoch) EndTemporary() { e.Temporary++ }

// EndAll ends every session.
func (e *Epoch) EndAll() {
	e.Temporary++
	e.All++
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

// SetPassword replaces the password and ends the account's temporary sessions;
// a caller that spares itself takes the new epoch over in the same commit.
func (a *Account) SetPassword(hash api.Secret, at time.Time) {
	a.PasswordHash, a.PasswordChanged = hash, at
	a.Epoch.EndTemporary()
	a.Epoch.Why = Why{At: at, Reason: reasonNewPassword}
}

const reasonNewPassword = "passwordChanged"

// Clone returns a copy that shares nothing with a.
func (a *Account) Clone() *Account {
	c := *a
	c.Roles = slices.Clone(a.Roles)
	return &c
}

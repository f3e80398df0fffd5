package account

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/event"
	"sessiond/store"
)

// Deps are what a Directory works with.
type Deps struct {
	Store    store.Store
	Clock    clock.Clock
	Hasher   *Hasher   // closed by who made it
	Throttle *Throttle // nil: a new one
	Rand     io.Reader // for identifiers; nil: crypto/rand

	PasswordWords func() []string // what passwords must not be made of, besides what is built in; nil: nothing
}

// Directory finds, checks and creates accounts. Errors that are no *api.Error
// come from the store and wrap its errors.
type Directory struct {
	store    store.Store
	clock    clock.Clock
	hasher   *Hasher
	throttle *Throttle
	rand     io.Reader
	failures *failureLog
	roles    *Roles
	admins   administrators
	words    func() []string
}

// New returns a Directory. It panics if Store, Clock or Hasher is missing.
func New(d Deps) *Directory {
	if d.Store == nil || d.Clock == nil || d.Hasher == nil {
		panic("account: New needs a Store, a Clock and a Hasher")
	}
	if d.Throttle == nil {
		d.Throttle = NewThrottle(d.Clock)
	}
	if d.Rand == nil {
		d.Rand = rand.Reader
	}
	if d.PasswordWords == nil {
		d.PasswordWords = func() []string { return nil }
	}
	return &Directory{
		store: d.Store, clock: d.Clock, hasher: d.Hasher, throttle: d.Throttle, rand: d.Rand, failures: newFailureLog(), roles: NewRoles(),
		admins: administrators{keys: map[string]bool{}}, words: d.PasswordWords,
	}
}

// Find returns an account. Errors: NotFound; BadParam for what cannot be a user
// name.
func (d *Directory) Find(ctx context.Context, realm, username string) (*Account, error) {
	a, err := d.Named(ctx, realm, username)
	if err == nil && (a == nil || a.Dropped) {
		return nil, api.Errorf(api.NotFound, "there is no such account")
	}
	return a, err
}

// Named returns the account that has a name, or had it last: a dropped one too,
// as long as something of it is kept. It is nil if there is none. Errors: BadParam
// for what cannot be a user name.
func (d *Directory) Named(ctx context.Context, realm, username string) (*Account, error) {
	canonical, err := Canonical(username)
	if err != nil {
		return nil, err
	}
	return d.at(ctx, Key(realm, canonical))
}

// at returns the account under a key, dropped ones too; nil if there never was
// one.
func (d *Directory) at(ctx context.Context, key string) (*Account, error) {
	item, err := d.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("account: find: %w", err)
	}
	return Decode(item)
}

// NewAccount is what an account is created from.
type NewAccount struct {
	Realm        string
	Username     string
	Roles        []string
	Password     api.Secret     // zero: nobody can log in with a password
	OneTimeUntil time.Time      // of Password, as in Account
	Set          func(*Account) // sets what else there is; nil: nothing
	If           []store.Cond   // further conditions
	May          Authority
}

// Create stores a new account and its event. Errors: AlreadyExists,
// PasswordPolicy, BadParam for the user name or a role, Overloaded.
func (d *Directory) Create(ctx context.Context, by event.Actor, n NewAccount) (*Account, error) {
	a, err := d.Fresh(ctx, n.Realm, n.Username, n.Roles)
	if err != nil {
		return nil, err
	}
	if n.Set != nil {
		n.Set(a)
	}
	if !n.Password.IsZero() {
		hash, err := d.NewHash(ctx, n.Realm, n.Username, n.Password)
		if err != nil {
			return nil, err
		}
		a.SetPassword(hash, a.Created, n.OneTimeUntil)
	}
	put, err := a.Put()
	if err != nil {
		return nil, err
	}
	may, err := n.May.Conds(ctx)
	if err != nil {
		return nil, err
	}
	tx := store.Tx{If: slices.Concat([]store.Cond{a.Cond()}, n.If, may), Put: []store.Put{put}}
	created := event.Event{Time: a.Created, Kind: event.AccountCreated, AccountID: a.ID.String(), Realm: a.Realm, Username: a.Username, By: by}
	event.Append(&tx, created)
	a.Rev, err = d.store.Commit(ctx, tx)
	if errors.Is(err, store.ErrConflict) {
		if _, found := d.Find(ctx, n.Realm, n.Username); found == nil {
			return nil, alreadyExists()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("account: create: %w", err)
	}
	return a, nil
}

func alreadyExists() *api.Error {
	return api.Errorf(api.AlreadyExists, "an account of this user name, in some spelling, exists in the realm")
}

// Fresh returns a new account without a password that is not stored yet: its
// Cond says that no such account exists. Errors: AlreadyExists, BadParam for the
// user name or a role.
func (d *Directory) Fresh(ctx context.Context, realm, username string, roles []string) (*Account, error) {
	canonical, err := Canonical(username)
	if err != nil {
		return nil, err
	}
	refs, err := d.refs(roles)
	if err != nil {
		return nil, err
	}
	old, err := d.at(ctx, Key(realm, canonical))
	if err != nil {
		return nil, err
	}
	var rev store.Rev
	var epoch Epoch
	if old != nil {
		if rev = old.Rev; !old.Dropped {
			return nil, alreadyExists()
		}
		epoch = old.Epoch // what ended the sessions of that one is not forgotten with it
		epoch.Inherited = true
	}
	id, err := d.newID()
	if err != nil {
		return nil, err
	}
	return &Account{ID: id, Realm: realm, Username: username, Canonical: canonical, Roles: refs, Created: d.clock.Now(), Epoch: epoch, Rev: rev}, nil
}

// newID returns an identifier that nothing else has.
func (d *Directory) newID() (api.ID, error) {
	var random [10]byte
	if _, err := io.ReadFull(d.rand, random[:]); err != nil {
		return api.ID{}, fmt.Errorf("account: make an identifier: %w", err)
	}
	return api.NewID(d.clock.Now(), random), nil
}

// Hash returns the PHC string of a password, whether or not it was prepared by
// CheckPassword. It does not apply the policy. Errors: Overloaded,
// ShuttingDown, PasswordPolicy for what can be no password.
func (d *Directory) Hash(ctx context.Context, password api.Secret) (api.Secret, error) {
	prepared, err := prepare(password)
	if err != nil {
		return api.Secret{}, api.Errorf(api.PasswordPolicy, "a password consists of printable characters and spaces (RFC 8265), at most %d bytes", MaxPassword)
	}
	return d.hasher.Hash(ctx, Lane{Familiar: true}, prepared)
}

// NewHash returns the PHC string of what is to become the password of an account.
// Errors: PasswordPolicy, Overloaded, ShuttingDown.
func (d *Directory) NewHash(ctx context.Context, realm, username string, password api.Secret) (api.Secret, error) {
	prepared, refusal := PasswordPolicy{Words: d.words()}.Check(realm, username, password)
	if refusal != nil {
		return api.Secret{}, refusal
	}
	return d.Hash(ctx, prepared)
}

// The most that List returns at once.
const (
	MaxPage      = 1000    // accounts
	maxPageBytes = 4 << 20 // of their records, about
)

// List returns the accounts of a realm whose canonical names begin with one of
// the prefixes, or all if there is none, ordered by canonical name: those after
// the given one, at most limit (0 means MaxPage). next goes into after for the
// next page and is "" on the last. Where accounts were dropped, or are large, a
// page may hold fewer, or none, and have a next one. Pages are no snapshot.
// Errors: BadParam for a prefix that can begin no user name.
func (d *Directory) List(ctx context.Context, realm string, prefixes []string, after string, limit int) (page []*Account, next string, err error) {
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	if len(after) > MaxUsername {
		return nil, "", api.Errorf(api.BadParam, "the cursor is malformed")
	}
	prefixes, err = disjoint(prefixes)
	if err != nil {
		return nil, "", err
	}
	size := 0
	for _, prefix := range prefixes {
		r := store.Range{Prefix: Key(realm, prefix), Limit: 50}
		switch {
		case strings.HasPrefix(after, prefix):
			r.After = Key(realm, after)
		case after > prefix:
			continue
		}
		for {
			items, err := d.store.List(ctx, r)
			if err != nil {
				return nil, "", fmt.Errorf("account: list: %w", err)
			}
			for _, item := range items {
				if len(page) == limit || size > maxPageBytes {
					return endOf(page)
				}
				a, err := Decode(item)
				if err != nil {
					return nil, "", err
				}
				page, size, r.After = append(page, a), size+len(item.Value), item.Key
			}
			if len(items) < r.Limit {
				break
			}
		}
	}
	return living(page), "", nil
}

// endOf returns a page that has a next one.
func endOf(page []*Account) ([]*Account, string, error) {
	next := page[len(page)-1].Canonical // of a dropped one, perhaps
	return living(page), next, nil
}

func living(page []*Account) []*Account {
	return slices.DeleteFunc(page, func(a *Account) bool { return a.Dropped })
}

// disjoint returns canonical prefixes in ascending order, of which none begins
// with another.
func disjoint(prefixes []string) ([]string, error) {
	if len(prefixes) == 0 || slices.Contains(prefixes, "") {
		return []string{""}, nil
	}
	var all []string
	for _, prefix := range prefixes {
		canonical, err := CanonicalPrefix(prefix)
		if err != nil {
			return nil, err
		}
		all = append(all, canonical)
	}
	slices.Sort(all)
	list := all[:1]
	for _, prefix := range all[1:] {
		if !strings.HasPrefix(prefix, list[len(list)-1]) {
			list = append(list, prefix)
		}
	}
	return list, nil
}

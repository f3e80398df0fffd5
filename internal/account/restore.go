package account

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/wire"
	"sessiond/store"
)

// A restored backup must not give back what was taken away since. What a change left
// of an account or a role is noted in the journal of revocations, by Left; Recall
// takes it away again. It only ever takes: nobody gains anything by a line of the
// journal, whoever wrote it.

// standing is what a change left. It holds no secret.
type standing struct {
	Account *accountStanding `json:"account,omitzero"`
	Role    *roleStanding    `json:"role,omitzero"`
}

type accountStanding struct {
	Disabled         bool           `json:"disabled,omitzero"`
	EnableAt         time.Time      `json:"enableAt,omitzero"`
	DisableAt        time.Time      `json:"disableAt,omitzero"`
	AllowedAddresses []netip.Prefix `json:"allowedAddresses,omitzero"`
	Roles            []string       `json:"roles,omitzero"`
	EpochAll         uint64         `json:"epochAll,omitzero"`
	PasswordSerial   uint64         `json:"passwordSerial,omitzero"`
}

type roleStanding struct {
	ID          string   `json:"id"`
	Permissions []string `json:"permissions,omitzero"`
}

// Left returns what is left of the account or role of an event, as JSON; nil where the
// event says it all.
func Left(ctx context.Context, s store.Store, e *event.Event) ([]byte, error) {
	var left standing
	switch e.Kind {
	case event.RoleAltered:
		item, err := s.Get(ctx, roleKeys+e.Role)
		if errors.Is(err, store.ErrNotFound) {
			return nil, nil // its drop has an event too
		}
		if err != nil {
			return nil, err
		}
		role, err := decodeRole(item)
		if err != nil {
			return nil, err
		}
		left.Role = &roleStanding{ID: role.ID.String(), Permissions: role.Permissions}
	case event.AccountAltered, event.PasswordChanged, event.AccountSessionsEnded:
		a, err := named(ctx, s, e)
		if err != nil || a == nil || a.Dropped {
			return nil, err
		}
		left.Account = a.standing()
	default:
		return nil, nil
	}
	return wire.Marshal(left)
}

// named returns the account that an event is about, nil if there is none any more.
func named(ctx context.Context, s store.Store, e *event.Event) (*Account, error) {
	canonical, err := Canonical(e.Username)
	if err != nil {
		return nil, err
	}
	item, err := s.Get(ctx, Key(e.Realm, canonical))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("account: find: %w", err)
	}
	a, err := Decode(item)
	if err != nil || a.ID.String() != e.AccountID {
		return nil, err
	}
	return a, nil
}

func (a *Account) standing() *accountStanding {
	s := &accountStanding{
		Disabled: a.Disabled, EnableAt: a.EnableAt, DisableAt: a.DisableAt, AllowedAddresses: a.AllowedAddresses,
		EpochAll: a.Epoch.All, PasswordSerial: a.PasswordSerial,
	}
	for _, ref := range a.Roles {
		s.Roles = append(s.Roles, ref.String())
	}
	return s
}

// Recalled is what Recall took away.
type Recalled struct {
	Accounts []RecalledAccount
	Roles    []string // names of roles that lost permissions, or are gone
}

// RecalledAccount is an account that lost something.
type RecalledAccount struct {
	Realm    string   `json:"realm"`
	Username string   `json:"username"`
	Lost     []string `json:"lost"` // as Event.Changed has them, and "sessions"
	Dropped  bool     `json:"dropped,omitzero"`
}

// What an account loses, beside the names of its settings.
const (
	lostEnabled  = "enabled"
	lostPassword = "password"
	lostSessions = "sessions"
)

// Recall takes away from the accounts and roles of a restored backup what the journal
// knows that they lost since. Nobody else uses the store.
func Recall(ctx context.Context, s store.Store, now time.Time, journal []event.Revocation) (Recalled, error) {
	last := map[string]*event.Revocation{} // by account, and by name of a role
	var order []string
	dropped := map[string]bool{}
	for i := range journal {
		r := &journal[i]
		var key string
		switch r.Event.Kind {
		case event.AccountAltered, event.PasswordChanged, event.AccountSessionsEnded, event.AccountDropped:
			key = r.Event.AccountID
		case event.RoleAltered, event.RoleDropped:
			key = roleKeys + r.Event.Role
		default:
			continue
		}
		if last[key] == nil {
			order = append(order, key)
		}
		last[key] = r
		dropped[key] = dropped[key] || r.Event.Kind == event.AccountDropped || r.Event.Kind == event.RoleDropped
	}
	var all Recalled
	for _, key := range order {
		var err error
		if strings.HasPrefix(key, roleKeys) {
			err = all.role(ctx, s, now, last[key], dropped[key])
		} else {
			err = all.account(ctx, s, now, last[key], dropped[key])
		}
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

func (all *Recalled) role(ctx context.Context, s store.Store, now time.Time, r *event.Revocation, dropped bool) error {
	item, err := s.Get(ctx, roleKeys+r.Event.Role)
	if errors.Is(err, store.ErrNotFound) {
		return nil // it is younger than the backup
	}
	if err != nil {
		return err
	}
	role, err := decodeRole(item)
	if err != nil {
		return err
	}
	tx := store.Tx{If: []store.Cond{role.cond()}}
	e := event.Event{Time: now, Kind: event.RoleDropped, Role: role.Name, Reason: reasonRestored}
	if dropped || r.Left == nil { // whose drop came before what was left was asked for
		tx.Delete = []string{item.Key}
	} else {
		left, err := readLeft(r)
		if err != nil {
			return err
		}
		narrowed := narrow(role.Permissions, left.role().Permissions)
		if slices.Equal(narrowed, role.Permissions) {
			return nil
		}
		role.Permissions, role.Changed = narrowed, now
		put, err := role.put()
		if err != nil {
			return err
		}
		tx.Put = []store.Put{put}
		e.Kind, e.Changed = event.RoleAltered, []string{"permissions"}
	}
	event.Append(&tx, e)
	all.Roles = append(all.Roles, role.Name)
	_, err = s.Commit(ctx, tx)
	return err
}

func readLeft(r *event.Revocation) (left standing, err error) {
	if err := wire.Unmarshal(r.Left, &left); err != nil {
		return left, fmt.Errorf("%w: what event %d left cannot be read: %w", event.ErrJournal, r.At.Seq, err)
	}
	return left, nil
}

// role returns what was left of a role: nothing where that is not said.
func (s *standing) role() roleStanding {
	if s.Role == nil {
		return roleStanding{}
	}
	return *s.Role
}

// narrow returns the patterns of what both lists allow.
func narrow(have, left []string) []string {
	var both []string
	for _, pattern := range have {
		if Covers(left, []string{pattern}) {
			both = append(both, pattern)
		}
	}
	for _, pattern := range left {
		if !slices.Contains(both, pattern) && Covers(have, []string{pattern}) {
			both = append(both, pattern)
		}
	}
	return both
}

func (all *Recalled) account(ctx context.Context, s store.Store, now time.Time, r *event.Revocation, dropped bool) error {
	a, err := named(ctx, s, &r.Event)
	if err != nil || a == nil || a.Dropped {
		return err // it is younger than the backup
	}
	var left standing
	if r.Left != nil {
		if left, err = readLeft(r); err != nil {
			return err
		}
	}
	cond := a.Cond()
	var lost []string
	if dropped = dropped || left.Account == nil; dropped {
		lost = a.disable(now)
	} else {
		lost = a.recall(left.Account, now)
	}
	if len(lost) == 0 {
		return nil
	}
	put, err := a.Put()
	if err != nil {
		return err
	}
	tx := store.Tx{If: []store.Cond{cond}, Put: []store.Put{put}}
	event.Append(&tx, event.Event{
		Time: now, Kind: event.AccountAltered, AccountID: a.ID.String(), Realm: a.Realm, Username: a.Username, Reason: reasonRestored, Changed: lost,
	})
	all.Accounts = append(all.Accounts, RecalledAccount{Realm: a.Realm, Username: a.Username, Lost: lost, Dropped: dropped})
	_, err = s.Commit(ctx, tx)
	return err
}

// disable bars an account that was dropped, and ends all that it has. Its identifier
// must not come back, but what it was may be wanted.
func (a *Account) disable(now time.Time) (lost []string) {
	if !a.Disabled {
		a.Disabled, lost = true, append(lost, lostEnabled)
	}
	a.Epoch.Raise(true, Why{At: now, Reason: reasonDropped})
	return append(lost, lostSessions)
}

// recall takes from an account what it had lost where it was left like that, and
// returns what that is. A password that was replaced since may have been in the wrong
// hands, so it is good no more.
func (a *Account) recall(left *accountStanding, now time.Time) (lost []string) {
	took := func(name string, takes bool, take func()) {
		if takes {
			take()
			lost = append(lost, name)
		}
	}
	before := a.Clone()
	took(lostEnabled, left.Disabled && !a.Disabled, func() { a.Disabled = true })
	took("enableDatetime", left.EnableAt.After(a.EnableAt), func() { a.EnableAt = left.EnableAt })
	took("disableDatetime", !left.DisableAt.IsZero() && (a.DisableAt.IsZero() || left.DisableAt.Before(a.DisableAt)), func() { a.DisableAt = left.DisableAt })
	roles := slices.DeleteFunc(slices.Clone(a.Roles), func(ref RoleRef) bool { return !slices.Contains(left.Roles, ref.String()) })
	took("roles", len(roles) < len(a.Roles), func() { a.Roles = roles })
	addresses, none := overlap(a.AllowedAddresses, left.AllowedAddresses)
	took("allowedAddresses", !slices.Equal(addresses, a.AllowedAddresses), func() { a.AllowedAddresses = addresses })
	took(lostEnabled, none && !a.Disabled, func() { a.Disabled = true })
	took(lostPassword, left.PasswordSerial != a.PasswordSerial && !a.PasswordHash.IsZero(), func() {
		a.SetPassword(api.Secret{}, time.Time{}, time.Time{})
	})
	ended := left.EpochAll > a.Epoch.All || before.Active(now) != a.Active(now)
	took(lostSessions, ended, func() { a.Epoch.Raise(true, Why{At: now, Reason: reasonRestored}) })
	return lost
}

// overlap returns the addresses that are in both lists, of which an empty one stands
// for all; none says that there is no such address.
func overlap(some, others []netip.Prefix) (both []netip.Prefix, none bool) {
	if len(some) == 0 || len(others) == 0 {
		return append(slices.Clone(some), others...), false
	}
	for _, p := range some {
		for _, q := range others {
			if !p.Overlaps(q) {
				continue
			}
			narrower := p
			if q.Bits() > p.Bits() {
				narrower = q
			}
			if !slices.Contains(both, narrower) {
				both = append(both, narrower)
			}
		}
	}
	if both == nil {
		return some, true
	}
	return both, false
}

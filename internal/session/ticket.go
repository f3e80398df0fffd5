package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/store"
)

// Where the limit of an account is to ask, the refusal of a log-in shows which
// sessions could make room, and has a ticket: with it, and without the password, the
// log-in goes on once, and ends the one that was chosen. Tickets are kept in memory,
// as hashes.

// Bounds of tickets.
const (
	ticketSeconds = 300     // for which one is good
	maxTickets    = 1 << 16 // beyond that the oldest are forgotten first
	maxChoices    = 100     // sessions of which one can be chosen
)

// prefixTicket stands before a ticket, which has a token's form otherwise.
const prefixTicket = "sdtkt_"

// ChoiceError is the refusal of a log-in that goes on with a ticket.
type ChoiceError struct {
	Refusal  *api.Error
	Sessions []View // that may make room, the oldest first
	Ticket   api.Secret
	Until    int64 // Unix seconds for which the ticket is good
}

func (e *ChoiceError) Error() string {
	return fmt.Sprintf("%v, of %d sessions one can make room", e.Refusal, len(e.Sessions))
}

// Unwrap returns the refusal.
func (e *ChoiceError) Unwrap() error { return e.Refusal }

// A ticket stands for a password that was right.
type ticket struct {
	account api.ID
	serial  uint64 // of the password
	until   int64
	taken   bool // a log-in goes on with it, or has gone on
}

// tickets knows those that were given out. An account has one at a time.
type tickets struct {
	mu    sync.Mutex
	given map[hash]*ticket
	last  map[api.ID]hash // by account
	order []hash          // the oldest first; some are gone
}

func (t *tickets) put(h hash, entry ticket, now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.given == nil {
		t.given, t.last = map[hash]*ticket{}, map[api.ID]hash{}
	}
	delete(t.given, t.last[entry.account])
	t.given[h], t.last[entry.account] = &entry, h
	t.order = append(t.order, h)
	for len(t.order) > 0 {
		oldest, ok := t.given[t.order[0]]
		if ok && oldest.until > now && len(t.given) <= maxTickets {
			break
		}
		if ok {
			delete(t.given, t.order[0])
			delete(t.last, oldest.account)
		}
		t.order = t.order[1:]
	}
	if len(t.order) > 2*len(t.given)+64 {
		t.order = slices.DeleteFunc(t.order, func(h hash) bool { return t.given[h] == nil })
	}
}

// take returns the ticket of a hash, which is good for nobody else until it is given
// back.
func (t *tickets) take(h hash, now int64) (ticket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entry, ok := t.given[h]
	if !ok || entry.taken || entry.until <= now {
		return ticket{}, false
	}
	entry.taken = true
	return *entry, true
}

// giveBack makes a ticket good again, unless the account has a newer one.
func (t *tickets) giveBack(h hash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if entry, ok := t.given[h]; ok {
		entry.taken = false
	}
}

// ask makes a refusal for the limit of an account one that goes on with a ticket,
// if there is a session that may make room.
func (k *Keeper) ask(ctx context.Context, a *account.Account, refusal *api.Error) error {
	var candidates []Live
	for _, live := range k.table.ofAccount(a.ID, false, k.now()) {
		if !live.Permanent && len(candidates) < maxChoices {
			candidates = append(candidates, live)
		}
	}
	views, err := k.Views(ctx, candidates)
	if err != nil {
		return err
	}
	if len(views) == 0 {
		return refusal
	}
	id, err := k.newHandle()
	if err != nil {
		return err
	}
	secret, err := newToken(prefixTicket, id, k.random)
	if err != nil {
		return err
	}
	now := k.now()
	k.tickets.put(hashOf(secret.Reveal()), ticket{account: a.ID, serial: a.PasswordSerial, until: now + ticketSeconds}, now)
	return &ChoiceError{Refusal: refusal, Sessions: views, Ticket: secret, Until: now + ticketSeconds}
}

// redeem returns the account of a ticket's log-in, which takes the place of the
// session that was chosen. undo makes the ticket good again.
func (k *Keeper) redeem(ctx context.Context, n *NewSession) (a *account.Account, undo func(), err error) {
	keep := func() {}
	h := hashOf(n.Ticket.Reveal())
	entry, ok := k.tickets.take(h, k.now())
	if !ok {
		return nil, keep, deadTicket()
	}
	undo = func() { k.tickets.giveBack(h) }
	a, err = k.accounts.Find(ctx, n.Realm.Name, n.Username)
	if _, none := errors.AsType[*api.Error](err); none || err == nil && a.ID != entry.account {
		undo()
		return nil, keep, deadTicket()
	}
	if err != nil {
		undo()
		return nil, keep, err
	}
	if a.PasswordSerial != entry.serial || !a.Active(k.clock.Now()) || !a.AllowsFrom(n.Address) {
		return nil, keep, deadTicket()
	}
	v, err := k.Find(ctx, Reach{Account: a.ID}, n.Choice)
	if errors.Is(err, store.ErrNotFound) || err == nil && v.Permanent {
		err = api.Errorf(api.NotFound, "the account has no such session: choose one of those that the refusal listed").At("/params/endSessionHandle")
	}
	if err != nil {
		undo()
		return nil, keep, err
	}
	return a, undo, nil
}

// keepsTicket reports whether a log-in failed so that its ticket is good still:
// nothing was changed, and there is no newer one.
func (c *creation) keepsTicket(err error) bool {
	_, again := errors.AsType[*ChoiceError](err)
	return err != nil && !again && !c.committed
}

func deadTicket() *api.Error {
	return api.Errorf(api.LoginFailed, "the ticket is no longer good, or is not this account's: send the log-in again with the password").At("/params/ticket")
}

package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

// Here is what ends many sessions in one write, by raising an epoch. What ends
// them is decided in one place: an account that changes (AlterAccount), or an
// operator (EndAccount, EndEverywhere).

// EndAccount ends an account's sessions: the temporary ones, or with permanent
// all. It returns how many living sessions that ended.
func (k *Keeper) EndAccount(ctx context.Context, realm, username string, permanent bool, c *AccountChange) (ended int, err error) {
	ending := endsTemporary
	if permanent {
		ending = endsAll
	}
	_, ended, err = k.changeAccount(ctx, realm, username, c, ending)
	return ended, err
}

// DropAccounts drops accounts of a realm in one commit, with all that they have. It
// returns their names, which of the names given are none of an account's, and how
// many living sessions that ended. change.Change refuses an account; of the rest only
// By and May are looked at.
func (k *Keeper) DropAccounts(ctx context.Context, realm string, usernames []string, change *AccountChange) (dropped []string, missing []int, ended int, err error) {
	err = store.Retry(func() error {
		dropped, missing, ended, err = k.dropAccounts(ctx, realm, usernames, change)
		return err
	})
	return dropped, missing, ended, err
}

func (k *Keeper) dropAccounts(ctx context.Context, realm string, usernames []string, change *AccountChange) (dropped []string, missing []int, ended int, err error) {
	var before, after []*account.Account
	dropped = []string{}
	for i, username := range usernames {
		at := fmt.Sprintf("/params/usernames/%d", i)
		a, err := k.accounts.Find(ctx, realm, username)
		if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.NotFound {
			missing = append(missing, i)
			continue
		}
		if err == nil {
			err = change.Change(a)
		}
		if e, ok := errors.AsType[*api.Error](err); ok {
			return nil, nil, 0, e.At(at)
		}
		if err != nil {
			return nil, nil, 0, err
		}
		if slices.ContainsFunc(before, func(other *account.Account) bool { return other.ID == a.ID }) {
			continue
		}
		before, dropped = append(before, a.Clone()), append(dropped, a.Username)
		a.Drop()
		after = append(after, a)
	}
	witness, err := k.accounts.KeepsAdministrator(ctx, before, after)
	if err != nil || len(after) == 0 {
		return dropped, missing, 0, err
	}
	may, err := change.May.Conds(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	tx := store.Tx{If: append(may, witness...), Urgent: true}
	for i, a := range after {
		k.raise(before[i], a, change, endsAll)
		n, err := k.endOld(ctx, &tx, before[i], a, &AccountChange{})
		if err != nil {
			return nil, nil, 0, err
		}
		put, err := a.Put()
		if err != nil {
			return nil, nil, 0, err
		}
		ended += n
		tx.If, tx.Put = append(tx.If, before[i].Cond()), append(tx.Put, put, store.Put{Key: goneKey(k.clock.Now(), a.ID), Value: []byte(a.Key())})
		event.Append(&tx, event.Event{
			Time: k.clock.Now(), Kind: event.AccountDropped, AccountID: a.ID.String(), Realm: a.Realm, Username: a.Username, Count: int64(n), By: change.By,
		})
	}
	_, err = k.store.Commit(ctx, tx)
	return dropped, missing, ended, err
}

// ends is which sessions of an account a change ends.
type ends uint8

const (
	endsNone ends = iota
	endsTemporary
	endsAll
)

// An AccountChange changes an account, or ends its sessions, or both.
type AccountChange struct {
	Change func(*account.Account) error // nil: none; may be called more than once
	Spare  *Caller                      // the account's own session that lives on; nil: none
	Reason string                       // of the ends, if there are any; empty: what follows from the change
	By     event.Actor
	May    account.Authority
	Event  event.Event // what is logged; who it is about is filled in
}

// AlterAccount changes an account in one commit, and ends those of its sessions
// that the change ends: a new password the temporary ones, whatever bars the
// account from log-ins all of them, keys too. It returns the account as it is then
// and how many living sessions that ended. Errors: NotFound; Conflict where no
// administrator would be left; InvalidAuthToken for a session to be spared that
// lives no longer.
func (k *Keeper) AlterAccount(ctx context.Context, realm, username string, c *AccountChange) (a *account.Account, ended int, err error) {
	return k.changeAccount(ctx, realm, username, c, endsNone)
}

func (k *Keeper) changeAccount(ctx context.Context, realm, username string, c *AccountChange, ending ends) (a *account.Account, ended int, err error) {
	err = store.Retry(func() error {
		a, err = k.accounts.Find(ctx, realm, username)
		if err == nil {
			ended, err = k.alterAccount(ctx, a, c, ending)
		}
		return err
	})
	return a, ended, err
}

func (k *Keeper) alterAccount(ctx context.Context, a *account.Account, c *AccountChange, ending ends) (ended int, err error) {
	before := a.Clone()
	if c.Change != nil {
		if err := c.Change(a); err != nil {
			return 0, err
		}
	}
	witness, err := k.accounts.KeepsAdministrator(ctx, []*account.Account{before}, []*account.Account{a})
	if err != nil {
		return 0, err
	}
	may, err := c.May.Conds(ctx)
	if err != nil {
		return 0, err
	}
	tx := store.Tx{If: slices.Concat([]store.Cond{before.Cond()}, may, witness)}
	k.raise(before, a, c, ending)
	if tx.Urgent = a.Epoch.Temporary != before.Epoch.Temporary; tx.Urgent {
		if ended, err = k.endOld(ctx, &tx, before, a, c); err != nil {
			return 0, err
		}
	}
	put, err := a.Put()
	if err != nil {
		return 0, err
	}
	if old, err := before.Put(); err == nil && bytes.Equal(old.Value, put.Value) {
		return 0, nil // nothing is to be changed
	}
	tx.Put = append(tx.Put, put)
	e := c.Event
	e.Time, e.AccountID, e.Realm, e.Username, e.By, e.Count = k.clock.Now(), a.ID.String(), a.Realm, a.Username, c.By, int64(ended)
	e.Reason = c.Reason
	event.Append(&tx, e)
	if a.PasswordSerial != before.PasswordSerial && e.Kind != event.PasswordChanged {
		e.Kind, e.Changed, e.Count = event.PasswordChanged, nil, 0
		event.Append(&tx, e)
	}
	marked := c.Change == nil && k.markOld(before, a, c)
	if a.Rev, err = k.store.Commit(ctx, tx); marked {
		err = notWritten(err)
	}
	return ended, err
}

// raise raises the epochs of an account as its change wants it. One that may have
// sessions again gets none of its old ones back. Of an account whose time is over
// each rise says so: it ends nobody, and moves or removes DisableAt, perhaps.
func (k *Keeper) raise(before, a *account.Account, c *AccountChange, ending ends) {
	now := time.Unix(k.now(), 0)
	lapsed := before.Lapsed(now)
	reason := c.Reason
	switch {
	case a.Dropped:
		ending, reason = endsAll, ReasonAccountDropped
	case before.Active(now) != a.Active(now), lapsed && !a.DisableAt.Equal(before.DisableAt):
		ending, reason = endsAll, ReasonAccountDisabled
	case a.PasswordSerial != before.PasswordSerial && ending == endsNone:
		ending, reason = endsTemporary, ReasonPasswordChanged
	}
	if ending == endsNone {
		return
	}
	why := account.Why{At: k.moment(), Reason: reason, By: c.By.SessionHandle}
	if lapsed {
		ending, why = endsAll, account.Why{At: before.DisableAt, Reason: ReasonAccountDisabled}
	}
	if k.table.isSettled(before, k.now()) {
		a.Epoch.Forget()
	}
	a.Epoch.Raise(ending == endsAll, why)
}

// moment is the time at which an epoch rises: after all that rose before, so that
// it can be told what was first.
func (k *Keeper) moment() time.Time {
	now := k.clock.Now().UTC()
	if latest := k.now(); latest != now.Unix() { // the clock went back
		now = time.Unix(latest, 0).UTC()
	}
	return k.table.nextRise(now)
}

// endOld counts the sessions that the new epoch of an account ends, and takes the
// one that is spared over into it.
func (k *Keeper) endOld(ctx context.Context, tx *store.Tx, before, a *account.Account, c *AccountChange) (ended int, err error) {
	spared := false
	for _, live := range k.table.ofAccount(a.ID, true, k.now()) {
		switch {
		case before.Epoch.For(live.Permanent) == a.Epoch.For(live.Permanent):
		case c.Spare == nil || live.Handle != c.Spare.Handle:
			ended++
		default:
			ok, err := k.spare(ctx, tx, live, func(r *Record) bool {
				was := r.Epochs.Account
				r.Epochs.Account = a.Epoch.For(r.Permanent)
				return was == before.Epoch.For(r.Permanent)
			})
			if err != nil {
				return 0, err
			}
			spared = spared || ok
		}
	}
	if c.Change != nil && c.Spare != nil && !spared {
		return 0, notSpared()
	}
	return ended, nil
}

// markOld marks the sessions that a new epoch of an account ends, so that they are
// dead whatever becomes of the commit, and reports whether there was one. Who asked
// is not among them: he may ask again, should it be refused.
func (k *Keeper) markOld(before, a *account.Account, c *AccountChange) (marked bool) {
	for _, live := range k.table.ofAccount(a.ID, true, k.now()) {
		ends := before.Epoch.For(live.Permanent) != a.Epoch.For(live.Permanent)
		if ends && (c.Spare == nil || live.Handle != c.Spare.Handle) && HandleText(live.Handle) != c.By.SessionHandle {
			marked = k.table.dying(live.Handle, k.now()) || marked
		}
	}
	return marked
}

// spare takes a living session over into a new epoch, in the commit that raises
// it. renew reports whether the session was of the epoch before: a dead one stays
// dead. It reports whether there is such a session still.
func (k *Keeper) spare(ctx context.Context, tx *store.Tx, live Live, renew func(*Record) bool) (bool, error) {
	r, rev, err := k.read(ctx, live.Handle)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !renew(r) {
		return false, nil
	}
	r.LastAccess = live.LastAccess
	tx.If = append(tx.If, store.Cond{Key: liveKey(r.Handle), Rev: rev}, store.Cond{Key: endKey(r.Handle)})
	tx.Put = append(tx.Put, store.Put{Key: liveKey(r.Handle), Value: r.encode()})
	return true, nil
}

func notSpared() *api.Error {
	return api.Errorf(api.InvalidAuthToken, "the authToken belongs to no live session any more: nothing was changed")
}

// EndEverywhere is how the sessions of a realm, or of the whole server, are to be
// ended.
type EndEverywhere struct {
	Realm     string // empty: the server
	Permanent bool   // API keys too
	Spare     *Caller
	Reason    string
	By        event.Actor
	DryRun    bool
}

// EndEverywhere ends the sessions of a realm or of the server in one commit,
// however many there are. It returns how many lived and were ended, and how many
// API keys were spared.
func (k *Keeper) EndEverywhere(ctx context.Context, how EndEverywhere) (ended, keysLeft int64, err error) {
	key := serverEpoch
	if how.Realm != "" {
		key = realmEpoch(how.Realm)
	}
	err = store.Retry(func() error {
		ended, keysLeft, err = k.endEverywhere(ctx, key, &how)
		return err
	})
	return ended, keysLeft, err
}

func (k *Keeper) endEverywhere(ctx context.Context, key string, how *EndEverywhere) (ended, keysLeft int64, err error) {
	living, keys := k.table.kinds(how.Realm, k.now())
	if ended = living; !how.Permanent {
		ended, keysLeft = living-keys, keys
	}
	g, err := k.generation(ctx, key)
	if err != nil {
		return 0, 0, err
	}
	tx := store.Tx{If: []store.Cond{{Key: key, Rev: g.Rev}}, Urgent: true}
	was := g
	if k.table.isSettledIn(how.Realm, &g, k.now()) {
		g.Forget()
	}
	g.Raise(how.Permanent, account.Why{At: k.moment(), Reason: how.Reason, By: how.By.SessionHandle})
	if how.Spare != nil && (how.Permanent || !how.Spare.Permanent) && (how.Realm == "" || how.Realm == how.By.Realm) {
		spared, err := k.spare(ctx, &tx, how.Spare.Live, func(r *Record) bool {
			epoch := &r.Epochs.Server
			if how.Realm != "" {
				epoch = &r.Epochs.Realm
			}
			alive := *epoch == was.For(r.Permanent)
			*epoch = g.For(r.Permanent)
			return alive
		})
		if err != nil {
			return 0, 0, err
		}
		if !spared {
			return 0, 0, notSpared()
		}
		ended--
	}
	if how.DryRun {
		return ended, keysLeft, nil
	}
	tx.Put = append(tx.Put, store.Put{Key: key, Value: g.encode()})
	event.Append(&tx, event.Event{Time: k.clock.Now(), Kind: event.AllSessionsEnded, Realm: how.Realm, Permanent: how.Permanent, Reason: how.Reason, Count: ended, By: how.By})
	_, err = k.store.Commit(ctx, tx)
	return ended, keysLeft, err
}

// kinds returns how many sessions live in a realm, or with no name on the server,
// and how many of them are permanent.
func (t *Table) kinds(realm string, now int64) (living, keys int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	g := &t.server
	if realm != "" {
		g = t.realm(t.realmNumber(realm)).generation
	}
	return g.living, g.keys
}

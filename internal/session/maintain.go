package session

import (
	"cmp"
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

// What the keeper does by itself, in small batches so that nobody waits for it.
// No rule of a session's life depends on any of it having run.
const (
	sweepBatch = 33 // tombstones in a commit: each is two conditions and three changes, and one more counts them
	purgeBatch = 90 // keys that a commit forgets
)

// Run maintains the store until ctx ends; what fails is told to report and tried
// again. Before it returns, the last uses are written, and the ends of sessions whose
// stolen tokens were shown.
func (k *Keeper) Run(ctx context.Context, report func(error)) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := errors.Join(k.endStolen(last), k.flushTouches(last, true), k.flushSightings(last)); err != nil {
				report(err)
			}
			return
		case <-second.C:
			if err := k.maintain(ctx, n); err != nil && ctx.Err() == nil {
				report(err)
			}
		}
	}
}

// turn is how long one kind of work goes on before another gets its turn.
const turn = 300 * time.Millisecond

func (k *Keeper) maintain(ctx context.Context, n int) error {
	k.upkeep.Lock()
	defer k.upkeep.Unlock()
	inTurn := func(work func(context.Context, func() bool) error) error {
		timer, cancel := context.WithTimeout(ctx, turn)
		defer cancel()
		return work(ctx, func() bool { return timer.Err() == nil })
	}
	errs := []error{k.endStolen(ctx), k.dropNonces(ctx), inTurn(k.giveNotices), inTurn(k.sweep), inTurn(k.foldEnds)}
	if n%5 == 0 {
		errs = append(errs, k.flushTouches(ctx, false), k.flushSightings(ctx), k.accounts.FlushFailures(ctx))
	}
	if n%60 == 0 {
		errs = append(errs, k.foldTouches(ctx, k.manyBlocks()))
	}
	if k.purgeIsDue(n) {
		errs = append(errs, inTurn(k.purge))
	}
	return errors.Join(errs...)
}

// Maintain does at once all that Run does in time.
func (k *Keeper) Maintain(ctx context.Context) error {
	k.upkeep.Lock()
	defer k.upkeep.Unlock()
	always := func() bool { return ctx.Err() == nil }
	return errors.Join(k.endStolen(ctx), k.dropNonces(ctx), k.giveNotices(ctx, always), k.sweep(ctx, always), k.foldEnds(ctx, always), k.flushTouches(ctx, true), k.flushSightings(ctx), k.accounts.FlushFailures(ctx), k.foldTouches(ctx, 1), k.purgeAtOnce(ctx, always))
}

// sweep writes the tombstones of sessions that died by themselves or with an
// epoch, as long as more says so.
func (k *Keeper) sweep(ctx context.Context, more func() bool) error {
	var unreadable []error
	for more() {
		dead := k.table.takeDead(k.now(), sweepBatch)
		if len(dead) == 0 {
			break
		}
		left, bad, err := together(dead, func(some []api.ID) error { return k.bury(ctx, some) })
		unreadable = append(unreadable, bad...)
		if err != nil {
			k.table.putDead(left)
			return fmt.Errorf("write tombstones: %w", err)
		}
	}
	return errors.Join(unreadable...)
}

// together does something to sessions in one commit, and then one by one if any of them
// holds the others up: others change it, or it cannot be read. It returns those that
// are left.
func together(handles []api.ID, do func([]api.ID) error) (left []api.ID, unreadable []error, err error) {
	err = do(handles)
	if !errors.Is(err, store.ErrConflict) && !isUnreadable(err) {
		return handles, nil, err
	}
	for i := range handles {
		err := store.Retry(func() error { return do(handles[i : i+1]) })
		if isUnreadable(err) {
			unreadable = append(unreadable, err)
		} else if err != nil {
			return handles[i:], unreadable, err
		}
	}
	return nil, unreadable, nil
}

// isUnreadable reports whether an error is of one stored value and will not go
// away by itself.
func isUnreadable(err error) bool {
	return errors.Is(err, ErrRecord) || errors.Is(err, store.ErrCorrupt)
}

// bury replaces dead sessions by their tombstones, in one commit.
func (k *Keeper) bury(ctx context.Context, handles []api.ID) error {
	var tx store.Tx
	var buried Tally
	for _, h := range handles {
		r, rev, err := k.read(ctx, h)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := k.store.Get(ctx, endKey(h)); !errors.Is(err, store.ErrNotFound) {
			if err != nil {
				return err
			}
			continue // foldEnds sees to it
		}
		if r.End, err = k.endOf(ctx, r); err != nil {
			return err
		}
		if r.End == (End{}) {
			// An alteration moved the moment of its death when that had come already.
			r.End = End{Status: Expired, At: k.now(), Reason: ReasonIdle}
		}
		k.oldestEnd.Store(min(k.oldestEnd.Load(), r.End.At))
		tx.If = append(tx.If, store.Cond{Key: liveKey(h), Rev: rev}, store.Cond{Key: endKey(h)})
		tx.Put = append(tx.Put, store.Put{Key: pastKey(h), Value: r.encode()})
		tx.Delete = append(tx.Delete, liveKey(h))
		buried[r.End.Status]++
		event.Append(&tx, k.endEvent(r, r.End, event.Actor{SessionHandle: r.End.By}))
	}
	if len(tx.Put) == 0 {
		return nil
	}
	k.countTombstones(&tx, buried)
	_, err := k.store.Commit(ctx, tx)
	return err
}

// endOf returns the end of a session that nobody ended by its handle: what it
// died of first. It is zero for one that lives.
func (k *Keeper) endOf(ctx context.Context, r *Record) (End, error) {
	r.LastAccess = max(r.LastAccess, k.table.lastUse(r.Handle))
	now := k.now()
	expired := r.expiry(now)
	if !k.table.outdated(r.Handle, now) {
		return expired, nil
	}
	end, err := k.endByEpoch(ctx, r, now)
	if err == nil && expired != (End{}) && (end == (End{}) || expired.At <= end.At) {
		end = expired
	}
	return end, err
}

// expiry returns the end of a session that died by itself.
func (r *Record) expiry(now int64) End {
	wall, idle := int64(r.wall()), r.IdleEnd()
	switch {
	case wall != 0 && wall <= now && (idle == 0 || wall <= idle):
		return End{Status: Expired, At: wall, Reason: ReasonLifetime}
	case idle != 0 && idle <= now:
		return End{Status: Expired, At: idle, Reason: ReasonIdle}
	}
	return End{}
}

// settleEnd moves what an appended end knows of the last use to where a record has
// it.
func (r *Record) settleEnd() {
	r.LastAccess = max(r.LastAccess, r.End.LastUse)
	r.End.LastUse = 0
}

// endByEpoch returns the end of a session whose account, realm or server ended it,
// whichever did so first.
func (k *Keeper) endByEpoch(ctx context.Context, r *Record, now int64) (End, error) {
	a, err := k.accounts.Named(ctx, r.Realm, r.Username)
	if err != nil {
		return End{}, err
	}
	server, realm, err := k.generations(ctx, r.Realm)
	if err != nil {
		return End{}, err
	}
	var causes []account.Why
	note := func(why account.Why, ended bool) {
		if why.Reason = cmp.Or(why.Reason, ReasonMassLogout); why.At.IsZero() {
			why.At = time.Unix(now, 0)
		}
		if ended {
			causes = append(causes, why)
		}
	}
	note(endByAccount(a, r, now))
	note(server.Ended(r.Permanent, r.Epochs.Server))
	note(realm.Ended(r.Permanent, r.Epochs.Realm))
	if len(causes) == 0 {
		return End{}, nil
	}
	first := slices.MinFunc(causes, func(x, y account.Why) int { return x.At.Compare(y.At) })
	return End{Status: Revoked, At: first.At.Unix(), Reason: first.Reason, By: first.By}, nil
}

// endByAccount returns why the account under a session's name, nil if nobody has it
// any more, ended the session, and whether it did.
func endByAccount(a *account.Account, r *Record, now int64) (why account.Why, ended bool) {
	if a == nil {
		return account.Why{Reason: ReasonAccountDropped}, true
	}
	why, ended = a.Epoch.Ended(r.Permanent, r.Epochs.Account)
	switch {
	case a.ID != r.AccountID && (!ended || !a.Epoch.Inherited):
		return account.Why{Reason: ReasonAccountDropped}, true
	case ended: // from then on nothing else has, see Keeper.raise
		return why, true
	case a.Lapsed(time.Unix(now, 0)):
		return account.Why{At: time.Unix(a.DisableAt.Unix(), 0), Reason: ReasonAccountDisabled}, true
	}
	return account.Why{Reason: ReasonAccountDisabled}, !a.Active(time.Unix(now, 0))
}

// foldEnds turns the ends that were appended into tombstones, in the order of
// their handles, as long as more says so.
func (k *Keeper) foldEnds(ctx context.Context, more func() bool) error {
	var unreadable []error
	r := store.Range{Prefix: endKeys, Limit: sweepBatch}
	for more() {
		items, err := k.store.List(ctx, r)
		if err != nil {
			return fmt.Errorf("fold ends: %w", err)
		}
		err = k.foldPage(ctx, items)
		if isUnreadable(err) { // one by one, so that it holds nobody else up
			for i := range items {
				if err = k.foldPage(ctx, items[i:i+1]); isUnreadable(err) {
					unreadable, err = append(unreadable, err), nil
				}
				if err != nil {
					break
				}
			}
		}
		if err != nil && !errors.Is(err, store.ErrConflict) { // a conflict leaves them for the next time
			return fmt.Errorf("fold ends: %w", err)
		}
		if len(items) < r.Limit {
			break
		}
		r.After = items[len(items)-1].Key
	}
	return errors.Join(unreadable...)
}

func (k *Keeper) foldPage(ctx context.Context, items []store.Item) error {
	var tx store.Tx
	var folded Tally
	for i := range items {
		h, ok := handleOf(endKeys, items[i].Key)
		if !ok {
			return ErrRecord
		}
		r, rev, err := k.read(ctx, h)
		if errors.Is(err, store.ErrNotFound) { // a tombstone already
			tx.If = append(tx.If, store.Cond{Key: endKey(h), Rev: items[i].Rev})
			tx.Delete = append(tx.Delete, endKey(h))
			continue
		}
		if err != nil {
			return err
		}
		if r.End, err = decodeEnd(items[i].Value); err != nil {
			return err
		}
		r.settleEnd()
		tx.If = append(tx.If, store.Cond{Key: liveKey(h), Rev: rev}, store.Cond{Key: endKey(h), Rev: items[i].Rev})
		k.oldestEnd.Store(min(k.oldestEnd.Load(), r.End.At))
		tx.Put = append(tx.Put, store.Put{Key: pastKey(h), Value: r.encode()})
		tx.Delete = append(tx.Delete, liveKey(h), endKey(h))
		folded[r.End.Status]++
	}
	if len(tx.Delete) == 0 {
		return nil
	}
	k.countTombstones(&tx, folded)
	_, err := k.store.Commit(ctx, tx)
	return err
}

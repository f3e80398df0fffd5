package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

// A log-in whose answer was lost can be repeated with its key: it gets the session
// that it made, with a new token in place of the one that never arrived. The key is
// kept in the session's record, as a hash; which sessions were made lately with one
// is kept in memory, and rebuilt from the records.

// Bounds of what is remembered of log-ins with a key.
const (
	repeatSeconds = 600     // for which a log-in can be repeated
	maxMade       = 1 << 16 // sessions; beyond that the oldest are forgotten first
)

// repetition is what makes two log-ins the same.
type repetition struct {
	account api.ID
	key     hash
}

// repetitions knows the sessions that were made lately with a key, and lets one
// log-in with a key at a time be made.
type repetitions struct {
	mu    sync.Mutex
	made  map[repetition]madeSession
	order []madeSession            // the oldest first
	busy  map[string]chan struct{} // closed when the log-in under way is over
}

type madeSession struct {
	repetition

	handle api.ID
	at     int64
}

func (m *repetitions) init() {
	m.made, m.busy = map[repetition]madeSession{}, map[string]chan struct{}{}
}

// enter waits until no other log-in with this key is under way to what has this store
// key. leave lets the next one in.
func (m *repetitions) enter(ctx context.Context, storeKey string, key hash) (leave func(), err error) {
	name := storeKey + string(key[:])
	for {
		m.mu.Lock()
		other, ok := m.busy[name]
		if !ok {
			done := make(chan struct{})
			m.busy[name] = done
			m.mu.Unlock()
			return func() {
				m.mu.Lock()
				delete(m.busy, name)
				m.mu.Unlock()
				close(done)
			}, nil
		}
		m.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// find returns the session that a log-in made, unless that was too long ago. It may
// have ended since, or not have been committed after all.
func (m *repetitions) find(r repetition, now int64) (api.ID, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetOld(now)
	made, ok := m.made[r]
	return made.handle, ok
}

// note remembers a session, unless there is a later one, and returns the one that it
// takes the place of, if any. After a restart they come in the order of their handles,
// which is not that of their creation where the clock was put back.
func (m *repetitions) note(r repetition, h api.ID, at, now int64) (before madeSession) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if before = m.made[r]; before.handle != h && before.at <= at && at+repeatSeconds > now {
		made := madeSession{r, h, at}
		m.made[r] = made
		n := len(m.order)
		for n > 0 && m.order[n-1].at > at {
			n--
		}
		m.order = slices.Insert(m.order, n, made)
	}
	m.forgetOld(now)
	return before
}

// undo forgets a session that was not made, for the one before it.
func (m *repetitions) undo(r repetition, h api.ID, before madeSession) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.made[r].handle != h:
	case before.handle.IsZero():
		delete(m.made, r)
	default:
		m.made[r] = before
	}
}

func (m *repetitions) forgetOld(now int64) {
	n := 0
	for n < len(m.order) && (m.order[n].at+repeatSeconds <= now || len(m.order)-n > maxMade) {
		if o := &m.order[n]; m.made[o.repetition].handle == o.handle {
			delete(m.made, o.repetition)
		}
		n++
	}
	m.order = m.order[n:]
}

// repetitionKey returns the hash of a log-in's key, zero for none. Issuers do not
// get at each other's log-ins.
func (n *NewSession) repetitionKey() hash {
	if n.IdempotencyKey == "" {
		return hash{}
	}
	sum := sha256.New()
	if n.Issuer != nil {
		sum.Write(n.Issuer.AccountID[:])
	}
	sum.Write([]byte(n.IdempotencyKey))
	return hash(sum.Sum(nil))
}

// mayRepeat reports whether a log-in's session seems to be there, in whose place no
// other is wanted. The password was not checked yet.
func (k *Keeper) mayRepeat(ctx context.Context, c *creation) bool {
	if c.key == (hash{}) {
		return false
	}
	a, err := k.accounts.Find(ctx, c.Realm.Name, c.Username)
	if err != nil {
		return false
	}
	h, found := k.table.repeats.find(repetition{a.ID, c.key}, k.now())
	_, lives := k.Living(Reach{Account: a.ID}, h)
	return found && lives
}

// createOnce is create, unless the log-in has been made before: then its session
// gets a new token.
func (k *Keeper) createOnce(ctx context.Context, c *creation, a *account.Account, isNew bool) (api.Secret, error) {
	c.doubtful = api.ID{}
	if c.key != (hash{}) {
		h, found := k.table.repeats.find(repetition{a.ID, c.key}, k.now())
		if live, ok := k.Living(Reach{Account: a.ID}, h); found && ok {
			return k.repeat(ctx, c, a, &live)
		}
		if found {
			_, err := k.store.Get(ctx, liveKey(h))
			if errors.Is(err, store.ErrNotFound) {
				c.doubtful = h // it is gone, or its commit is under way still
			} else if err != nil {
				return api.Secret{}, err
			}
		}
	}
	return k.create(ctx, c, a, isNew)
}

// repeat gives the session of a log-in that is made again a new token; the old one,
// which nobody received, stops working.
func (k *Keeper) repeat(ctx context.Context, c *creation, a *account.Account, live *Live) (api.Secret, error) {
	h := live.Handle
	r, rev, err := k.read(ctx, h)
	if errors.Is(err, store.ErrNotFound) {
		return api.Secret{}, store.ErrConflict // it has just ended
	}
	if err != nil {
		return api.Secret{}, err
	}
	if r.Permanent != c.Permanent {
		return api.Secret{}, api.Errorf(api.Conflict, "the idempotencyKey was used for a session of the other kind: choose a new one for each log-in").At("/params/idempotencyKey")
	}
	token, err := newToken(r.Prefix, h, k.random)
	if err != nil {
		return api.Secret{}, err
	}
	r.Secrets = []Secret{secretOf(token)}
	r.Revision++
	r.LastAccess = live.LastAccess
	tx := store.Tx{
		If:  []store.Cond{a.Cond(), {Key: liveKey(h), Rev: rev}, {Key: endKey(h)}},
		Put: []store.Put{{Key: liveKey(h), Value: r.encode()}},
	}
	may, err := c.may.Conds(ctx)
	if err != nil {
		return api.Secret{}, err
	}
	tx.If = append(tx.If, may...)
	a, changed := k.loggedIn(c, a.Clone(), k.clock.Now(), h)
	if err := k.remember(ctx, c, a, changed, &tx); err != nil {
		return api.Secret{}, err
	}
	event.Append(&tx, event.Event{
		Time: k.clock.Now(), Kind: event.SessionRotated, SessionHandle: HandleText(h), AccountID: r.AccountID.String(),
		Realm: r.Realm, Username: r.Username, Permanent: r.Permanent, ClientIPAddress: addressText(c.Address), By: k.creator(c, a, h),
	})
	_, err = k.store.Commit(ctx, tx)
	if c.committed = !store.NotApplied(err); err != nil {
		return api.Secret{}, err
	}
	c.record, c.repeated = r, true
	return token, nil
}

// remember adds to a log-in's commit what it changes of the account.
func (k *Keeper) remember(ctx context.Context, c *creation, a *account.Account, changed bool, tx *store.Tx) error {
	if c.Issuer == nil {
		tx.Put = append(tx.Put, k.accounts.Remember(ctx, a, c.Address)...)
	}
	if !changed {
		return nil
	}
	put, err := a.Put()
	tx.Put = append(tx.Put, put)
	return err
}

// creator is who events say created the session h: the account itself, or the
// issuer.
func (k *Keeper) creator(c *creation, a *account.Account, h api.ID) event.Actor {
	if c.Issuer != nil {
		return k.Actor(c.Issuer)
	}
	return event.Actor{SessionHandle: HandleText(h), Realm: a.Realm, Username: a.Username}
}

package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"io"
	"slices"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

// A rotated session has a new token; the old one is good for a grace period more,
// because the answer that held the new one may have been lost, or several tabs of
// a browser rotate at once: asking again gives the same successor. It is derived
// from the old token, which only its owner has, and a nonce, which is stored for as
// long as it may be asked for. An old token that is used later was stolen, or its
// successor was: the session is ended (RFC 9700, section 4.14.2). Only a match with
// a stored old hash proves that; a wrong secret proves nothing. Of a permanent
// session an old token just stops working: keys are copied to many places.

// maxOld is how many old tokens of a session are known.
const maxOld = 3

// oldSecrets are what the table keeps of a rotated session's old tokens, the
// newest first.
type oldSecrets [maxOld]struct {
	hash  hash
	until uint32 // Unix seconds; 0: there is none
}

// standing is what an old token is worth.
type standing uint8

const (
	unknownToken standing = iota
	graceToken
	stolenToken
)

// old returns what a token that is not the present one of a rotated entry is
// worth.
func (s *shard) old(n uint32, h *hash, now int64) standing {
	olds := s.olds[n]
	for i := range olds {
		switch o := &olds[i]; {
		case o.until == 0 || !o.hash.is(h):
		case now < int64(o.until):
			return graceToken
		default:
			return stolenToken
		}
	}
	return unknownToken
}

// keepOld keeps, or forgets, the old tokens of an entry.
func (s *shard) keepOld(n uint32, secrets []Secret) {
	if len(secrets) < 2 {
		delete(s.olds, n)
		return
	}
	if s.olds == nil {
		s.olds = map[uint32]oldSecrets{}
	}
	var olds oldSecrets
	for i, secret := range secrets[1:min(len(secrets), maxOld+1)] {
		olds[i].hash, olds[i].until = secret.Hash, uint32(secret.ValidUntil) //nolint:gosec // until 2106
	}
	s.olds[n] = olds
}

// Rotate gives the session of a token a new one, or, in the grace period of an old
// one, the successor that it was given. An error wraps store.ErrNotFound for a
// token that is good no more.
func (k *Keeper) Rotate(ctx context.Context, token api.Secret, by event.Actor) (View, api.Secret, error) {
	h, ok := Locate(token.Reveal())
	if !ok {
		return View{}, api.Secret{}, store.ErrNotFound
	}
	sum := hashOf(token.Reveal())
	var v View
	var next api.Secret
	err := store.Retry(func() (err error) {
		v, next, err = k.rotate(ctx, h, &sum, token, by)
		return err
	})
	if err != nil {
		return View{}, api.Secret{}, err
	}
	if now, ok := k.complete(v.Record); ok {
		v = now
	}
	return v, next, nil
}

func (k *Keeper) rotate(ctx context.Context, h api.ID, sum *hash, token api.Secret, by event.Actor) (View, api.Secret, error) {
	live, _, ok := k.table.look(proof{handle: h, hash: sum, now: k.now()}, nil)
	if !ok {
		return View{}, api.Secret{}, store.ErrNotFound
	}
	r, rev, err := k.read(ctx, h)
	if err != nil {
		return View{}, api.Secret{}, err
	}
	if !r.Secrets[0].Hash.is(sum) {
		for _, old := range r.Secrets[1:] {
			if old.Hash.is(sum) && len(old.Nonce) > 0 {
				v, ok := k.complete(r)
				if !ok {
					return View{}, api.Secret{}, store.ErrNotFound
				}
				next, err := successor(r.Prefix, h, token, old.Nonce)
				if err == nil {
					err = k.awaitSecret(ctx, r, rev, next)
				}
				return v, next, err
			}
		}
		return View{}, api.Secret{}, store.ErrNotFound
	}
	nonce := make([]byte, 16)
	if _, err := io.ReadFull(k.random, nonce); err != nil {
		return View{}, api.Secret{}, err
	}
	next, err := successor(r.Prefix, h, token, nonce)
	if err != nil {
		return View{}, api.Secret{}, err
	}
	now := k.now()
	r.Secrets[0].ValidUntil, r.Secrets[0].LastUsed, r.Secrets[0].Nonce = now+k.config.Get().Defaults.RotationGraceSeconds, live.LastAccess, nonce
	r.Secrets = append([]Secret{secretOf(next)}, r.Secrets[:min(len(r.Secrets), maxOld)]...)
	r.forgetNonces(now)
	v, err := k.renew(ctx, r, rev, live.LastAccess, event.SessionRotated, by)
	return v, next, err
}

// awaitSecret waits until the table knows the present token of a record that was read
// from the store, which may be ahead of it: the token is good from then on.
func (k *Keeper) awaitSecret(ctx context.Context, r *Record, rev store.Rev, token api.Secret) error {
	sum := hashOf(token.Reveal())
	if !r.Secrets[0].Hash.is(&sum) {
		return nil
	}
	if _, _, ok := k.table.look(proof{handle: r.Handle, hash: &sum, now: k.now()}, nil); ok {
		return nil
	}
	_, err := k.store.Commit(ctx, store.Tx{If: []store.Cond{{Key: liveKey(r.Handle), Rev: rev}}}) // answered when the table has seen those before it
	return err
}

// successor derives the token that follows another one.
func successor(prefix string, h api.ID, token api.Secret, nonce []byte) (api.Secret, error) {
	return newToken(prefix, h, &stream{key: []byte(token.Reveal()), nonce: nonce})
}

// stream is an endless row of bytes that follow from a key and a nonce: HMAC-SHA256
// over the nonce and a counter.
type stream struct {
	key, nonce []byte
	n          byte
	left       []byte
}

// Read fills p. It never fails: a token takes few of the 8 KiB that there are.
func (s *stream) Read(p []byte) (int, error) {
	for n := 0; n < len(p); {
		if len(s.left) == 0 {
			mac := hmac.New(sha256.New, s.key)
			mac.Write(s.nonce)
			mac.Write([]byte{s.n})
			s.n++
			s.left = mac.Sum(nil)
		}
		taken := copy(p[n:], s.left)
		n, s.left = n+taken, s.left[taken:]
	}
	return len(p), nil
}

// forgetNonces removes what nobody may ask for any more, and reports whether there
// was anything.
func (r *Record) forgetNonces(now int64) (forgot bool) {
	for i := range r.Secrets[1:] {
		if s := &r.Secrets[i+1]; len(s.Nonce) > 0 && s.ValidUntil <= now {
			s.Nonce, forgot = nil, true
		}
	}
	return forgot
}

// rotated is a session whose nonce is to be forgotten at a moment.
type rotated struct {
	handle api.ID
	until  int64
}

// noteNonces notes which nonces of a record are to be forgotten, and when.
func (t *Table) noteNonces(r *Record) {
	for _, s := range r.Secrets[1:] {
		if len(s.Nonce) > 0 {
			t.nonces = append(t.nonces, rotated{r.Handle, s.ValidUntil})
		}
	}
}

// takeNonces returns sessions whose nonces are to be forgotten by now, each once.
func (t *Table) takeNonces(now int64) map[api.ID]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	due := map[api.ID]bool{}
	kept := t.nonces[:0]
	for _, n := range t.nonces {
		if n.until <= now {
			due[n.handle] = true
		} else {
			kept = append(kept, n)
		}
	}
	t.nonces = kept
	return due
}

// dropNonces forgets the nonces of grace periods that are over. One whose session
// changes at this moment is forgotten with that change, or the next.
func (k *Keeper) dropNonces(ctx context.Context) error {
	now := k.now()
	var errs []error
	for h := range k.table.takeNonces(now) {
		err := store.Retry(func() error {
			r, rev, err := k.read(ctx, h)
			if errors.Is(err, store.ErrNotFound) || err == nil && !r.forgetNonces(now) {
				return nil
			}
			if err != nil {
				return err
			}
			tx := store.Tx{
				If:  []store.Cond{{Key: liveKey(h), Rev: rev}, {Key: endKey(h)}},
				Put: []store.Put{{Key: liveKey(h), Value: r.encode()}},
			}
			if _, err = k.store.Commit(ctx, tx); errors.Is(err, store.ErrConflict) {
				if _, ended := k.store.Get(ctx, endKey(h)); ended == nil {
					return nil
				}
			}
			return err
		})
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// steal marks a session of which a stolen token was shown: it is dead from now on,
// and its end is written by endStolen.
func (t *Table) steal(h api.ID) {
	t.stolen.mu.Lock()
	defer t.stolen.mu.Unlock()
	t.stolen.handles = append(t.stolen.handles, h)
}

// isStolen reports whether a stolen token of a session was shown whose end is not
// being written yet.
func (t *Table) isStolen(h api.ID) bool {
	t.stolen.mu.Lock()
	defer t.stolen.mu.Unlock()
	return slices.Contains(t.stolen.handles, h)
}

// endStolen ends the sessions of which stolen tokens were shown.
func (k *Keeper) endStolen(ctx context.Context) error {
	k.table.stolen.mu.Lock()
	handles := k.table.stolen.handles
	k.table.stolen.handles = nil
	k.table.stolen.mu.Unlock()
	var errs []error
	for _, h := range handles {
		if _, err := k.End(ctx, h, k.NewEnd(Revoked, ReasonTokenTheft, nil), event.Actor{}); err != nil {
			k.table.steal(h)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

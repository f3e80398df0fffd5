package account

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"sessiond/internal/clock"
	"sessiond/store"
)

// What a Throttle knows outlasts a restart: every few seconds what has changed
// is written as a block, and at the start all blocks are read in their order.
// When they are many or old, one of all that still counts replaces them.
const (
	guessPrefix = "guess/"           // and then the number of the block
	guessKey    = "server/guess-key" // the key of the hash: without it cells mean nothing

	maxBlocks = 256
	maxAge    = 24 * time.Hour
)

// kept is what a Throttle has in the store. Its zero keeps nothing there.
type kept struct {
	loaded bool
	moved  moves
	first  uint64 // the oldest block
	next   uint64 // the number of the next one
	since  int64  // time of the last replacement, Unix nanoseconds
}

// moves are the counters whose state in the store is not the present one.
type moves struct {
	tallies  map[tallyKey]struct{}
	names    map[uint32]struct{}
	networks map[uint32]struct{}
}

func newMoves() moves {
	return moves{make(map[tallyKey]struct{}), make(map[uint32]struct{}), make(map[uint32]struct{})}
}

// Load takes up the counters of failures that were kept before a restart, and
// has them kept from now on: without it nothing is. It is called before the
// first log-in.
func (d *Directory) Load(ctx context.Context) error {
	if err := d.throttle.load(ctx, d.store); err != nil {
		return fmt.Errorf("account: load the counters of failures: %w", err)
	}
	return nil
}

func (t *Throttle) load(ctx context.Context, s store.Store) error {
	key, err := loadGuessKey(ctx, s)
	if err != nil {
		return err
	}
	now := clock.Sure(t.clock).UnixNano()
	t.mu.Lock() // nobody waits for it yet
	defer t.mu.Unlock()
	t.key = key
	t.kept.since = now
	after := ""
	for {
		items, err := s.List(ctx, store.Range{Prefix: guessPrefix, After: after})
		if err != nil {
			return err
		}
		if len(items) == 0 {
			break
		}
		for _, item := range items {
			number, err := strconv.ParseUint(item.Key[len(guessPrefix):], 16, 64)
			if err != nil {
				return fmt.Errorf("%w: the number of a block of failures", store.ErrCorrupt)
			}
			if t.kept.next == 0 {
				t.kept.first = number
			}
			t.kept.next = number + 1
			if err := t.replay(item.Value, now); err != nil {
				return fmt.Errorf("%w: block of failures: %w", store.ErrCorrupt, err)
			}
		}
		after = items[len(items)-1].Key
	}
	t.sweep(now) // of what was cleared, too
	t.kept.loaded = true
	return nil
}

func loadGuessKey(ctx context.Context, s store.Store) (key [16]byte, err error) {
	item, err := s.Get(ctx, guessKey)
	switch {
	case errors.Is(err, store.ErrNotFound):
		_, _ = rand.Read(key[:]) // never fails
		_, err = s.Commit(ctx, store.Tx{If: []store.Cond{{Key: guessKey}}, Put: []store.Put{{Key: guessKey, Value: key[:]}}})
		return key, err
	case err != nil:
		return key, err
	case len(item.Value) != len(key):
		return key, fmt.Errorf("%w: the key of the counters", store.ErrCorrupt)
	}
	return [16]byte(item.Value), nil
}

// flush writes what has changed. What could not be written is kept for the next
// time; blocks say how things are and not what happened, so twice does no harm.
func (t *Throttle) flush(ctx context.Context, s store.Store) error {
	w := t.take()
	for i, block := range w.blocks {
		key := blockKey(w.number + uint64(i))
		tx := store.Tx{If: []store.Cond{{Key: key}}, Put: []store.Put{{Key: key, Value: block}}}
		if _, err := s.Commit(ctx, tx); err != nil {
			t.putBack(w.moved)
			return fmt.Errorf("account: write the counters of failures: %w", err)
		}
	}
	if !w.replaces {
		return nil
	}
	return t.drop(ctx, s, w.number)
}

func blockKey(number uint64) string { return guessPrefix + fmt.Sprintf("%016x", number) }

// writing is what one flush writes: blocks from a number on.
type writing struct {
	moved    moves
	blocks   [][]byte
	number   uint64
	replaces bool // they hold all that counts
}

// take returns what has changed since the last time, or all that counts if it is
// time for that.
func (t *Throttle) take() writing {
	now := clock.Sure(t.clock).UnixNano()
	t.mu.Lock()
	defer t.mu.Unlock()
	k := &t.kept
	if !k.loaded {
		k.moved = newMoves()
		return writing{}
	}
	w := writing{number: k.next}
	if blocks := k.next - k.first; blocks >= maxBlocks || blocks > 0 && now-k.since >= int64(maxAge) {
		w.replaces = true
		k.since = now
		t.moveAll(now)
	}
	w.moved, k.moved = k.moved, newMoves()
	w.blocks = t.blocks(w.moved)
	k.next += uint64(len(w.blocks))
	return w
}

// moveAll notes every counter that has something to remember.
func (t *Throttle) moveAll(now int64) {
	t.sweep(now)
	for key := range t.accounts {
		t.kept.moved.tallies[key] = struct{}{}
	}
	for cell, c := range t.names.all() {
		if c.refresh(policy{}, now); c.failed > 0 {
			t.kept.moved.names[cell] = struct{}{}
		}
	}
	for i, whole := range t.networks {
		if whole > now {
			t.kept.moved.networks[uint32(i)] = struct{}{}
		}
	}
}

func (t *Throttle) putBack(m moves) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.Copy(t.kept.moved.tallies, m.tallies)
	maps.Copy(t.kept.moved.names, m.names)
	maps.Copy(t.kept.moved.networks, m.networks)
}

// drop deletes the blocks before a number.
func (t *Throttle) drop(ctx context.Context, s store.Store, before uint64) error {
	for {
		t.mu.Lock()
		first := t.kept.first
		t.mu.Unlock()
		if first >= before {
			return nil
		}
		end := min(before, first+store.MaxOps/2)
		var tx store.Tx
		for number := first; number < end; number++ {
			tx.Delete = append(tx.Delete, blockKey(number))
		}
		if _, err := s.Commit(ctx, tx); err != nil {
			return fmt.Errorf("account: remove old counters of failures: %w", err)
		}
		t.mu.Lock()
		t.kept.first = max(t.kept.first, end)
		t.mu.Unlock()
	}
}

package session

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"sessiond/store"
)

// Tombstones are counted by status in one stored value. Whatever writes or forgets
// a tombstone changes that value in the same commit, on the condition that it is
// what the table knows (countTombstones), so the counts are right after a crash too
// and nobody counts again.

// tombstonesKey holds the counts.
const tombstonesKey = "server/tombstones"

// Tally is a number for each Status.
type Tally [Replaced + 1]int64

func (y Tally) encode() []byte {
	e := encoder(make([]byte, 0, 32))
	for status, n := range y {
		if status > 0 {
			e.number(protowire.Number(status), uint64(max(0, n)))
		}
	}
	return e
}

func decodeTally(data []byte) (y Tally, err error) {
	err = fields(data, func(f protowire.Number, n uint64, _ []byte) error {
		if int(f) >= len(y) {
			return unknown(f)
		}
		y[f] = int64(n) //nolint:gosec // counts
		return nil
	})
	return y, err
}

// tombstones are the counts as the store has them.
type tombstones struct {
	of  Tally
	rev store.Rev // of the stored value; 0: not stored yet, they were counted at the start
}

// loadTombstones reads the counts. A store of which nobody has counted them yet is
// gone through; a tombstone that cannot be read keeps nobody from starting.
func loadTombstones(ctx context.Context, s store.Store) (tombstones, error) {
	var t tombstones
	item, err := s.Get(ctx, tombstonesKey)
	if err == nil {
		t.rev = item.Rev
		t.of, err = decodeTally(item.Value)
		return t, err
	}
	if !errors.Is(err, store.ErrNotFound) {
		return t, err
	}
	err = walk(ctx, s, pastKeys, func(item *store.Item) error {
		if h, ok := handleOf(pastKeys, item.Key); ok {
			if r, err := decodeRecord(h, item.Value); err == nil {
				t.of[r.End.Status]++
			}
		}
		return nil
	})
	if errors.Is(err, store.ErrCorrupt) {
		err = nil
	}
	return t, err
}

// countTombstones adds to a commit what keeps the counts right: change is how many
// tombstones of each status it writes, less those that it forgets or rewrites. It
// is one condition and one put. The commit conflicts if another one has changed the
// counts meanwhile, and is then to be made anew, from this call on.
func (k *Keeper) countTombstones(tx *store.Tx, change Tally) {
	if change == (Tally{}) {
		return
	}
	k.table.mu.Lock()
	now := k.table.tombstones
	k.table.mu.Unlock()
	for status := range now.of {
		now.of[status] += change[status]
	}
	tx.If = append(tx.If, store.Cond{Key: tombstonesKey, Rev: now.rev})
	tx.Put = append(tx.Put, store.Put{Key: tombstonesKey, Value: now.of.encode()})
}

// takeTombstones takes over the counts that a commit put.
func (t *Table) takeTombstones(item *store.Item) error {
	of, err := decodeTally(item.Value)
	if err != nil {
		return fmt.Errorf("counts of tombstones: %w", err)
	}
	t.tombstones = tombstones{of, item.Rev}
	return nil
}

package session

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"sessiond/store"
)

// Last uses are written in blocks of many sessions, and blocks are folded into
// fewer: to write each use into its record instead costs a rewritten page a
// session, which was half of all the server's work when a million sessions were in
// use. A record gets its last use when it is written for another reason; until
// then the blocks hold it, and Load reads both.
const (
	touchBlock  = 1000 // last uses in one value
	touchBlocks = 16   // that are always left alone
)

// manyBlocks is how many blocks are worth folding: more than twice as many as the
// living sessions fill, so that what folding writes stays in proportion to what
// was touched.
func (k *Keeper) manyBlocks() int {
	return touchBlocks + 2*k.table.Len()/touchBlock
}

// flushTouches writes the last uses that wait, many in one value.
func (k *Keeper) flushTouches(ctx context.Context, all bool) error {
	for uses := k.table.takeTouched(all); len(uses) > 0; {
		block := uses[:min(touchBlock, len(uses))]
		if err := k.writeBlock(ctx, block); err != nil {
			k.table.putTouched(uses)
			return fmt.Errorf("write last accesses: %w", err)
		}
		k.table.written(block)
		uses = uses[len(block):]
	}
	return nil
}

func (k *Keeper) writeBlock(ctx context.Context, block []lastUse) error {
	id, err := k.newHandle()
	if err != nil {
		return err
	}
	value := make([]byte, 0, len(block)*touchLen)
	for _, use := range block {
		value = appendTouch(value, use.handle, use.at)
	}
	_, err = k.store.Commit(ctx, store.Tx{Put: []store.Put{{Key: touchKeys + string(id[:]), Value: value}}})
	if err == nil {
		k.table.blocks.Add(1)
	}
	return err
}

// foldTouches replaces the blocks by as few as the living sessions need, each
// with its last use alone, once there are enough of them.
func (k *Keeper) foldTouches(ctx context.Context, enough int) error {
	if k.table.blocks.Load() < int64(enough) {
		return nil
	}
	var old []string
	var uses []lastUse
	err := walk(ctx, k.store, touchKeys, func(item *store.Item) error {
		old = append(old, item.Key)
		return readTouches(item.Value, func(u lastUse) {
			k.table.withEntry(u.handle, func(*entry) { uses = append(uses, u) })
		})
	})
	if err != nil {
		return fmt.Errorf("fold last accesses: %w", err)
	}
	slices.SortFunc(uses, func(a, b lastUse) int {
		return cmp.Or(cmp.Compare(string(a.handle[:]), string(b.handle[:])), cmp.Compare(b.at, a.at))
	})
	uses = slices.CompactFunc(uses, func(a, b lastUse) bool { return a.handle == b.handle })
	for block := range slices.Chunk(uses, touchBlock) {
		if err := k.writeBlock(ctx, block); err != nil {
			return fmt.Errorf("fold last accesses: %w", err)
		}
	}
	for keys := range slices.Chunk(old, purgeBatch) {
		if _, err := k.store.Commit(ctx, store.Tx{Delete: keys}); err != nil {
			return fmt.Errorf("fold last accesses: %w", err)
		}
		k.table.blocks.Add(-int64(len(keys)))
	}
	return nil
}

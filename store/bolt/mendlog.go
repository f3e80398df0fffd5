package bolt

import (
	"slices"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

// mendLog has the log begin behind its last hole. The entry there stays as its anchor:
// what its hash goes back to is gone.
func (m *miner) mendLog(st *state, head store.Head) error {
	if err := m.to.commit(); err != nil {
		return err
	}
	var anchor store.Head
	at, holes, nonsense := store.Head{}, false, false
	var all, drop [][]byte // names
	err := m.to.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte(store.Kind(store.AnchorKey))); b != nil {
			name := []byte(store.AnchorKey[len(store.Kind(store.AnchorKey)):])
			if v := b.Get(name); v != nil {
				if _, payload, err := unseal(store.Kind(store.AnchorKey), name, v); err == nil {
					if at, err = store.DecodeHead(payload); err != nil || at.Seq >= lastRev { // a CRC that fits and nonsense
						at, nonsense = store.Head{}, true
					}
				}
			}
		}
		b := tx.Bucket([]byte(logKind))
		if b == nil {
			return nil
		}
		return b.ForEach(func(name, v []byte) error {
			_, payload, err := unseal(logKind, name, v)
			if err != nil {
				return err
			}
			e, err := store.DecodeEntry(store.Item{Key: logKind + string(name), Value: payload})
			switch {
			case err != nil || e.Seq <= at.Seq || e.Seq >= lastRev: // purged, or never an entry
				drop = append(drop, slices.Clone(name))
				return nil //nolint:nilerr // it is dropped
			case store.Head{Seq: e.Seq - 1, Hash: at.Hash}.Next(e.Data).Hash != e.Hash:
				holes = true
				drop = append(append(drop, all...), slices.Clone(name))
				all = all[:0]
				anchor = store.Head{Seq: e.Seq, Hash: e.Hash}
			default:
				all = append(all, slices.Clone(name))
			}
			at = store.Head{Seq: e.Seq, Hash: e.Hash}
			return nil
		})
	})
	if err != nil {
		return writing(err)
	}
	m.found.LogWhole = !holes && at == head
	st.head = at
	if nonsense && !holes {
		kind := store.Kind(store.AnchorKey)
		if err := m.to.remove(kind, []byte(store.AnchorKey[len(kind):])); err != nil {
			return err
		}
		m.found.Kinds[kind]--
	}
	if holes {
		if err := m.anchor(anchor); err != nil {
			return err
		}
	}
	for _, name := range drop {
		if err := m.to.remove(logKind, name); err != nil {
			return err
		}
		m.found.Kinds[logKind]--
	}
	return nil
}

// anchor puts the anchor of the log.
func (m *miner) anchor(h store.Head) error {
	kind := store.Kind(store.AnchorKey)
	name := []byte(store.AnchorKey[len(kind):])
	there, err := m.to.rev(kind, name)
	if err != nil {
		return err
	}
	if there == 0 {
		m.found.Kinds[kind]++
	}
	value := append(make([]byte, valueHead), h.Encode()...)
	return m.to.add(kind, name, seal(value, 0, kind, name, m.newest))
}

package session

import (
	"sync"

	"sessiond/internal/api"
)

// A shard indexes the entries of 1/256 of the handles: open addressing with
// linear probing, a slot being a tag of 32 bits and an entry's number. mu guards
// it, and what look reads of its entries.
type shard struct {
	mu    sync.RWMutex
	slots []uint64 // a power of two of them; 0 is free
	used  int

	frozen map[uint32]uint32     // by entry: number of the frozen set
	olds   map[uint32]oldSecrets // by entry: the old tokens of a rotated session

	_ [64]byte // keeps the locks of two shards on different cache lines
}

// freeze keeps what a new entry's session holds.
func (s *shard) freeze(n, set uint32) {
	if s.frozen == nil {
		s.frozen = map[uint32]uint32{}
	}
	s.frozen[n] = set
}

// find returns the number of the handle's entry, 0 if there is none.
func (s *shard) find(tag uint32, h *api.ID, t *Table) uint32 {
	if len(s.slots) == 0 {
		return 0
	}
	mask := uint32(len(s.slots) - 1) //nolint:gosec // far below 2^32
	for i := tag & mask; ; i = (i + 1) & mask {
		slot := s.slots[i]
		if slot == 0 {
			return 0
		}
		if uint32(slot>>32) == tag {
			if n := uint32(slot); t.entry(n).handle == *h { //nolint:gosec // the low half
				return n
			}
		}
	}
}

// insert adds an entry that is not there yet.
func (s *shard) insert(tag, n uint32) {
	if s.used*8 >= len(s.slots)*7 {
		s.grow()
	}
	s.put(uint64(tag)<<32 | uint64(n))
	s.used++
}

func (s *shard) put(slot uint64) {
	mask := uint32(len(s.slots) - 1) //nolint:gosec // far below 2^32
	i := uint32(slot>>32) & mask
	for s.slots[i] != 0 {
		i = (i + 1) & mask
	}
	s.slots[i] = slot
}

func (s *shard) grow() {
	old := s.slots
	s.slots = make([]uint64, max(8, 2*len(old)))
	for _, slot := range old {
		if slot != 0 {
			s.put(slot)
		}
	}
}

// remove takes an entry out and closes the gap, so that no probe stops early.
func (s *shard) remove(tag, n uint32) {
	mask := uint32(len(s.slots) - 1) //nolint:gosec // far below 2^32
	i := tag & mask
	for s.slots[i] != uint64(tag)<<32|uint64(n) {
		if s.slots[i] == 0 {
			return
		}
		i = (i + 1) & mask
	}
	s.used--
	for j := i; ; {
		s.slots[i] = 0
		for {
			j = (j + 1) & mask
			if s.slots[j] == 0 {
				return
			}
			home := uint32(s.slots[j]>>32) & mask
			if (j-home)&mask >= (j-i)&mask {
				break // its home is not beyond the gap: it may move there
			}
		}
		s.slots[i] = s.slots[j]
		i = j
	}
}

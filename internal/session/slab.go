package session

import (
	"sync/atomic"
	"unsafe"
)

// A slab holds pointer-free records of one size in memory that the garbage
// collector does not look at, and numbers them from 1. Numbers are given and
// taken back under the table's lock; at may be called from anywhere, for a
// record never moves.
type slab struct {
	size   uintptr
	shift  uint // a chunk holds 1<<shift records
	chunks [maxChunks]atomic.Pointer[byte]
	next   uint32 // the number given last, of those that were never given before
	free   []uint32
	arena  *arena // nil: nobody gives the memory back
}

// An arena is the memory of a table's slabs. It is given back when nobody can
// reach the table any more: a process may open more than one.
type arena struct{ chunks [][]byte }

func (a *arena) release() {
	for _, chunk := range a.chunks {
		unmapMemory(chunk)
	}
	a.chunks = nil
}

const (
	chunkBytes = 4 << 20
	maxChunks  = 1 << 12
)

func (s *slab) init(size uintptr) {
	s.size = size
	for 2<<s.shift*size <= chunkBytes {
		s.shift++
	}
}

// at returns the record of a number that was given.
func (s *slab) at(n uint32) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(s.chunks[n>>s.shift].Load()), uintptr(n&(1<<s.shift-1))*s.size) //nolint:gosec // within the chunk that the number was given of
}

// take gives out a number whose record is zero.
func (s *slab) take() uint32 {
	if last := len(s.free) - 1; last >= 0 {
		n := s.free[last]
		s.free = s.free[:last]
		clear(unsafe.Slice((*byte)(s.at(n)), s.size)) //nolint:gosec // one record
		return n
	}
	s.next++
	if i := s.next >> s.shift; s.chunks[i].Load() == nil {
		memory := mapMemory(chunkBytes, i > 0) // the first one of a small table stays small
		if s.arena != nil {
			s.arena.chunks = append(s.arena.chunks, memory)
		}
		s.chunks[i].Store(unsafe.SliceData(memory)) //nolint:gosec // the slab keeps it
	}
	return s.next
}

// give takes a number back.
func (s *slab) give(n uint32) { s.free = append(s.free, n) }

// texts holds byte strings outside the collector's heap, each in the smallest
// class that fits.
type texts struct{ classes [10]slab }

// text names a stored byte string; the zero text is the empty one.
type text struct{ n, len uint32 }

const (
	smallText = 64
	maxText   = smallText << 9
)

func (t *texts) init() {
	for i := range t.classes {
		t.classes[i].init(smallText << i)
	}
}

// class returns the slab for byte strings of a length.
func (t *texts) class(length uint32) *slab {
	i := 0
	for smallText<<i < int(length) {
		i++
	}
	return &t.classes[i]
}

// bytes returns the bytes of a text, which may be read until it is given back.
func (t *texts) bytes(x text) []byte {
	if x.len == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(t.class(x.len).at(x.n)), x.len) //nolint:gosec // no longer than its class
}

// put stores b, which is at most maxText long.
func (t *texts) put(b []byte) text {
	if len(b) == 0 {
		return text{}
	}
	x := text{len: uint32(len(b))} //nolint:gosec // at most maxText
	x.n = t.class(x.len).take()
	copy(t.bytes(x), b)
	return x
}

// give takes a text back.
func (t *texts) give(x text) {
	if x.len != 0 {
		t.class(x.len).give(x.n)
	}
}

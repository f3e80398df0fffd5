package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

const (
	valueFormat = 1
	valueHead   = 1 + 8
	valueTail   = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal turns what stands in buf from start on, a gap of valueHead bytes and the
// payload, into a stored value.
func seal(buf []byte, start int, kind string, name []byte, rev store.Rev) []byte {
	buf[start] = valueFormat
	binary.BigEndian.PutUint64(buf[start+1:], uint64(rev))
	return binary.BigEndian.AppendUint32(buf, sum(kind, name, buf[start:]))
}

// unseal returns what a stored value holds; the payload is a part of v.
func unseal(kind string, name, v []byte) (store.Rev, []byte, error) {
	end := len(v) - valueTail
	switch {
	case end < valueHead:
		return 0, nil, damaged(kind, name, "too short")
	case binary.BigEndian.Uint32(v[end:]) != sum(kind, name, v[:end]):
		return 0, nil, damaged(kind, name, "wrong checksum")
	case v[0] != valueFormat:
		return 0, nil, damaged(kind, name, fmt.Sprintf("unknown format %d", v[0]))
	}
	return store.Rev(binary.BigEndian.Uint64(v[1:])), v[valueHead:end], nil
}

func sum(kind string, name, v []byte) uint32 {
	var short [32]byte
	c := crc32.Update(0, castagnoli, append(short[:0], kind...))
	return crc32.Update(crc32.Update(c, castagnoli, name), castagnoli, v)
}

// damaged names a value that cannot be trusted. Keys hold no secrets.
func damaged(kind string, name []byte, how string) error {
	return fmt.Errorf("%w: kind %s, key %q: %s", store.ErrCorrupt, kind, kind+string(name), how)
}

// checksum returns the CRC at the end of a stored value, unchecked.
func checksum(v []byte) uint64 {
	if len(v) < valueTail {
		return 0
	}
	return uint64(binary.BigEndian.Uint32(v[len(v)-valueTail:]))
}

// state is what the bucket "meta" holds.
type state struct {
	rev  store.Rev
	head store.Head
	held census
}

// census tells whether all values are there: a flipped bit in a page's head can
// hide some without breaking the tree.
type census struct {
	count uint64 // of values outside "meta"
	sum   uint64 // of their CRCs, modulo 2^64
}

func (c *census) add(v []byte) {
	c.count++
	c.sum += checksum(v)
}

func (c *census) remove(v []byte) {
	c.count--
	c.sum -= checksum(v)
}

const metaKind = "meta"

var (
	metaBucket = []byte(metaKind)
	stateName  = []byte("/state")
)

func readState(tx *bbolt.Tx) (state, error) {
	b := tx.Bucket(metaBucket)
	if b == nil {
		return state{}, fmt.Errorf("%w: not a store of this server: no bucket %s", store.ErrCorrupt, metaKind)
	}
	v := b.Get(stateName)
	if v == nil {
		return state{}, damaged(metaKind, stateName, "missing")
	}
	return decodeState(v)
}

func decodeState(v []byte) (state, error) {
	rev, payload, err := unseal(metaKind, stateName, v)
	if err != nil {
		return state{}, err
	}
	if len(payload) < 16 {
		return state{}, damaged(metaKind, stateName, "cut off")
	}
	st := state{rev: rev, held: census{binary.BigEndian.Uint64(payload), binary.BigEndian.Uint64(payload[8:])}}
	if st.head, err = store.DecodeHead(payload[16:]); err != nil {
		return state{}, damaged(metaKind, stateName, "not a head")
	}
	return st, nil
}

// encode appends the stored value of st to buf.
func (st state) encode(buf []byte) []byte {
	start := len(buf)
	buf = append(buf, make([]byte, valueHead)...)
	buf = binary.BigEndian.AppendUint64(buf, st.held.count)
	buf = binary.BigEndian.AppendUint64(buf, st.held.sum)
	buf = append(buf, st.head.Encode()...)
	return seal(buf, start, metaKind, stateName, st.rev)
}

func writeState(b *bbolt.Bucket, st state) error { return b.Put(stateName, st.encode(nil)) }

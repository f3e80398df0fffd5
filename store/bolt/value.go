package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

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

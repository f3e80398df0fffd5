package api

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"time"
)

// ID is a time-ordered 128-bit identifier: 48 bits of milliseconds since 1970,
// then 80 random ones. IDs, their bytes and their text sort by creation. The
// zero ID names nothing.
type ID [16]byte

// IDLen is the length of an ID's text: 22 base62 characters.
const IDLen = 22

// Base62 is the alphabet of every identifier and token, in ASCII order.
const Base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// NewID returns an ID of the given moment, completed with random bytes.
func NewID(at time.Time, random [10]byte) ID {
	var id ID
	binary.BigEndian.PutUint64(id[:8], uint64(at.UnixMilli())<<16)
	copy(id[6:], random[:])
	return id
}

// Time returns the moment of the ID's creation, to the millisecond.
func (id ID) Time() time.Time {
	ms := binary.BigEndian.Uint64(id[:8]) >> 16
	return time.UnixMilli(int64(ms)).UTC()
}

// IsZero reports whether the ID names nothing.
func (id ID) IsZero() bool { return id == ID{} }

const pow10 = 839299365868340224 // 62^10, the largest power below 2^63

// Append appends the ID's text to dst.
func (id ID) Append(dst []byte) []byte {
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	var text [IDLen]byte
	end := IDLen
	for _, digits := range [...]int{10, 10, 2} {
		var rest uint64
		q := hi / pow10
		lo, rest = bits.Div64(hi%pow10, lo, pow10)
		hi = q
		for range digits {
			end--
			text[end] = Base62[rest%62]
			rest /= 62
		}
	}
	return append(dst, text[:]...)
}

// String returns the ID's text.
func (id ID) String() string { return string(id.Append(nil)) }

// MarshalText returns the ID's text.
func (id ID) MarshalText() ([]byte, error) { return id.Append(nil), nil }

// ErrID is returned for a text that is no ID.
var ErrID = errors.New("api: not an identifier: 22 base62 characters are expected")

// ParseID reads an ID's text; there is exactly one for each ID.
func ParseID[T string | []byte](text T) (ID, error) {
	var id ID
	if len(text) != IDLen {
		return id, ErrID
	}
	var hi, lo uint64
	for i := range IDLen {
		d := digit62[text[i]]
		if d == 0 {
			return id, ErrID
		}
		carry, low := bits.Mul64(lo, 62)
		overflow, high := bits.Mul64(hi, 62)
		var c uint64
		lo, c = bits.Add64(low, uint64(d-1), 0)
		hi, c = bits.Add64(high, carry, c)
		if overflow != 0 || c != 0 {
			return id, ErrID
		}
	}
	binary.BigEndian.PutUint64(id[:8], hi)
	binary.BigEndian.PutUint64(id[8:], lo)
	return id, nil
}

// digit62 maps a character to its digit plus one, others to 0.
var digit62 = func() (table [256]byte) {
	for i := range len(Base62) {
		table[Base62[i]] = byte(i + 1)
	}
	return table
}()

// Digit62 returns the value of a character of the alphabet, -1 of any other.
func Digit62(c byte) int { return int(digit62[c]) - 1 }

// IsBase62 reports whether c is a character of the alphabet.
func IsBase62(c byte) bool { return digit62[c] != 0 }

package wire

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unicode/utf8"
)

// A scanner that recognizes plain JSON at a glance: ASCII strings without
// escapes, objects of few members, little nesting. It answers "valid" or "ask the
// library", so a defect in it could only ever be one of accepting; a fuzz test
// compares it with the library.

const (
	plainDepth   = 8
	plainMembers = 16
)

// ask is the position that means: not plain, ask the library.
const ask = -1

// inString reports whether c may stand in a plain string.
func inString(c byte) bool { return stringBytes[c] }

// stringBytes are the bytes that stand for themselves in a JSON string.
var stringBytes = func() (table [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return table
}()

// isPlain reports whether s can be quoted without escapes.
func isPlain(s string) bool {
	for i := range len(s) {
		if !inString(s[i]) {
			return false
		}
	}
	return true
}

// plain reports whether data is one valid JSON value without a duplicate member,
// and is so plain that this is sure.
func plain(data []byte) bool {
	if len(data) > math.MaxInt32 {
		return false
	}
	i := plainValue(data, plainSpace(data, 0), 0)
	return i != ask && plainSpace(data, i) == len(data)
}

func plainSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// plainValue returns the position behind the value that begins at i, or ask.
func plainValue(b []byte, i, depth int) int {
	if i >= len(b) || depth > plainDepth {
		return ask
	}
	switch b[i] {
	case '"':
		return plainString(b, i)
	case '{':
		return plainObject(b, i, depth)
	case '[':
		return plainArray(b, i, depth)
	case 't':
		return plainLiteral(b, i, "true")
	case 'f':
		return plainLiteral(b, i, "false")
	case 'n':
		return plainLiteral(b, i, "null")
	}
	return plainInteger(b, i)
}

func plainLiteral(b []byte, i int, want string) int {
	if len(b)-i < len(want) || string(b[i:i+len(want)]) != want {
		return ask
	}
	return i + len(want)
}

// plainString takes eight bytes at a time. In each byte of special the highest bit
// tells of a byte that may not stand in a plain string; a borrow from below can
// set it wrongly, but only above a right one, and the lowest is what counts.
func plainString(b []byte, i int) int {
	const ones = 0x0101010101010101
	for i++; len(b)-i >= 8; i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		control, quote, escape := x-' '*ones, (x^'"'*ones)-ones, (x^'\\'*ones)-ones
		special := (control | quote | escape | x) & (0x80 * ones)
		if special != 0 {
			i += bits.TrailingZeros64(special) / 8
			return plainQuote(b, i)
		}
	}
	for i < len(b) && inString(b[i]) {
		i++
	}
	return plainQuote(b, i)
}

// plainQuote passes the quote that ends a string.
func plainQuote(b []byte, i int) int {
	if i < len(b) && b[i] == '"' {
		return i + 1
	}
	return ask
}

// plainInteger leaves fractions and exponents to the library: they end in a byte
// that no value is followed by.
func plainInteger(b []byte, i int) int {
	if b[i] == '-' {
		i++
	}
	from := i
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	if i == from || b[from] == '0' && i > from+1 {
		return ask
	}
	return i
}

func plainObject(b []byte, i, depth int) int {
	if i = plainSpace(b, i+1); i < len(b) && b[i] == '}' {
		return i + 1
	}
	var names [plainMembers]struct{ from, to int32 }
	for n := range names {
		if i >= len(b) || b[i] != '"' {
			return ask
		}
		from := i
		if i = plainString(b, i); i == ask {
			return ask
		}
		for _, other := range names[:n] {
			if string(b[other.from:other.to]) == string(b[from:i]) {
				return ask
			}
		}
		names[n].from, names[n].to = int32(from), int32(i) //nolint:gosec // plain has looked
		if i = plainSpace(b, i); i >= len(b) || b[i] != ':' {
			return ask
		}
		if i = plainValue(b, plainSpace(b, i+1), depth+1); i == ask {
			return ask
		}
		if i = plainSpace(b, i); i >= len(b) {
			return ask
		}
		switch b[i] {
		case '}':
			return i + 1
		case ',':
			i = plainSpace(b, i+1)
		default:
			return ask
		}
	}
	return ask
}

func plainArray(b []byte, i, depth int) int {
	if i = plainSpace(b, i+1); i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if i = plainValue(b, i, depth+1); i == ask {
			return ask
		}
		if i = plainSpace(b, i); i >= len(b) {
			return ask
		}
		switch b[i] {
		case ']':
			return i + 1
		case ',':
			i = plainSpace(b, i+1)
		default:
			return ask
		}
	}
}

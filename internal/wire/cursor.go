package wire

import (
	"bytes"
	"unsafe"

	"github.com/goccy/go-json/jsontext"
)

// cursor walks a JSON text that is known to be valid; on any other it may panic.
//
//	c := cursor{data: text}
//	for c.enter(); c.more(); {
//		name, value := c.member()
//	}
type cursor struct {
	data []byte
	pos  int
}

// peek passes white space and returns the byte that follows, 0 at the end.
func (c *cursor) peek() byte {
	for c.pos < len(c.data) {
		b := c.data[c.pos]
		if b > ' ' {
			return b
		}
		c.pos++
	}
	return 0
}

// enter passes the bracket that opens an object or array.
func (c *cursor) enter() {
	c.peek()
	c.pos++
}

// more moves to the next member or element; at the end it passes the closing
// bracket and returns false.
func (c *cursor) more() bool {
	switch c.peek() {
	case '}', ']':
		c.pos++
		return false
	case ',':
		c.pos++
		c.peek()
	}
	return true
}

// member returns the raw name of a member, with its quotes, and its raw value.
func (c *cursor) member() (name, value []byte) {
	name = c.text()
	c.peek()
	c.pos++ // the colon
	return name, c.value()
}

// value returns the raw text of the next value.
func (c *cursor) value() []byte {
	switch c.peek() {
	case '"':
		return c.text()
	case '{', '[':
		return c.container()
	}
	from := c.pos
	for c.pos < len(c.data) {
		switch c.data[c.pos] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			return c.data[from:c.pos]
		}
		c.pos++
	}
	return c.data[from:]
}

func (c *cursor) text() []byte {
	from := c.pos
	c.pos++
	for {
		c.pos += bytes.IndexByte(c.data[c.pos:], '"') + 1
		escapes := 0
		for c.data[c.pos-2-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return c.data[from:c.pos]
		}
	}
}

func (c *cursor) container() []byte {
	from, depth := c.pos, 0
	for {
		switch c.data[c.pos] {
		case '"':
			c.text()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		c.pos++
		if depth == 0 {
			return c.data[from:c.pos]
		}
	}
}

// isNull reports whether a raw value is null.
func isNull(raw []byte) bool { return raw[0] == 'n' }

// unquote returns the value of a raw string. It is a part of raw where raw has no
// escapes, else a copy.
func unquote(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	b, err := jsontext.AppendUnquote(nil, raw)
	_ = err // raw is valid
	return b
}

// alias returns b as a string that lives in b's memory: it changes when b does.
func alias(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // the point of it; callers document who may keep the string
}

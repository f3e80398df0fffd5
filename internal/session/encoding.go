package session

import (
	"errors"
	"fmt"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"sessiond/internal/api"
)

// ErrRecord is wrapped by every error of reading a stored form.
var ErrRecord = errors.New("session: malformed record")

// encoder appends fields; zero values are left out, but for nested ones.
type encoder []byte

func (e *encoder) number(f protowire.Number, n uint64) {
	if n != 0 {
		*e = protowire.AppendVarint(protowire.AppendTag(*e, f, protowire.VarintType), n)
	}
}

func (e *encoder) signed(f protowire.Number, n int64) { e.number(f, protowire.EncodeZigZag(n)) }

func (e *encoder) text(f protowire.Number, s string) {
	if s != "" {
		*e = protowire.AppendString(protowire.AppendTag(*e, f, protowire.BytesType), s)
	}
}

func (e *encoder) bytes(f protowire.Number, b []byte) {
	if len(b) > 0 {
		e.nested(f, b)
	}
}

func (e *encoder) nested(f protowire.Number, b []byte) {
	*e = protowire.AppendBytes(protowire.AppendTag(*e, f, protowire.BytesType), b)
}

func signed(n uint64) int64 { return protowire.DecodeZigZag(n) }

// fields calls do for each field of a message, with its number or its bytes,
// which alias data.
func fields(data []byte, do func(f protowire.Number, n uint64, b []byte) error) error {
	for len(data) > 0 {
		f, kind, size := tag(data)
		if size < 0 {
			return fmt.Errorf("%w: a tag is cut", ErrRecord)
		}
		data = data[size:]
		var number uint64
		var bytes []byte
		switch short := len(data) > 0 && data[0] < 0x80; {
		case kind == protowire.VarintType && short:
			number, size = uint64(data[0]), 1
		case kind == protowire.VarintType:
			number, size = protowire.ConsumeVarint(data)
		case kind == protowire.BytesType && short && len(data) > int(data[0]):
			size = 1 + int(data[0])
			bytes = data[1:size]
		case kind == protowire.BytesType:
			bytes, size = protowire.ConsumeBytes(data)
		default:
			size = protowire.ConsumeFieldValue(f, kind, data)
		}
		if size < 0 {
			return fmt.Errorf("%w: field %d is cut", ErrRecord, f)
		}
		if err := do(f, number, bytes); err != nil {
			return fmt.Errorf("field %d: %w", f, err)
		}
		data = data[size:]
	}
	return nil
}

// tag reads the number and the kind of a field, at once those of a byte or two:
// a listing reads forty for each of a million sessions.
func tag(data []byte) (f protowire.Number, kind protowire.Type, size int) {
	switch {
	case data[0] < 0x80 && data[0] >= 1<<3:
		return protowire.Number(data[0] >> 3), protowire.Type(data[0] & 7), 1
	case data[0] >= 0x80 && len(data) > 1 && data[1] < 0x80 && data[1] > 0:
		n := uint(data[0]&0x7f) | uint(data[1])<<7
		return protowire.Number(n >> 3), protowire.Type(n & 7), 2 //nolint:gosec // 14 bits
	}
	return protowire.ConsumeTag(data)
}

func unknown(f protowire.Number) error {
	return fmt.Errorf("%w: field %d is unknown, a newer program wrote it", ErrRecord, f)
}

func decodeID(b []byte) (api.ID, error) {
	if len(b) != len(api.ID{}) {
		return api.ID{}, ErrRecord
	}
	return api.ID(b), nil
}

// bytesOf returns the bytes of s, which must not be written to.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) } //nolint:gosec // nobody writes to it

package filter

import (
	"net/netip"
	"time"
)

// A Value is what a record has in a field. The zero Value is absent.
type Value struct {
	kind   Kind
	nanos  int32
	number int64 // 0 or 1 of a Bool; the seconds of a Time
	text   string
	texts  []string
	addr   netip.Addr
}

// OfText returns a Text. An empty one is present.
func OfText(text string) Value { return Value{kind: Text, text: text} }

// OfNumber returns a Number.
func OfNumber(n int64) Value { return Value{kind: Number, number: n} }

// OfBool returns a Bool.
func OfBool(b bool) Value {
	if b {
		return Value{kind: Bool, number: 1}
	}
	return Value{kind: Bool}
}

// OfTime returns a Time; the zero time is absent.
func OfTime(t time.Time) Value {
	if t.IsZero() {
		return Value{}
	}
	return Value{kind: Time, number: t.Unix(), nanos: int32(t.Nanosecond())} //nolint:gosec // below 1e9
}

// OfUnix returns a Time by its seconds since 1970; 0 is absent.
func OfUnix(seconds int64) Value {
	if seconds == 0 {
		return Value{}
	}
	return Value{kind: Time, number: seconds}
}

// OfAddress returns an Address, without its zone, and an IPv4 address as such
// even where it is written in IPv6. An invalid one is absent.
func OfAddress(a netip.Addr) Value {
	if !a.IsValid() {
		return Value{}
	}
	return Value{kind: Address, addr: a.Unmap().WithZone("")}
}

// OfSet returns a Set, which keeps the slice; an empty one is absent.
func OfSet(texts []string) Value {
	if len(texts) == 0 {
		return Value{}
	}
	return Value{kind: Set, texts: texts}
}

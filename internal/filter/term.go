package filter

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An operator of a comparison; the zero one is none.
type operator uint8

const (
	eq operator = iota + 1
	co
	sw
	lt
	le
	gt
	ge
	in
	pr
)

// String returns the operator's keyword.
func (o operator) String() string {
	return [...]string{"", "eq", "co", "sw", "lt", "le", "gt", "ge", "in", "pr"}[o]
}

// operators returns those that go with a kind, in the order in which an error
// lists them.
func (k Kind) operators() []operator {
	switch k {
	case Text:
		return []operator{eq, co, sw, lt, le, gt, ge, in, pr}
	case Number, Time:
		return []operator{eq, lt, le, gt, ge, in, pr}
	case Bool:
		return []operator{eq, in, pr}
	case Address:
		return []operator{eq, sw, in, pr}
	case Set:
		return []operator{eq, co, sw, in, pr}
	default:
		return nil
	}
}

// A term compares one field.
type term struct {
	field  int
	name   string // as it is written, the member included
	member string
	kind   Kind
	op     operator
	values []literal // one; none of pr; of in several, sorted and distinct
}

// A literal is a value in a filter. What its kind does not need is zero.
type literal struct {
	text    string
	number  int64
	nanos   int32
	network netip.Prefix // an address is the network of its own
}

func (l *literal) compare(with *literal) int {
	return cmp.Or(strings.Compare(l.text, with.text), cmp.Compare(l.number, with.number), cmp.Compare(l.nanos, with.nanos),
		l.network.Compare(with.network))
}

// tidy gives terms that mean the same one form.
func (t *term) tidy() {
	if t.kind == Address && t.op == sw || t.kind == Set && t.op == co {
		t.op = eq
	}
	slices.SortFunc(t.values, func(a, b literal) int { return a.compare(&b) })
	t.values = slices.Compact(t.values)
	if t.op == in && len(t.values) == 1 {
		t.op = eq
	}
}

func (t *term) match(r Record) bool {
	v := r.Value(t.field, t.member)
	if v.kind != t.kind {
		return false
	}
	if t.op == pr {
		return true
	}
	for i := range t.values {
		if t.values[i].match(t.kind, t.op, &v) {
			return true
		}
	}
	return false
}

func (l *literal) match(kind Kind, op operator, v *Value) bool {
	switch kind {
	case Text:
		return op.holdsOf(v.text, l.text)
	case Set:
		for _, text := range v.texts {
			if op.holdsOf(text, l.text) {
				return true
			}
		}
		return false
	case Address:
		return l.network.Contains(v.addr)
	default:
		order := cmp.Compare(v.number, l.number)
		if order == 0 {
			order = cmp.Compare(v.nanos, l.nanos)
		}
		return op.holds(order)
	}
}

// holdsOf reports whether a comparison of texts is true.
func (o operator) holdsOf(text, with string) bool {
	switch o {
	case eq, in:
		return text == with
	case co:
		return strings.Contains(text, with)
	case sw:
		return strings.HasPrefix(text, with)
	default:
		return o.holds(strings.Compare(text, with))
	}
}

// holds reports whether a comparison that gave order, below, at or above 0, is
// what the operator asks for.
func (o operator) holds(order int) bool {
	switch o {
	case lt:
		return order < 0
	case le:
		return order <= 0
	case gt:
		return order > 0
	case ge:
		return order >= 0
	default: // eq, and in of one of its values
		return order == 0
	}
}

func (t *term) required(field int) (values []string, ok bool) {
	if t.field != field || t.member != "" || t.kind != Text || t.op != eq && t.op != in {
		return nil, false
	}
	for _, l := range t.values {
		values = append(values, l.text)
	}
	return values, true
}

func (t *term) append(dst []byte) []byte {
	dst = append(dst, t.name...)
	dst = append(dst, ' ')
	dst = append(dst, t.op.String()...)
	switch t.op {
	case pr:
		return dst
	case in:
		dst = append(dst, ' ', '[')
		for i := range t.values {
			if i > 0 {
				dst = append(dst, ',', ' ')
			}
			dst = t.values[i].append(dst, t.kind)
		}
		return append(dst, ']')
	default:
		return t.values[0].append(append(dst, ' '), t.kind)
	}
}

func (l *literal) append(dst []byte, kind Kind) []byte {
	switch kind {
	case Number:
		return strconv.AppendInt(dst, l.number, 10)
	case Bool:
		return strconv.AppendBool(dst, l.number == 1)
	case Time:
		dst = time.Unix(l.number, int64(l.nanos)).UTC().AppendFormat(append(dst, '"'), time.RFC3339Nano)
		return append(dst, '"')
	case Address:
		if dst = append(dst, '"'); l.network.IsSingleIP() {
			dst = l.network.Addr().AppendTo(dst)
		} else {
			dst = l.network.AppendTo(dst)
		}
		return append(dst, '"')
	default:
		return appendQuoted(dst, l.text)
	}
}

// appendQuoted appends a text as a JSON string.
func appendQuoted(dst []byte, text string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range []byte(text) {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

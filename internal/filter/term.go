package filter

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An operator's text is its keyword.
type operator string

const (
	eq operator = "eq"
	co operator = "co"
	sw operator = "sw"
	lt operator = "lt"
	le operator = "le"
	gt operator = "gt"
	ge operator = "ge"
	in operator = "in"
	pr operator = "pr"
)

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

func (a literal) compare(b literal) int {
	return cmp.Or(strings.Compare(a.text, b.text), cmp.Compare(a.number, b.number), cmp.Compare(a.nanos, b.nanos),
		a.network.Compare(b.network))
}

// tidy gives terms that mean the same one form.
func (t *term) tidy() {
	if t.kind == Address && t.op == sw || t.kind == Set && t.op == co {
		t.op = eq
	}
	slices.SortFunc(t.values, literal.compare)
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
	switch t.kind {
	case Text:
		return t.matchText(v.text)
	case Set:
		return slices.ContainsFunc(v.texts, t.matchText)
	case Address:
		for i := range t.values {
			if t.values[i].network.Contains(v.addr) {
				return true
			}
		}
		return false
	default:
		return t.matchNumber(v.number, v.nanos)
	}
}

func (t *term) matchText(text string) bool {
	switch want := t.values[0].text; t.op {
	case eq:
		return text == want
	case co:
		return strings.Contains(text, want)
	case sw:
		return strings.HasPrefix(text, want)
	case in:
		_, found := slices.BinarySearchFunc(t.values, text, func(l literal, text string) int { return strings.Compare(l.text, text) })
		return found
	default:
		return t.op.holds(strings.Compare(text, want))
	}
}

func (t *term) matchNumber(number int64, nanos int32) bool {
	for i := range t.values {
		if t.op.holds(cmp.Or(cmp.Compare(number, t.values[i].number), cmp.Compare(nanos, t.values[i].nanos))) {
			return true
		}
	}
	return false
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
	dst = append(dst, t.op...)
	switch t.op {
	case pr:
		return dst
	case in:
		dst = append(dst, ' ', '[')
		for i, l := range t.values {
			if i > 0 {
				dst = append(dst, ',', ' ')
			}
			dst = l.append(dst, t.kind)
		}
		return append(dst, ']')
	default:
		return t.values[0].append(append(dst, ' '), t.kind)
	}
}

func (l literal) append(dst []byte, kind Kind) []byte {
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

package filter

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sessiond/internal/api"
)

// parser reads a text from left to right, one token ahead, and stops at the
// first error.
type parser struct {
	text   string
	fields Table
	now    int64 // Unix seconds

	offset int // where the next token begins
	token  token
	depth  int
	terms  int
	bad    *api.Error
}

// fail reports what is wrong at an offset, unless something was before.
func (p *parser) fail(at int, format string, args ...any) {
	if p.bad == nil {
		position := utf8.RuneCountInString(p.text[:at]) + 1
		p.bad = api.Errorf(api.BadParam, "filter, position %d: %s", position, fmt.Sprintf(format, args...))
		p.next()
	}
}

// keyword reports whether the token is a word, whatever its case.
func (p *parser) keyword(name string) bool {
	return p.token.kind == word && strings.EqualFold(p.token.text, name)
}

func (p *parser) filter() node {
	for i, r := range p.text {
		if r == utf8.RuneError && !strings.HasPrefix(p.text[i:], "\uFFFD") {
			p.fail(i, "this is no UTF-8")
			return node{}
		}
		if i+utf8.RuneLen(r) > MaxBytes {
			p.fail(i, "a filter has at most %d bytes", MaxBytes)
			return node{}
		}
	}
	p.next()
	n := p.or()
	if p.token.kind != end {
		p.fail(p.token.at, `"and", "or" or the end is expected`)
	}
	return n
}

func (p *parser) or() node {
	kids := []node{p.and()}
	for p.keyword("or") {
		p.next()
		kids = append(kids, p.and())
	}
	return joined(false, kids)
}

func (p *parser) and() node {
	kids := []node{p.not()}
	for p.keyword("and") {
		p.next()
		kids = append(kids, p.not())
	}
	return joined(true, kids)
}

func (p *parser) not() node {
	not := false
	for p.token.kind == '!' || p.keyword("not") {
		not = !not
		p.next()
	}
	n := p.primary()
	if not {
		n.negate()
	}
	return n
}

func (p *parser) primary() node {
	if p.token.kind == '(' {
		return p.group()
	}
	if p.token.kind != word || p.keyword("and") || p.keyword("or") {
		p.fail(p.token.at, `a field, "true", "false", "!" or "(" is expected`)
		return node{}
	}
	if p.terms++; p.terms > MaxTerms {
		p.fail(p.token.at, "a filter has at most %d comparisons", MaxTerms)
		return node{}
	}
	for _, literal := range []bool{true, false} {
		if p.keyword(strconv.FormatBool(literal)) {
			p.next()
			return node{all: literal}
		}
	}
	return node{term: p.comparison()}
}

func (p *parser) group() node {
	if p.depth == MaxDepth {
		p.fail(p.token.at, "parentheses are nested at most %d deep", MaxDepth)
		return node{}
	}
	p.depth++
	p.next()
	n := p.or()
	if p.token.kind != ')' {
		p.fail(p.token.at, `"and", "or" or ")" is expected`)
	}
	p.next()
	p.depth--
	return n
}

func (p *parser) comparison() *term {
	number, member, kind, ok := p.fields.find(p.token.text)
	if !ok {
		p.fail(p.token.at, "there is no field of this name: the reference lists them")
		return nil
	}
	t := &term{field: number, name: p.fields[number].Name, member: member, kind: kind}
	if member != "" {
		t.name += "/" + strings.ReplaceAll(member, "~", "~0")
	}
	p.next()
	p.operator(t)
	switch t.op {
	case 0, pr:
	case in:
		p.list(t)
	default:
		t.values = []literal{p.value(t)}
	}
	t.tidy()
	return t
}

// operator reads one that goes with the kind of the field.
func (p *parser) operator(t *term) {
	offered := t.kind.operators()
	i := slices.IndexFunc(offered, func(o operator) bool { return p.keyword(o.String()) })
	if i < 0 {
		list := make([]string, len(offered))
		for i, o := range offered {
			list[i] = o.String()
		}
		last := len(list) - 1
		p.fail(p.token.at, "one of the operators of this field is expected: %s or %s", strings.Join(list[:last], ", "), list[last])
		return
	}
	t.op = offered[i]
	p.next()
}

func (p *parser) list(t *term) {
	if p.token.kind != '[' {
		p.fail(p.token.at, `"[" is expected, and values with commas between them`)
	}
	for p.bad == nil {
		p.next()
		if len(t.values) == MaxValues {
			p.fail(p.token.at, "a list has at most %d values", MaxValues)
			return
		}
		t.values = append(t.values, p.value(t))
		if p.token.kind == ']' {
			p.next()
			return
		}
		if p.token.kind != ',' {
			p.fail(p.token.at, `"," or "]" is expected`)
		}
	}
}

// value reads one of the kind of the field.
func (p *parser) value(t *term) (l literal) {
	ok := p.token.kind == quoted
	var expected string
	switch t.kind {
	case Number:
		expected = "a whole number is expected"
		l.number, ok = wholeNumber(p.token)
	case Bool:
		expected = `"true" or "false" is expected, without quotes`
		ok = p.keyword("true") || p.keyword("false")
		if p.keyword("true") {
			l.number = 1
		}
	case Time:
		expected = `a time in quotes is expected, such as "2026-01-31T00:00:00Z", or one relative to now: a sign, a number and one of s, m, h, d and w, such as "-30d"`
		if ok {
			l, ok = timeIn(p.token.text, p.now)
		}
	case Address:
		expected = `an address or a network in quotes is expected, such as "10.0.0.1" or "10.0.0.0/8"`
		if ok {
			l.network, ok = networkIn(p.token.text)
		}
	default:
		expected = "a text in quotes is expected"
		l.text = p.token.text
		field := &p.fields[t.field]
		if field.Fold != nil {
			l.text = field.Fold(l.text)
		}
		if ok && field.OneOf != nil && (t.op == eq || t.op == in || t.kind == Set && t.op == co) && !slices.Contains(field.OneOf, l.text) {
			expected = "one of the values of this field is expected: " + strings.Join(field.OneOf, ", ")
			ok = false
		}
	}
	if !ok {
		p.fail(p.token.at, "%s", expected)
		return literal{}
	}
	p.next()
	return l
}

// wholeNumber reads a JSON number without fraction and exponent.
func wholeNumber(t token) (int64, bool) {
	n, err := strconv.ParseInt(t.text, 10, 64)
	return n, t.kind == word && err == nil && strconv.FormatInt(n, 10) == t.text
}

// timeIn reads a moment, which RFC 3339 or a distance from now gives.
func timeIn(text string, now int64) (l literal, ok bool) {
	if text != "" && (text[0] == '-' || text[0] == '+') {
		seconds, ok := distance(text)
		l.number = now + seconds
		return l, ok && hasYear(l.number)
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || strings.IndexByte(text, ':') != len("2006-01-02T15") || strings.Contains(text, ",") { // which Parse lets pass
		return l, false
	}
	l.number, l.nanos = t.Unix(), int32(t.Nanosecond()) //nolint:gosec // below 1e9
	return l, hasYear(l.number)
}

// distance reads a sign, a number and a unit, as seconds.
func distance(text string) (seconds int64, ok bool) {
	if len(text) < 3 {
		return 0, false
	}
	switch text[len(text)-1] {
	case 's':
		seconds = 1
	case 'm':
		seconds = 60
	case 'h':
		seconds = 60 * 60
	case 'd':
		seconds = 24 * 60 * 60
	case 'w':
		seconds = 7 * 24 * 60 * 60
	default:
		return 0, false
	}
	n, err := strconv.ParseUint(text[1:len(text)-1], 10, 30) // of more the product could overflow
	if text[0] == '-' {
		seconds = -seconds
	}
	return seconds * int64(n), err == nil
}

// hasYear reports whether a moment can be written with a year of four digits.
func hasYear(unix int64) bool {
	year := time.Unix(unix, 0).UTC().Year()
	return unix > math.MinInt64/2 && unix < math.MaxInt64/2 && year >= 1 && year <= 9999
}

// networkIn reads an address, or a network by its address and length.
func networkIn(text string) (netip.Prefix, bool) {
	network, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, false
		}
		network = netip.PrefixFrom(a, a.BitLen())
	}
	if a := network.Addr(); a.Is4In6() && network.Bits() >= 96 {
		network = netip.PrefixFrom(a.Unmap(), network.Bits()-96)
	}
	return network.Masked(), true
}

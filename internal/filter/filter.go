package filter

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"sessiond/internal/api"
)

// Bounds of a filter. Parse refuses what exceeds them.
const (
	MaxBytes  = 4096
	MaxTerms  = 100 // comparisons and literals
	MaxDepth  = 16  // parentheses in parentheses
	MaxValues = 100 // of one in
)

// A Kind is what a field holds, and so how it compares. The zero Kind is none.
type Kind uint8

// The kinds of fields.
const (
	Text   Kind = iota + 1 // compares byte by byte, so in the order of code points
	Number                 // a whole one
	Bool
	Time    // to the nanosecond
	Address // equals itself and each network that holds it
	Set     // of texts; a comparison is true of a set if it is of an element
)

// A Table says which fields there are. The index of a field is its number,
// which Record.Value is asked for; entries of the zero Kind and without Members
// name nothing.
type Table []Field

// A Field is something that sessions can be told apart by.
type Field struct {
	// Name is that of the wire, such as device/browser. It is no keyword.
	Name string

	Kind Kind

	// Fold, of a Text or Set, returns the one form of all texts that count as the
	// same; nil keeps them as they are. It takes any text, parts of values too,
	// and a second pass changes nothing. Records give folded values.
	Fold func(text string) string

	// OneOf, of a Text or Set, are the values that it can have, if they are few
	// and known: eq and in take no other, so that a slip of the pen is told
	// instead of finding nothing, or everything where it is negated.
	OneOf []string

	// Members, unless nil, makes the field a family: NAME/MEMBER for each member
	// that it knows, and gives their kinds. It takes the place of Kind.
	Members func(member string) (Kind, bool)
}

// A Record is what is filtered.
type Record interface {
	// Value returns what the record has in a field, by the field's number in the
	// Table; member is empty but for families. A value of another kind than the
	// field's counts as absent.
	Value(field int, member string) Value
}

// A Filter is a parsed filter. It does not change and may be shared. The zero
// Filter finds nothing.
type Filter struct{ root node }

// Parse reads a filter. Times relative to now are resolved to the second, so
// that the Filter means the same whenever it is used. An error is BadParam and
// names the position, in characters from 1, and what is expected there, and
// repeats nothing of the text.
func Parse(text string, fields Table, now time.Time) (*Filter, *api.Error) {
	p := parser{text: text, fields: fields, now: now.Unix()}
	root := p.filter()
	if p.bad != nil {
		return nil, p.bad
	}
	return &Filter{root}, nil
}

// Match reports whether the filter finds a record. It allocates nothing.
func (f *Filter) Match(r Record) bool { return f.root.match(r) }

// Required returns the only values that a Text field can have in a record that
// the filter finds, sorted, so that they can be looked up instead of trying
// every record; those may still not match. ok is false if the filter does not
// confine the field so. No values at all: it finds nothing.
func (f *Filter) Required(field int) (values []string, ok bool) {
	values, ok = f.root.required(field)
	slices.Sort(values)
	return slices.Compact(values), ok
}

// Uses reports whether a field takes part in the filter.
func (f *Filter) Uses(field int) bool { return f.root.uses(field) }

// String returns the filter in its canonical form: keywords in lower case,
// single spaces, no needless parentheses, the values of in sorted, times in UTC
// and none of them relative. Parse reads it as the same filter, unless it has
// become longer than MaxBytes.
func (f *Filter) String() string { return string(f.root.append(nil)) }

// A node is a term, or joins other nodes: it is true if all of them are, or else
// if any is. So joining none is the literal true, or false. The zero node finds
// nothing.
type node struct {
	not  bool
	all  bool
	kids []node
	term *term
}

// joined returns a node over all, or any, of its kids. Those that join in the same way become part of
// it, and a single kid stands for itself.
func joined(all bool, kids []node) node {
	n := node{all: all}
	for _, kid := range kids {
		if kid.term == nil && !kid.not && kid.all == all {
			n.kids = append(n.kids, kid.kids...)
		} else {
			n.kids = append(n.kids, kid)
		}
	}
	if len(n.kids) == 1 {
		return n.kids[0]
	}
	return n
}

// negate makes it true where it was false.
func (n *node) negate() {
	if n.term == nil && len(n.kids) == 0 {
		n.all = !n.all
	} else {
		n.not = !n.not
	}
}

func (n *node) match(r Record) bool {
	if n.term != nil {
		return n.term.match(r) != n.not
	}
	for i := range n.kids {
		if n.kids[i].match(r) != n.all {
			return n.all == n.not
		}
	}
	return n.all != n.not
}

func (n *node) required(field int) (values []string, ok bool) {
	switch {
	case n.not:
		return nil, false
	case n.term != nil:
		return n.term.required(field)
	case !n.all:
		for i := range n.kids {
			more, ok := n.kids[i].required(field)
			if !ok {
				return nil, false
			}
			values = append(values, more...)
		}
		return values, true
	}
	for i := range n.kids {
		if other, found := n.kids[i].required(field); found && (!ok || len(other) < len(values)) {
			values, ok = other, true
		}
	}
	return values, ok
}

func (n *node) uses(field int) bool {
	return n.term != nil && n.term.field == field ||
		slices.ContainsFunc(n.kids, func(kid node) bool { return kid.uses(field) })
}

func (n *node) append(dst []byte) []byte {
	if n.not {
		dst = append(dst, '!')
	}
	switch {
	case n.term != nil:
		return n.term.append(dst)
	case len(n.kids) == 0:
		return strconv.AppendBool(dst, n.all)
	}
	if n.not {
		dst = append(dst, '(')
	}
	for i := range n.kids {
		kid := &n.kids[i]
		switch {
		case i == 0:
		case n.all:
			dst = append(dst, " and "...)
		default:
			dst = append(dst, " or "...)
		}
		if !kid.all && !kid.not && len(kid.kids) > 0 {
			dst = append(kid.append(append(dst, '(')), ')')
		} else {
			dst = kid.append(dst)
		}
	}
	if n.not {
		dst = append(dst, ')')
	}
	return dst
}

// find returns the number of the field that a word names.
func (t Table) find(word string) (field int, member string, kind Kind, ok bool) {
	name := strings.TrimPrefix(word, "/")
	if strings.Contains(name, "~") {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
	}
	for i, f := range t {
		switch {
		case f.Members == nil:
			if f.Kind != 0 && f.Name == name {
				return i, "", f.Kind, true
			}
		case strings.HasPrefix(name, f.Name+"/"):
			member = name[len(f.Name)+1:]
			if kind, ok = f.Members(member); ok && kind != 0 {
				return i, member, kind, true
			}
		}
	}
	return 0, "", 0, false
}

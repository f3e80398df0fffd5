package wire

import (
	"strconv"
	"unicode/utf8"

	"sessiond/internal/api"
)

// Kind is the kind of a JSON value.
type Kind uint8

// The kinds.
const (
	Null Kind = iota
	Bool
	Number
	String
	Object
	Array
)

// String returns the name of the kind, as a message says it.
func (k Kind) String() string {
	return [...]string{"null", "true or false", "a number", "a string", "an object", "an array"}[k]
}

// Node is one value of a JSON text, in the order and with the places of the text.
type Node struct {
	Kind    Kind
	Offset  int      // of the value's first byte in the text
	Raw     []byte   // the value as it stands there, a part of the text
	Members []Member // of an object; one that stands twice is there twice
	Items   []*Node  // of an array
}

// Member is one member of an object.
type Member struct {
	Name   string
	Offset int // of the name's opening quote
	Value  *Node
}

// Fault is something wrong in a JSON text, and where.
type Fault struct {
	Pointer string // JSON Pointer
	Offset  int    // in bytes; Line turns it into line and column
	Code    api.Code
	Message string // quotes nothing of the text
}

// ParseTree reads a JSON text into a tree. Each member that stands twice in its
// object is a fault, and reading goes on; a fault of syntax ends it, and the tree
// is nil.
func ParseTree(data []byte) (*Node, []Fault) {
	if f := checkSyntax(data); f != nil {
		return nil, []Fault{{Pointer: cut(f.pointer, api.MaxPointer), Offset: f.offset, Code: f.code, Message: f.message}}
	}
	p := parser{cursor: cursor{data: data}}
	return p.node(""), p.faults
}

type parser struct {
	cursor
	faults []Fault
}

func (p *parser) node(pointer string) *Node {
	n := &Node{}
	first := p.peek()
	n.Offset = p.pos
	switch first {
	case '{':
		n.Kind = Object
		p.members(n, pointer)
	case '[':
		n.Kind = Array
		for p.enter(); p.more(); {
			n.Items = append(n.Items, p.node(pointer+"/"+strconv.Itoa(len(n.Items))))
		}
	default:
		n.Kind = map[byte]Kind{'"': String, 't': Bool, 'f': Bool, 'n': Null}[first]
		if first == '-' || '0' <= first && first <= '9' {
			n.Kind = Number
		}
		p.value()
	}
	n.Raw = p.data[n.Offset:p.pos]
	return n
}

func (p *parser) members(n *Node, pointer string) {
	names := map[string]bool{}
	for p.enter(); p.more(); {
		m := Member{Offset: p.pos}
		m.Name = string(unquote(p.text()))
		p.peek()
		p.pos++ // the colon
		at := pointer
		if len(at) <= api.MaxPointer {
			at += segment(m.Name)
		}
		if names[m.Name] {
			p.faults = append(p.faults, Fault{
				Pointer: cut(at, api.MaxPointer), Offset: m.Offset, Code: api.DuplicateMember,
				Message: "the member stands twice in its object",
			})
		}
		names[m.Name] = true
		m.Value = p.node(at)
		n.Members = append(n.Members, m)
	}
}

// String returns the text of a string; ok is false for other kinds.
func (n *Node) String() (text string, ok bool) {
	if n.Kind != String {
		return "", false
	}
	return string(unquote(n.Raw)), true
}

// Int64 returns an integer; ok is false for other kinds, and for numbers with a
// fraction or an exponent or beyond 64 bits.
func (n *Node) Int64() (i int64, ok bool) {
	if n.Kind != Number {
		return 0, false
	}
	i, err := strconv.ParseInt(string(n.Raw), 10, 64)
	return i, err == nil
}

// Bool returns a truth value; ok is false for other kinds.
func (n *Node) Bool() (value, ok bool) {
	return n.Kind == Bool && n.Raw[0] == 't', n.Kind == Bool
}

// Member returns the first member of that name, or nil.
func (n *Node) Member(name string) *Node {
	for _, m := range n.Members {
		if m.Name == name {
			return m.Value
		}
	}
	return nil
}

// Line returns where an offset is in a text, as an editor counts: lines and
// characters from 1.
func Line(data []byte, offset int) (line, column int) {
	line, column = 1, 1
	for i := 0; i < min(offset, len(data)); {
		_, size := utf8.DecodeRune(data[i:])
		if data[i] == '\n' {
			line, column = line+1, 0
		}
		column++
		i += size
	}
	return line, column
}

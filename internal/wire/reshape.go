package wire

import (
	"fmt"
	"slices"

	"sessiond/internal/api"
)

// Reshape appends result, which is a JSON value of the shape s, in the form that o
// asks for; s may be nil where nobody knows it.
//
//   - Omit and ExcludeFields leave members out, of result and of the objects in
//     its arrays: Omit only of result itself.
//   - IncludeFields keeps only the members it names: of the objects in the arrays
//     of result, and then what stands beside the arrays, such as a cursor, stays;
//     where result has no array of objects, of result itself.
//   - DataFormat "arrays" turns every array of objects, however deep, into
//     {"fields":[…],"rows":[[…]]}; null stands for a member that an object lacks.
//     An empty array stays as it is.
//   - NumberFormat "string" quotes every number.
//
// BinaryFormat is left to whoever writes binary values. An error means that
// result is no JSON, or names a member twice.
func Reshape(dst, result []byte, o api.ResponseOptions, s *Shape) ([]byte, error) {
	root, faults := ParseTree(result)
	if len(faults) > 0 {
		return dst, fmt.Errorf("wire: the result is no JSON to reshape: %s", faults[0].Message)
	}
	root.filter(o, s)
	f := form{quoteNumbers: o.NumberFormat == "string", rows: o.DataFormat == "arrays"}
	return f.append(dst, root), nil
}

// filter leaves members out, of a result and of the objects in its arrays.
func (n *Node) filter(o api.ResponseOptions, s *Shape) {
	if n.Kind == Array {
		n.filterItems(o)
		return
	}
	isList := func(m Member) bool { return m.Value.isRows() || m.Value.Kind == Array && s.isList(m.Name) }
	own := o
	if slices.ContainsFunc(n.Members, isList) {
		own.IncludeFields = nil
	}
	kept := n.Members[:0]
	for _, m := range n.Members {
		if slices.Contains(o.Omit, m.Name) || !keeps(own, m.Name) {
			continue
		}
		if isList(m) {
			m.Value.filterItems(o)
		}
		kept = append(kept, m)
	}
	n.Members = kept
}

// isList reports whether a member is an array of objects, be it empty.
func (s *Shape) isList(name string) bool {
	return s != nil && slices.ContainsFunc(s.Fields(), func(f Field) bool { return f.Name == name && f.Type == "array of object" })
}

func (n *Node) filterItems(o api.ResponseOptions) {
	for _, item := range n.Items {
		item.Members = slices.DeleteFunc(item.Members, func(m Member) bool { return !keeps(o, m.Name) })
	}
}

func keeps(o api.ResponseOptions, name string) bool {
	return (len(o.IncludeFields) == 0 || slices.Contains(o.IncludeFields, name)) && !slices.Contains(o.ExcludeFields, name)
}

// isRows reports whether n is an array of objects, and not empty.
func (n *Node) isRows() bool {
	return n.Kind == Array && len(n.Items) > 0 && !slices.ContainsFunc(n.Items, func(item *Node) bool { return item.Kind != Object })
}

// form is how a tree is written.
type form struct{ quoteNumbers, rows bool }

func (f form) append(dst []byte, n *Node) []byte {
	switch {
	case n == nil: // a cell whose object lacks the member
		return append(dst, "null"...)
	case n.Kind == Number && f.quoteNumbers:
		dst = append(dst, '"')
		dst = append(dst, n.Raw...)
		return append(dst, '"')
	case n.Kind == Object:
		return f.appendObject(dst, n)
	case n.Kind == Array && f.rows && n.isRows():
		return f.appendRows(dst, n)
	case n.Kind == Array:
		return f.appendItems(dst, n.Items)
	}
	return append(dst, n.Raw...)
}

func (f form) appendObject(dst []byte, n *Node) []byte {
	dst = append(dst, '{')
	for i, m := range n.Members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, m.Name), ':')
		dst = f.append(dst, m.Value)
	}
	return append(dst, '}')
}

func (f form) appendItems(dst []byte, items []*Node) []byte {
	dst = append(dst, '[')
	for i, item := range items {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = f.append(dst, item)
	}
	return append(dst, ']')
}

func (f form) appendRows(dst []byte, n *Node) []byte {
	var fields []string
	column := map[string]int{}
	for _, item := range n.Items {
		for _, m := range item.Members {
			if _, ok := column[m.Name]; !ok {
				column[m.Name] = len(fields)
				fields = append(fields, m.Name)
			}
		}
	}
	dst = append(dst, `{"fields":[`...)
	for i, name := range fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, name)
	}
	dst = append(dst, `],"rows":[`...)
	for i, item := range n.Items {
		if i > 0 {
			dst = append(dst, ',')
		}
		row := make([]*Node, len(fields))
		for _, m := range item.Members {
			row[column[m.Name]] = m.Value
		}
		dst = f.appendItems(dst, row)
	}
	return append(dst, `]}`...)
}

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sessiond/internal/wire"
)

// reader walks the tree of one file and collects what it finds. Its methods
// return ok false after they have noted a fault.
type reader struct {
	name     string
	data     []byte
	where    map[string]int // offset of each value that was looked at, by pointer
	faults   []finding
	warnings []finding
}

type finding struct {
	offset  int // -1 where the cause is outside of the file
	pointer string
	message string
}

// outside stands for a place that the file does not have: what a flag said.
const outside = "\x00"

func newReader(name string, data []byte) *reader {
	return &reader{name: name, data: data, where: map[string]int{}}
}

// config reads the whole file.
func (r *reader) config(overrides []Override) *Config {
	root, faults := wire.ParseTree(r.data)
	for _, f := range faults {
		message := f.Message + "; remove one of the two"
		if root == nil {
			message = hint(r.data, f.Offset, f.Message)
		}
		// A pointer that was cut may end in the middle of an escape.
		r.faults = append(r.faults, finding{f.Offset, strings.TrimSuffix(f.Pointer, "~"), message})
	}
	if root == nil {
		return nil
	}
	r.where[""] = root.Offset
	profile := ""
	if n := root.Member("profile"); n != nil {
		profile, _ = n.String()
	}
	c := builtin(profile)
	readObject(r, "", root, topRows(), c)
	before := slices.Clone(c.Listeners)
	for _, override := range overrides {
		override(c)
	}
	checkWhole(r, c, !slices.Equal(before, c.Listeners))
	return c
}

// hint explains the faults of syntax that people make.
func hint(data []byte, offset int, message string) string {
	rest := strings.TrimLeft(string(data[min(offset, len(data)):]), " \t\r\n")
	before := strings.Trim(string(data[:min(offset, len(data))]), " \t\r\n")
	switch {
	case before == "" && rest == "":
		return "the file is empty; without any file the built-in configuration is used"
	case rest == "":
		return message + "; a closing brace or bracket is missing"
	case strings.HasPrefix(before, `"`) && rest[0] == ':':
		return "the file must be one object, with { before everything and } behind it"
	case strings.HasPrefix(rest, "//"), strings.HasPrefix(rest, "/*"), rest[0] == '#':
		return "JSON has no comments; remove this one"
	case strings.HasSuffix(before, ",") && (rest[0] == '}' || rest[0] == ']'):
		return "the comma before this is one too many; remove it"
	case strings.HasSuffix(before, `"`) && strings.IndexByte(`"{[`, rest[0]) >= 0:
		return `a ":" after a member's name, or a "," between two, is missing before this`
	case rest[0] == '\'':
		return "strings and names stand in double quotes"
	default:
		return message
	}
}

// offset returns where the value at a pointer stands, or the innermost object
// around it that is there.
func (r *reader) offset(at string) int {
	if at == outside {
		return -1
	}
	for {
		if offset, ok := r.where[at]; ok || at == "" {
			return offset
		}
		at = at[:max(0, strings.LastIndexByte(at, '/'))]
	}
}

func (r *reader) has(at string) bool {
	_, ok := r.where[at]
	return ok
}

// faulty reports whether there is a fault at a pointer or beneath it.
func (r *reader) faulty(at string) bool {
	return slices.ContainsFunc(r.faults, func(f finding) bool {
		return f.pointer == at || strings.HasPrefix(f.pointer, at+"/")
	})
}

func (r *reader) fault(at, message string) {
	r.faults = append(r.faults, finding{r.offset(at), at, message})
}

func (r *reader) faultName(at string, m wire.Member, message string) {
	r.faults = append(r.faults, finding{m.Offset, at, message})
}

func (r *reader) warn(at, message string) {
	r.warnings = append(r.warnings, finding{r.offset(at), at, message})
}

func (r *reader) warnName(at string, m wire.Member, message string) {
	r.warnings = append(r.warnings, finding{m.Offset, at, message})
}

// sorted returns findings in the order of the file, those outside of it first.
func (r *reader) sorted(found []finding) []Fault {
	slices.SortStableFunc(found, func(a, b finding) int { return cmp.Compare(a.offset, b.offset) })
	faults := make([]Fault, 0, len(found))
	for _, f := range found {
		fault := Fault{Pointer: f.pointer, Message: f.message}
		if f.offset < 0 {
			fault.Pointer = ""
		} else {
			fault.Line, fault.Column = wire.Line(r.data, f.offset)
		}
		faults = append(faults, fault)
	}
	return faults
}

type wireNode = wire.Node

func (r *reader) integer(at string, n *wireNode, low, high int64) (int64, bool) {
	r.where[at] = n.Offset
	v, ok := n.Int64()
	if ok && low <= v && v <= high {
		return v, true
	}
	message := fmt.Sprintf("must be an integer between %d and %d", low, high)
	if n.Kind == wire.String {
		message += ", without quotes"
	}
	r.fault(at, message)
	return 0, false
}

func (r *reader) boolean(at string, n *wireNode) (value, ok bool) {
	r.where[at] = n.Offset
	value, ok = n.Bool()
	if !ok {
		message := "must be true or false"
		if n.Kind == wire.String {
			message += ", without quotes"
		}
		r.fault(at, message)
	}
	return value, ok
}

// text returns a string as its form keeps it. One that is FairCom's and has no
// meaning here is not ok, but a warning.
func (r *reader) text(at string, n *wireNode, f form) (string, bool) {
	r.where[at] = n.Offset
	s, ok := n.String()
	if !ok {
		message := "must be a string in double quotes"
		if f.oneOf != nil {
			message += ": " + alternatives(f.oneOf)
		} else if f.want != "" {
			message += ": " + f.want
		}
		r.fault(at, message)
		return "", false
	}
	if slices.Contains(f.ignored, s) {
		r.warn(at, "is FairCom's and has no meaning here, nor has what it names; both are ignored")
		return "", false
	}
	kept, fault := f.check(s)
	if fault != "" {
		r.fault(at, fault)
	}
	return kept, fault == ""
}

func (r *reader) elements(at string, n *wireNode) ([]*wireNode, bool) {
	r.where[at] = n.Offset
	if n.Kind != wire.Array {
		r.fault(at, "must be an array, in [ ]")
		return nil, false
	}
	return n.Items, true
}

func (r *reader) members(at string, n *wireNode) ([]wire.Member, bool) {
	r.where[at] = n.Offset
	if n.Kind != wire.Object {
		r.fault(at, "must be an object, in { }")
		return nil, false
	}
	return n.Members, true
}

package config

import (
	"slices"
	"strconv"
	"strings"
)

// note is what is said of a member: the schema, the reference and the check
// for unknown names read it.
type note struct {
	name    string
	kind    string // JSON Schema's type: string, integer, boolean, array, object
	doc     string
	enum    []string // the allowed strings
	ignored []string // FairCom's strings that are taken with a warning and have no effect
	min     int64    // of an integer, or of a string's length
	max     int64
	pattern string // of a string, ECMA 262; the reader has its own check
	example string // of a string whose form the enum does not say
	shown   string // default as the reference shows it, where the value does not tell
	members []note // of an object, or of the objects in an array
	item    *note  // of an array of strings or integers

	required bool
	restart  bool   // a change of it waits for a restart
	foreign  bool   // FairCom's, taken with a warning and ignored
	aliasOf  string // FairCom's name for another member
}

// entry is one member of an object that fills a T: read from the file, written
// back from the value, described by its note. Everything that is known about
// services.json stands in such rows, once.
type entry[T any] struct {
	note

	read  func(r *reader, at string, n *wireNode, into *T)
	value func(from *T) any // what encoding/json writes; nil leaves the member out
}

// needed marks a member that must be there.
func (e entry[T]) needed() entry[T] {
	e.required = true
	return e
}

// afterRestart marks a member that a reload leaves as it was.
func (e entry[T]) afterRestart() entry[T] {
	e.restart = true
	return e
}

// usually says what an absent member means where its value does not tell.
func (e entry[T]) usually(shown string) entry[T] {
	e.shown = shown
	return e
}

// as returns the same member under FairCom's other name for it.
func (e entry[T]) as(name string) entry[T] {
	e.aliasOf, e.name, e.required, e.value = e.name, name, false, nil
	e.doc = "FairCom's name for `" + e.aliasOf + "`."
	return e
}

// foreign returns FairCom's members that mean nothing here.
func foreign[T any](kind string, names ...string) []entry[T] {
	rows := make([]entry[T], 0, len(names))
	for _, name := range names {
		rows = append(rows, entry[T]{
			note: note{name: name, kind: kind, foreign: true, doc: "FairCom's; it has no meaning here and is ignored with a warning."},
			read: func(*reader, string, *wireNode, *T) {},
		})
	}
	return rows
}

// integer is a whole number of type N between low and high.
func integer[T any, N ~int | ~int64](name string, low, high int64, field func(*T) *N, doc string) entry[T] {
	return entry[T]{
		note: note{name: name, kind: "integer", min: low, max: high, doc: doc},
		read: func(r *reader, at string, n *wireNode, into *T) {
			if v, ok := r.integer(at, n, low, high); ok {
				*field(into) = N(v)
			}
		},
		value: func(from *T) any { return int64(*field(from)) },
	}
}

// seconds is a duration; the top of its range is ten years.
func seconds[T any, N ~int | ~int64](name string, low int64, field func(*T) *N, doc string) entry[T] {
	return integer(name, low, mostSeconds, field, doc)
}

// mostSeconds keeps every moment that follows from a setting within 32 bits of
// seconds since 1970, for some ninety years.
const mostSeconds = 10 * 365 * 24 * 3600

// flag is a boolean.
func flag[T any](name string, field func(*T) *bool, doc string) entry[T] {
	return entry[T]{
		note: note{name: name, kind: "boolean", doc: doc},
		read: func(r *reader, at string, n *wireNode, into *T) {
			if v, ok := r.boolean(at, n); ok {
				*field(into) = v
			}
		},
		value: func(from *T) any { return *field(from) },
	}
}

// text is a string of a form; the zero form allows every string that is short
// enough.
func text[T any](name string, f form, field func(*T) *string, doc string) entry[T] {
	e := entry[T]{
		note: f.note(),
		read: func(r *reader, at string, n *wireNode, into *T) {
			if v, ok := r.text(at, n, f); ok {
				*field(into) = v
			}
		},
		value: func(from *T) any {
			_, fault := f.check(*field(from))
			if *field(from) == "" && fault != "" {
				return nil // absent, and not to be written as empty
			}
			return *field(from)
		},
	}
	e.name, e.doc = name, doc
	return e
}

// choice is one of some strings.
func choice[T any](name string, of []string, field func(*T) *string, doc string) entry[T] {
	return text(name, form{oneOf: of}, field, doc)
}

// choiceOrIgnored is a choice that also takes FairCom's strings without a
// meaning here; they leave the default.
func choiceOrIgnored[T any](name string, of, ignored []string, field func(*T) *string, doc string) entry[T] {
	return text(name, form{oneOf: of, ignored: ignored}, field, doc)
}

// texts is an array of different strings of a form. Each is kept as parse
// returns it and written back by show.
func texts[T, E any](name string, f form, parse func(string) E, show func(E) string, field func(*T) *[]E, doc string) entry[T] {
	item := f.note()
	return entry[T]{
		note: note{name: name, kind: "array", item: &item, doc: doc},
		read: func(r *reader, at string, n *wireNode, into *T) {
			elements, ok := r.elements(at, n)
			if !ok {
				return
			}
			var values []E
			seen := make(map[string]bool, len(elements))
			for i, element := range elements {
				here := at + "/" + strconv.Itoa(i)
				v, ok := r.text(here, element, f)
				switch {
				case !ok:
				case seen[v]:
					r.fault(here, "stands in the array already; remove one of the two")
				default:
					seen[v] = true
					values = append(values, parse(v))
				}
			}
			*field(into) = values
		},
		value: func(from *T) any {
			if len(*field(from)) == 0 {
				return nil
			}
			shown := make([]string, 0, len(*field(from)))
			for _, v := range *field(from) {
				shown = append(shown, show(v))
			}
			return shown
		},
	}
}

// strs is texts whose elements are kept as they are read.
func strs[T any](name string, f form, field func(*T) *[]string, doc string) entry[T] {
	same := func(s string) string { return s }
	return texts(name, f, same, same, field, doc)
}

// mostDurations is how many durations a member may list.
const mostDurations = 16

// durations is an array of different durations in seconds, kept with the longest
// first. An empty one is not an absent one.
func durations[T any](name string, field func(*T) *[]int64, doc string) entry[T] {
	const least, most = 1, mostSeconds
	return entry[T]{
		note: note{name: name, kind: "array", item: &note{kind: "integer", min: least, max: most}, doc: doc},
		read: func(r *reader, at string, n *wireNode, into *T) {
			elements, ok := r.elements(at, n)
			if !ok {
				return
			}
			values := []int64{}
			for i, element := range elements {
				here := at + "/" + strconv.Itoa(i)
				v, ok := r.integer(here, element, least, most)
				switch {
				case !ok:
				case slices.Contains(values, v):
					r.fault(here, "stands in the array already; remove one of the two")
				case i >= mostDurations:
					r.fault(here, "is one too many: there may be "+strconv.Itoa(mostDurations))
				default:
					values = append(values, v)
				}
			}
			slices.Sort(values)
			slices.Reverse(values)
			*field(into) = values
		},
		value: func(from *T) any { return *field(from) },
	}
}

// object is a member that holds an object; rows are its members.
func object[T, O any](name string, rows []entry[O], field func(*T) *O, doc string) entry[T] {
	return entry[T]{
		note:  note{name: name, kind: "object", members: notes(rows), doc: doc},
		read:  func(r *reader, at string, n *wireNode, into *T) { readObject(r, at, n, rows, field(into)) },
		value: func(from *T) any { return written(rows, field(from)) },
	}
}

// list is an array of objects that each begin as blank returns them.
func list[T, E any](name string, rows []entry[E], blank func() E, get func(*T) []E, set func(*T, []E), doc string) entry[T] {
	return entry[T]{
		note: note{name: name, kind: "array", members: notes(rows), doc: doc},
		read: func(r *reader, at string, n *wireNode, into *T) {
			elements, ok := r.elements(at, n)
			if !ok {
				return
			}
			values := make([]E, 0, len(elements))
			for i, element := range elements {
				value := blank()
				readObject(r, at+"/"+strconv.Itoa(i), element, rows, &value)
				values = append(values, value)
			}
			set(into, values)
		},
		value: func(from *T) any {
			values := get(from)
			if len(values) == 0 {
				return nil
			}
			all := make([]any, 0, len(values))
			for i := range values {
				all = append(all, written(rows, &values[i]))
			}
			return all
		},
	}
}

// readObject reads the members of an object by their rows and faults what is
// unknown, missing or named twice under two names.
func readObject[T any](r *reader, at string, n *wireNode, rows []entry[T], into *T) {
	inside, ok := r.members(at, n)
	if !ok {
		return
	}
	seen := make(map[string]string, len(inside)) // the name that stands in the file, by the name of the row
	for _, m := range inside {
		here := at + "/" + escape(m.Name)
		i := slices.IndexFunc(rows, func(e entry[T]) bool { return e.name == m.Name })
		if i < 0 {
			if _, twice := seen[m.Name]; !twice {
				r.faultName(here, m, unknownMember(m.Name, at, notes(rows)))
			}
			seen[m.Name] = m.Name
			continue
		}
		row := rows[i]
		name := row.name
		if row.aliasOf != "" {
			name = row.aliasOf
		}
		first, twice := seen[name]
		switch {
		case twice && first == m.Name: // the tree has its fault already
		case twice:
			r.faultName(here, m, "is another name for "+name+", and both are there; remove one of them")
		case row.foreign:
			r.warnName(here, m, "is FairCom's and has no meaning here; it is ignored")
		default:
			row.read(r, here, m.Value, into)
		}
		if !twice {
			seen[name] = m.Name
		}
	}
	for _, row := range rows {
		if _, there := seen[row.name]; row.required && !there {
			r.fault(at, "lacks the member "+row.name+", which is required: "+lower(row.doc))
		}
	}
}

// written returns what an object of these rows says, without what it leaves out.
func written[T any](rows []entry[T], from *T) members {
	var all members
	for _, row := range rows {
		if row.value == nil {
			continue
		}
		v := row.value(from)
		if inner, ok := v.(members); v == nil || ok && len(inner) == 0 {
			continue
		}
		all = append(all, member{row.name, v})
	}
	return all
}

func notes[T any](rows []entry[T]) []note {
	all := make([]note, 0, len(rows))
	for _, row := range rows {
		all = append(all, row.note)
	}
	return all
}

// lower begins a sentence's text as the second half of another.
func lower(doc string) string {
	return strings.TrimSuffix(strings.ToLower(doc[:1])+doc[1:], ".")
}

// escape writes a name as a token of a JSON Pointer (RFC 6901).
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

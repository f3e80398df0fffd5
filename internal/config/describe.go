package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Schema returns the JSON Schema (draft 2020-12) of services.json, for editors.
// What Parse accepts is valid under it; contradictions between members are
// Parse's alone to find.
func Schema() []byte {
	defaults := written(topRows(), builtin(""))
	s := append(members{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"$comment", "Generated from the table of members in internal/config; do not edit."},
		{"title", "services.json of sessiond"},
	}, objectSchema(notes(topRows()), defaults)...)
	return indented(s)
}

// JSON returns c as a services.json in which every member is written out. Parse
// reads it back to the same Config, but for warnings.
func (c *Config) JSON() []byte { return indented(written(topRows(), c)) }

// Diff returns the names of the members of services.json whose change waits for a
// restart of the server, in the order of the reference. Everything else acts on
// the next request.
func Diff(old, changed *Config) (restart []string) {
	for _, row := range topRows() {
		if row.restart && row.value != nil && !bytes.Equal(indented(row.value(old)), indented(row.value(changed))) {
			restart = append(restart, row.name)
		}
	}
	return restart
}

func objectSchema(rows []note, defaults members) members {
	var properties members
	var required []string
	for _, n := range rows {
		i := slices.IndexFunc(defaults, func(m member) bool { return m.name == n.name })
		var value any
		if i >= 0 && n.shown == "" {
			value = defaults[i].value
		}
		properties = append(properties, member{n.name, memberSchema(n, value)})
		if n.required {
			required = append(required, n.name)
		}
	}
	s := members{{"type", "object"}, {"properties", properties}}
	if required != nil {
		s = append(s, member{"required", required})
	}
	return append(s, member{"additionalProperties", false})
}

func memberSchema(n note, value any) members {
	if n.foreign {
		return members{{"description", n.doc}, {"deprecated", true}}
	}
	s := members{{"description", n.doc}}
	if n.aliasOf != "" {
		s = append(s, member{"deprecated", true})
	}
	inner, _ := value.(members)
	switch n.kind {
	case "object":
		return append(s, objectSchema(n.members, inner)...)
	case "array":
		s = append(s, member{"type", "array"})
		if n.item != nil {
			s = append(s, member{"items", scalarSchema(*n.item)}, member{"uniqueItems", true})
			if value != nil {
				s = append(s, member{"default", value})
			}
			return s
		}
		return append(s, member{"items", objectSchema(n.members, blankOf(n.name))})
	}
	s = append(s, scalarSchema(n)...)
	if value != nil && value != "" && !n.required {
		s = append(s, member{"default", value})
	}
	return s
}

// blankOf returns the defaults of an element of one of the arrays of objects.
func blankOf(name string) members {
	switch name {
	case "listeners":
		l := blankListener()
		return written(listenerRows(), &l)
	case "realms":
		return written(realmRows(), &Realm{})
	case "sessionProperties":
		p := blankProperty()
		return written(propertyRows(), &p)
	case "webhooks":
		w := blankWebhook()
		return written(webhookRows(), &w)
	case "apis":
		return members{{"enabled", true}}
	default:
		return nil
	}
}

func scalarSchema(n note) members {
	s := members{{"type", n.kind}}
	if n.kind == "integer" {
		return append(s, member{"minimum", n.min}, member{"maximum", n.max})
	}
	if n.kind != "string" {
		return s
	}
	if n.enum != nil {
		return append(s, member{"enum", slices.Concat(n.enum, n.ignored)})
	}
	if n.min > 0 {
		s = append(s, member{"minLength", n.min})
	}
	s = append(s, member{"maxLength", n.max})
	if n.pattern != "" {
		s = append(s, member{"pattern", n.pattern})
	}
	if n.example != "" {
		s = append(s, member{"examples", []string{n.example}})
	}
	return s
}

// Reference returns the page of docs/ that explains every member, as Markdown.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString("<!-- Generated from the table of members in internal/config; do not edit. -->\n\n# services.json\n\n" +
		"Every member may be absent. Names are FairCom's where FairCom has one. An unknown name is an error, a FairCom name\n" +
		"without a meaning here a warning. Members marked with * change with a restart, all others with a reload (SIGHUP);\n" +
		"sessions that exist keep the settings that they were created with.\n")
	reference(&b, "The top level", notes(topRows()), written(topRows(), builtin("")))
	b.WriteString("\n## Profiles\n\nA profile gives the times of sessions; members of `jsonActionApiDefaults` come before it.\n\n" +
		"| profile | sessions | idleConnectionTimeoutSeconds | maxSessionTimeoutSeconds | rememberMeIdleTimeoutSeconds | abandonAfterSeconds |\n|---|---|---|---|---|---|\n")
	for _, p := range profiles() {
		fmt.Fprintf(&b, "| `%s` | %s | %d | %d | %d | %d |\n", p.name, p.doc, p.idle, p.lifetime, p.remember, p.abandon)
	}
	ignored(&b, "", notes(topRows()))
	return b.Bytes()
}

// reference writes the table of an object, then those of the objects in it.
func reference(b *bytes.Buffer, title string, rows []note, defaults members) {
	fmt.Fprintf(b, "\n## %s\n\n| member | type | default | meaning |\n|---|---|---|---|\n", title)
	for _, n := range rows {
		if n.foreign || strings.HasPrefix(n.name, "$") {
			continue
		}
		name := "`" + n.name + "`"
		if n.restart {
			name += " *"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", name, typeOf(n), defaultOf(n, defaults), n.doc)
	}
	for _, n := range rows {
		inner, section := blankOf(n.name), "An element of `"+n.name+"`"
		if n.foreign || n.members == nil || bytes.Contains(b.Bytes(), []byte("## "+section+"\n")) { // another object has it too
			continue
		}
		if n.kind == "object" {
			section = "`" + n.name + "`"
			inner = nil
			for _, m := range defaults {
				if of, ok := m.value.(members); ok && m.name == n.name {
					inner = of
				}
			}
		}
		reference(b, section, n.members, inner)
	}
}

func typeOf(n note) string {
	switch {
	case n.item != nil && n.item.kind == "integer":
		return fmt.Sprintf("array of integers, %d to %d", n.item.min, n.item.max)
	case n.item != nil:
		return "array of strings"
	case n.kind == "array":
		return "array of objects"
	case n.enum != nil:
		return "`" + strings.Join(n.enum, "`, `") + "`"
	case n.kind == "integer":
		return fmt.Sprintf("integer, %d to %d", n.min, n.max)
	default:
		return n.kind
	}
}

func defaultOf(n note, defaults members) string {
	switch {
	case n.required:
		return "required"
	case n.shown != "":
		return n.shown
	case n.kind == "object":
		return "see below"
	}
	for _, m := range defaults {
		if m.name == n.name && m.value != "" {
			return fmt.Sprintf("`%v`", m.value)
		}
	}
	return ""
}

// ignored lists FairCom's members without a meaning.
func ignored(b *bytes.Buffer, path string, rows []note) {
	if path == "" {
		b.WriteString("\n## Names of FairCom's that are ignored with a warning\n\n")
	}
	for _, n := range rows {
		if n.foreign {
			fmt.Fprintf(b, "- `%s%s`\n", path, n.name)
		}
		ignored(b, path+n.name+".", n.members)
	}
}

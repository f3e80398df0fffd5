package dispatch

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

// Reference returns the page of docs/ that explains the envelope, the codes and
// every action, as Markdown. The same actions give the same bytes.
func Reference(actions []Description) []byte {
	var b bytes.Buffer
	b.WriteString(`<!-- Generated from the table of actions; do not edit. -->

# Reference

One endpoint takes everything: ` + "`POST /api`" + `, or the path that ` + "`apiRoot`" + ` in services.json says.

- [The request](#the-request)
- [The answer](#the-answer)
- [Error codes](#error-codes)
- Actions
`)
	for i := range actions {
		fmt.Fprintf(&b, "  - [%s](#%s)\n", actions[i].Name, strings.ToLower(actions[i].Name))
	}
	b.WriteString(envelopePage)
	codesTable(&b)
	b.WriteString("\n## Actions\n\nNames of actions are compared without case, those of members exactly. Every action is in the api `hub` too.\n")
	for i := range actions {
		actions[i].page(&b)
	}
	return b.Bytes()
}

const envelopePage = `
## The request

A JSON object, or an array of up to 100 of them, which is answered by an array in the same order.

| member | type | meaning |
|---|---|---|
| ` + "`action`" + ` | string | Required. What to do. |
| ` + "`params`" + ` | object | What the action takes. A member that it does not take, that is missing, mistyped or there twice is refused by name. |
| ` + "`authToken`" + ` | string | Who asks; also taken as ` + "`Authorization: Bearer`" + `. |
| ` + "`api`" + ` | string | ` + "`admin`, `session` or `hub`" + `; without it what the session, or else services.json, says. |
| ` + "`requestId`" + ` | any | Comes back unchanged; at most 256 bytes. |
| ` + "`apiVersion`" + ` | string | ` + "`\"" + api.Version + "\"`" + `; another major version is refused. |
| ` + "`debug`" + ` | string | ` + "`none` or `max`" + `, which adds ` + "`debugInfo`" + ` and indents the answer. |
| ` + "`responseOptions`" + ` | object | ` + "`numberFormat`, `dataFormat`, `binaryFormat`, `omit`, `includeFields`, `excludeFields`" + `: the form of the result. |

## The answer

| member | type | meaning |
|---|---|---|
| ` + "`result`" + ` | object | What the action found or did; empty after an error. |
| ` + "`errorCode`" + ` | integer | 0 if it was done. |
| ` + "`errorMessage`" + ` | string | What went wrong, and what to do. |
| ` + "`requestId`" + ` | any | As in the request. |
| ` + "`authToken`" + ` | string | A token that was issued, or the caller's own. |
| ` + "`errorData`" + ` | object | What a program needs to react: ` + "`pointer`, `limit`, `max`, `current`, `retryAfterSeconds`, `done`, `left`" + `; where one can choose which session makes room, ` + "`ticket`, `ticketExpirationTimestamp`, `sessions`" + `. |
| ` + "`debugInfo`" + ` | object | The request without its secrets, what the server supplied, and warnings. |

Times are RFC 3339 in UTC. An error means that nothing was changed, but for 21905 and 21999, which may have.
`

func codesTable(b *bytes.Buffer) {
	b.WriteString("\n## Error codes\n\nThe HTTP status is 200, but 400 for 21001, 413 for 21008 and 503 for 21901 to 21906 where they answer a single request; the one in this table where `httpStatusFromErrorCode` is on.\n\n" +
		"| code | name | status | meaning |\n|---|---|---|---|\n")
	for _, row := range api.Codes() {
		fmt.Fprintf(b, "| %d | %s | %d | %s |\n", row.Code, row.Name, row.Status, cell(row.Doc))
	}
}

func (d *Description) page(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n", d.Name, d.Description)
	if len(d.Aliases) > 0 {
		fmt.Fprintf(b, "- Also called: %s\n", quoted(d.Aliases))
	}
	fmt.Fprintf(b, "- Apis: %s\n- Who may call it: %s\n", quoted(d.APIs), d.WhoMayCall)
	resets := "no"
	if d.ResetsIdle {
		resets = "yes"
	}
	fmt.Fprintf(b, "- Resets the idle time of the caller's session: %s\n- Under load: %s\n", resets, d.Work)
	if len(d.ErrorCodes) > 0 {
		var codes []string
		for _, c := range d.ErrorCodes {
			codes = append(codes, fmt.Sprintf("%d %s", c, c.Info().Name))
		}
		fmt.Fprintf(b, "- Errors of its own: %s\n", strings.Join(codes, ", "))
	}
	fieldsTable(b, "Params", "required", d.Params)
	fieldsTable(b, "Result", "always there", d.Result)
}

func quoted(names []string) string { return "`" + strings.Join(names, "`, `") + "`" }

func fieldsTable(b *bytes.Buffer, title, required string, fields []wire.Field) {
	if len(fields) == 0 {
		fmt.Fprintf(b, "\n%s: none.\n", title)
		return
	}
	fmt.Fprintf(b, "\n%s:\n\n| member | type | %s | meaning |\n|---|---|---|---|\n", title, required)
	fieldRows(b, "", fields)
}

// fieldRows writes a row for each member, those of inner objects after the
// member that holds them, by their path.
func fieldRows(b *bytes.Buffer, path string, fields []wire.Field) {
	for i := range fields {
		f := &fields[i]
		required := "no"
		if f.Required {
			required = "yes"
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s | %s |\n", path, f.Name, typeOf(f), required, cell(f.Doc))
		if f.Fields == nil {
			continue
		}
		inner := path + f.Name
		for rest := f.Type; ; {
			if next, isArray := strings.CutPrefix(rest, "array of "); isArray {
				inner, rest = inner+"[]", next
			} else if next, isMap := strings.CutPrefix(rest, "map of "); isMap {
				inner, rest = inner+".*", next
			} else {
				break
			}
		}
		fieldRows(b, inner+".", f.Fields)
	}
}

// typeOf tells the type of a member with its bounds, as a reader thinks of them.
func typeOf(f *wire.Field) string {
	kind := f.Type
	if f.Secret {
		kind = strings.Replace(kind, "string", "secret", 1)
	}
	if f.Enum != nil {
		kind = strings.Replace(kind, "string", "", 1) + quoted(f.Enum)
	}
	unit := ""
	switch {
	case strings.HasPrefix(f.Type, "array"):
		unit = " elements"
	case strings.HasPrefix(f.Type, "map"):
		unit = " members"
	case f.Type == "string":
		unit = " bytes"
	}
	number := func(n *int64) string { return strconv.FormatInt(*n, 10) }
	switch {
	case f.Min != nil && f.Max != nil:
		kind += ", " + number(f.Min) + " to " + number(f.Max) + unit
	case f.Min != nil:
		kind += ", at least " + number(f.Min) + unit
	case f.Max != nil:
		kind += ", at most " + number(f.Max) + unit
	}
	return kind
}

// cell keeps a text within a cell of a table.
func cell(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\n", " "), "|", `\|`)
}

package cli

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"sessiond/internal/wire"
)

// What --output may be.
const (
	formatText  = "text"
	formatTable = "table"
	formatJSON  = "json"
)

const outputChoices = "choices"

func addOutput(cmd *cobra.Command, formats ...string) {
	cmd.Flags().String("output", "", "print as `FORMAT`: "+strings.Join(formats, " or ")+" (default "+formats[0]+")")
	_ = cmd.Flags().SetAnnotation("output", outputChoices, formats)
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

// output returns what --output says.
func output(cmd *cobra.Command, usually string) (string, error) {
	f := cmd.Flags().Lookup("output")
	if !f.Changed {
		return usually, nil
	}
	format, choices := f.Value.String(), f.Annotations[outputChoices]
	if !slices.Contains(choices, format) {
		return "", usagef("--output is %s", strings.Join(choices, " or "))
	}
	return format, nil
}

// printResult prints a result as a table where that is asked for, or where
// nothing is and the terminal has room for it; else as JSON.
func printResult(cmd *cobra.Command, result *wire.Node, format string) error {
	if format == formatTable {
		return printLine(cmd, resultTable(result, listIn(result)))
	}
	if columns := width(cmd.OutOrStdout()); format == "" && columns > 0 {
		if list := listIn(result); list != nil {
			if drawn := resultTable(result, list); text.LongestLineLen(drawn) <= columns {
				return printLine(cmd, drawn)
			}
		}
	}
	return printLine(cmd, escaped(wire.Indent(nil, result.Raw)))
}

// listIn returns the one member of a result that is an array of objects, nil if
// there is none or another besides.
func listIn(result *wire.Node) *wire.Member {
	var list *wire.Member
	for i := range result.Members {
		m := &result.Members[i]
		isObject := func(n *wire.Node) bool { return n.Kind == wire.Object }
		if m.Value.Kind != wire.Array || len(m.Value.Items) == 0 || slices.ContainsFunc(m.Value.Items, func(n *wire.Node) bool { return !isObject(n) }) {
			continue
		}
		if list != nil {
			return nil
		}
		list = m
	}
	return list
}

// resultTable draws a list with a row for each object, and the other members
// below; without a list, a row for each member.
func resultTable(result *wire.Node, list *wire.Member) string {
	if result.Kind != wire.Object {
		return escaped(result.Raw)
	}
	var rest []table.Row
	for _, m := range result.Members {
		if list == nil || m.Name != list.Name {
			rest = append(rest, table.Row{printable(m.Name), cell(m.Value)})
		}
	}
	members := draw(nil, rest)
	if list == nil {
		return members
	}
	var header table.Row
	at := map[string]int{}
	for _, item := range list.Value.Items {
		for _, m := range item.Members {
			if _, known := at[m.Name]; !known {
				at[m.Name] = len(header)
				header = append(header, printable(m.Name))
			}
		}
	}
	rows := make([]table.Row, len(list.Value.Items))
	for i, item := range list.Value.Items {
		row := slices.Repeat(table.Row{""}, len(header))
		for _, m := range item.Members {
			row[at[m.Name]] = cell(m.Value)
		}
		rows[i] = row
	}
	drawn := draw(header, rows)
	if len(rest) > 0 {
		drawn += "\n\n" + members
	}
	return drawn
}

// cell is a value as a table shows it. Numbers stay numbers, which are set to
// the right.
func cell(n *wire.Node) any {
	switch n.Kind {
	case wire.Null:
		return ""
	case wire.String:
		return printable(textOf(n))
	case wire.Number:
		if i, ok := n.Int64(); ok {
			return i
		}
	case wire.Array:
		if all, ok := words(n); ok {
			return all
		}
	case wire.Bool, wire.Object:
	}
	return escaped(n.Raw)
}

// words joins an array of strings.
func words(n *wire.Node) (string, bool) {
	all := make([]string, len(n.Items))
	for i, item := range n.Items {
		if item.Kind != wire.String {
			return "", false
		}
		all[i] = printable(textOf(item))
	}
	return strings.Join(all, ", "), true
}

// draw sets rows in columns, two spaces apart, without lines.
func draw(header table.Row, rows []table.Row) string {
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatDefault
	t := table.NewWriter()
	t.SetStyle(style)
	t.SuppressTrailingSpaces()
	if header != nil {
		t.AppendHeader(header)
	}
	t.AppendRows(rows)
	return t.Render()
}

// printable keeps text from others from moving the cursor, breaking lines or
// turning the direction of writing.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// escaped does the same to JSON without changing what it says.
func escaped(json []byte) string {
	var b strings.Builder
	for _, r := range string(json) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		case r < ' ':
			b.WriteByte(' ') // between values: within strings JSON has escaped it
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

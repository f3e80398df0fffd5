package filter_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sessiond/internal/filter"
)

// The guide has the grammar of the package comment, and the filters that it
// shows go with the fields and operators in its table.
func TestGuide(t *testing.T) {
	guide, comment := read(t, "../../docs/filter.md"), read(t, "doc.go")

	grammar := strings.Split(between(t, guide, "```ebnf\n", "\n```"), "\n")
	for i, line := range grammar {
		grammar[i] = "//\t" + line
	}
	if !strings.Contains(comment, "\n"+strings.Join(grammar, "\n")+"\n//\n") {
		t.Error("the grammar in the guide is not that of doc.go")
	}

	table, kinds := filter.Table{{Name: "properties", Members: func(string) (filter.Kind, bool) { return filter.Text, true }}}, guideKinds()
	for _, found := range regexp.MustCompile(`(?m)^\| ([A-Z]\w+) \| (.*?) \| .* \| (.*) \|$`).FindAllStringSubmatch(guide, -1) {
		kind, known := kinds[found[1]]
		if !known {
			t.Fatalf("the guide has a kind %s", found[1])
		}
		delete(kinds, found[1])
		names := quotedIn(found[3])
		for _, name := range names {
			table = append(table, filter.Field{Name: name, Kind: kind})
		}
		if operators := quotedIn(found[2]); found[2] != "all" && !slices.Equal(operators, offered(t, table, names[0])) {
			t.Errorf("%s: the operators are %q, the guide says %q", found[1], offered(t, table, names[0]), operators)
		}
	}
	if len(kinds) > 0 {
		t.Errorf("the guide lacks the kinds %v", kinds)
	}

	examples := strings.Split(between(t, guide, "```text\n", "\n```"), "\n")
	if len(examples) < 10 {
		t.Errorf("the guide shows only %d filters", len(examples))
	}
	for _, text := range examples {
		if _, bad := filter.Parse(text, table, noon); bad != nil {
			t.Errorf("%s: %v", text, bad)
		}
	}
}

func guideKinds() map[string]filter.Kind {
	return map[string]filter.Kind{"Text": filter.Text, "Number": filter.Number, "Bool": filter.Bool, "Time": filter.Time, "Address": filter.Address, "Set": filter.Set}
}

// offered returns the operators that a refusal lists.
func offered(t *testing.T, table filter.Table, field string) []string {
	t.Helper()
	_, bad := filter.Parse(field, table, noon)
	if bad == nil {
		t.Fatalf("%s alone is a filter", field)
	}
	return regexp.MustCompile(`\b(eq|co|sw|l[te]|g[te]|in|pr)\b`).FindAllString(bad.Message, -1)
}

func quotedIn(text string) (words []string) {
	for _, found := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(text, -1) {
		words = append(words, found[1])
	}
	return words
}

func between(t *testing.T, text, before, after string) string {
	t.Helper()
	_, text, ok := strings.Cut(text, before)
	text, _, found := strings.Cut(text, after)
	if !ok || !found {
		t.Fatalf("nothing stands between %q and %q", before, after)
	}
	return text
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

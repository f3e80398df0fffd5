package main_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// The rules of the house: tables first, what enforces them last. A rule that
// names something that is gone fails too, so that the tables stay true.

// mayImport says which of our packages each package may import outside its
// tests. Arrows point one way: main → httpd, cli, actions → dispatch → session →
// account → event → store.
var mayImport = map[string][]string{
	"main":              {"actions", "dispatch", "store", "store/bolt", "store/mem", "internal/account", "internal/api", "internal/cli", "internal/clock", "internal/config", "internal/event", "internal/httpd", "internal/logging", "internal/session", "internal/upkeep", "internal/webhook"},
	"actions":           {"dispatch", "internal/account", "internal/api", "internal/clock", "internal/config", "internal/event", "internal/filter", "internal/session", "store"},
	"dispatch":          {"internal/account", "internal/api", "internal/clock", "internal/config", "internal/logging", "internal/session", "internal/wire", "store"},
	"internal/account":  {"internal/api", "internal/clock", "internal/event", "internal/network", "internal/wire", "store"},
	"internal/api":      {},
	"internal/bench":    {"actions", "dispatch", "internal/account", "internal/api", "internal/cli", "internal/clock", "internal/config", "internal/event", "internal/session", "store", "store/bolt"},
	"internal/campaign": {"internal/clock"},
	"internal/cli":      {"dispatch", "internal/account", "internal/api", "internal/clock", "internal/config", "internal/event", "internal/logging", "internal/upkeep", "internal/wire", "store", "store/bolt"},
	"internal/clock":    {},
	"internal/config":   {"internal/api", "internal/wire"},
	"internal/event":    {"internal/api", "internal/wire", "store"},
	"internal/faultfs":  {},
	"internal/filter":   {"internal/api"},
	"internal/httpd":    {"internal/api", "internal/config", "internal/logging", "internal/network"},
	"internal/logging":  {"internal/api"},
	"internal/network":  {},
	"internal/session":  {"internal/account", "internal/api", "internal/clock", "internal/config", "internal/event", "internal/network", "internal/wire", "store"},
	"internal/upkeep":   {"internal/api", "internal/clock", "internal/event", "internal/logging", "store", "store/bolt"},
	"internal/webhook":  {"internal/api", "internal/clock", "internal/config", "internal/event", "internal/logging", "internal/wire", "store"},
	"internal/wire":     {"internal/api"},
	"store":             {},
	"store/bolt":        {"store"},
	"store/faultstore":  {"store"},
	"store/mem":         {"store"},
	"store/storetest":   {"store"},
}

// testsMayImport is what any test may import besides what its package may.
var testsMayImport = []string{
	"internal/api", "internal/campaign", "internal/clock", "internal/faultfs", "internal/network", "internal/wire",
	"store", "store/bolt", "store/faultstore", "store/mem", "store/storetest",
}

// owners says which one package imports a third-party module, and why we have it.
var owners = []struct{ module, owner, reason string }{
	{"github.com/valyala/fasthttp", "internal/httpd", "the HTTP server"},
	{"github.com/goccy/go-json", "internal/wire", "strict JSON, from its v2 package"},
	{"go.etcd.io/bbolt", "store/bolt", "the embedded store"},
	{"github.com/rs/zerolog", "internal/logging", "logs without allocating"},
	{"github.com/alexedwards/argon2id", "internal/account", "password hashes"},
	{"golang.org/x/text", "internal/account", "canonical user names and passwords, RFC 8265"},
	{"github.com/spf13/cobra", "internal/cli", "subcommands, help, completion"},
	{"github.com/jedib0t/go-pretty/v6", "internal/cli", "tables on a terminal"},
	{"golang.org/x/term", "internal/cli", "is anybody looking, and passwords unseen"},
	{"google.golang.org/protobuf", "internal/session", "varints of the record's encoding"},
	{"github.com/hanwen/go-fuse/v2", "internal/faultfs", "a file system whose power can be cut, for tests"},
	{"github.com/mileusna/useragent", "internal/session", "browser and system of a session"},
}

// testLibraries may be imported by any test and by the packages for tests.
var testLibraries = []string{
	"github.com/anishathalye/porcupine",
	"github.com/google/go-cmp",
	"github.com/rogpeppe/go-internal",
	"github.com/standard-webhooks/standard-webhooks/libraries",
	"github.com/santhosh-tekuri/jsonschema/v6",
	"go.uber.org/goleak",
	"pgregory.net/rapid",
}

// testPackages are imported by tests alone, though they are no tests themselves.
var testPackages = []string{"internal/campaign", "internal/faultfs", "store/faultstore", "store/storetest"}

// borrowers are tests that may import a module of another package's, and why.
var borrowers = map[string]string{
	"internal/bench github.com/valyala/fasthttp": "the bare server that ours is compared with",
	"internal/bench go.etcd.io/bbolt":            "the bare store that ours is compared with",
	"main go.etcd.io/bbolt":                      "makes a file of an earlier format of one of ours",
}

// globals are the package-level variables that may be outside tests; none is
// written but by its declaration. Errors (Err…, err…), interface checks (_) and what a call in
// constants gives need no entry.
var globals = map[string]string{
	"main.version":                 "set by the linker",
	"internal/account.known":       "what passwords are made of, computed once",
	"internal/account.packed":      "the list that is embedded",
	"internal/api.digit62":         "the inverse of Base62, computed once",
	"internal/config.shipped":      "the services.json that is embedded",
	"internal/session.methodNames": "a table",
	"internal/session.statusNames": "a table",
	"internal/wire.optionsShape":   "the shape of one type, computed once",
	"internal/wire.stringBytes":    "a table, computed once",
	"internal/wire.written":        "options of the JSON encoder",
	"store/bolt.metaBucket":        "a name, as the bytes that bbolt wants",
	"store/bolt.order":             "the byte order of bbolt's pages",
	"store/bolt.requests":          "spare memory",
	"store/bolt.stateName":         "a name, as the bytes that bbolt wants",
}

// constants are calls whose values nobody can change.
var constants = []string{"crc32.MakeTable", "reflect.TypeFor", "regexp.MustCompile"}

// timekeepers may ask the machine for the time.
var timekeepers = []string{"internal/clock"}

// A file longer than maxLines is explained in its package's comment, by name.
const maxLines = 550

// forbidden must not stand in any committed text. Each pattern is written so
// that it does not match itself.
var forbidden = []struct{ pattern, reason string }{
	{`/[w]ork/|/[f]arm\b|/[r]oot/|/[h]ome/[a-z]`, "names a path of one machine"},
	{`[p]roxy\.golang\.org|[s]um\.golang\.org|[d]eb\.debian\.org|[r]egistry\.npmjs`, "names a package registry"},
	{`(^|[^.|\w])(TOD[O]|FIXM[E]|XX[X])\b`, "postpones: do it, or leave it out"},
	{`\b(DESIG[N]|STYL[E])\.md\b`, "refers to a file that is not here"},
	{`(?i)\b[i]ssues? #?\d`, "refers to a ticket: say the reason itself"},
}

// notOurs is committed text that others wrote, machines among them.
var notOurs = regexp.MustCompile(`(^|/)go\.(mod|sum)$`)

var rules = map[string]func(*house) []string{
	"imports":         (*house).imports,
	"third parties":   (*house).thirdParties,
	"package comment": (*house).packageComments,
	"globals":         (*house).globals,
	"time":            (*house).time,
	"file length":     (*house).fileLength,
	"system tests":    (*house).systemTests,
	"words":           (*house).words,
}

func TestHouse(t *testing.T) {
	h := survey(t, os.DirFS("."), committed(t))
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			for _, fault := range slices.Sorted(slices.Values(rule(h))) {
				t.Error(fault)
			}
		})
	}
}

// TestHouseRulesBite breaks each rule on purpose.
func TestHouseRulesBite(t *testing.T) {
	for _, tt := range []struct{ rule, file, text, want string }{
		{"imports", "actions/a.go", `package actions; import _ "sessiond/store/bolt"`, "actions/a.go: actions may not import store/bolt"},
		{"imports", "actions/a_test.go", `package actions_test; import _ "sessiond/internal/httpd"`, "actions/a_test.go: a test of actions may not import internal/httpd"},
		{"imports", "store/mem/a.go", `package mem; import _ "sessiond/store/storetest"`, "store/mem/a.go: store/mem may not import store/storetest"},
		{"imports", "util/a.go", `package util`, "util: a package without a row in mayImport"},
		{"imports", "actions/a.go", `package actions`, "dispatch: has a row in mayImport, but no code"},
		{"third parties", "actions/a.go", `package actions; import _ "github.com/valyala/fasthttp"`, "actions/a.go: only internal/httpd may import github.com/valyala/fasthttp"},
		{"third parties", "actions/a_test.go", `package actions; import _ "go.etcd.io/bbolt"`, "actions/a_test.go: only store/bolt may import go.etcd.io/bbolt"},
		{"third parties", "actions/a.go", `package actions; import _ "pgregory.net/rapid"`, "actions/a.go: only tests may import pgregory.net/rapid"},
		{"third parties", "actions/a.go", `package actions; import _ "example.com/new/thing"`, "actions/a.go: example.com/new/thing has no owner"},
		{"third parties", "actions/a.go", `package actions`, "internal/wire: owns github.com/goccy/go-json, but does not import it"},
		{"third parties", "actions/a.go", `package actions`, "pgregory.net/rapid: no test imports it"},
		{"package comment", "actions/a.go", `package actions`, "actions: 0 package comments, want 1"},
		{"package comment", "actions/a.go", "// Actions are.\npackage actions", `actions: the comment begins "Actions are.", want "Package actions "`},
		{"package comment", "main.go", "// Package main is.\npackage main", `main: the comment begins "Package main is.", want "Command sessiond "`},
		{"globals", "actions/a.go", "package actions\nvar cache = map[string]int{}", "actions/a.go: the variable actions.cache is not in globals"},
		{"globals", "actions/a.go", "package actions\nvar Errors []string", "actions/a.go: the variable actions.Errors is not in globals"},
		{"globals", "actions/a.go", "package actions\nvar errA = f()\nfunc F() { errA.x[1]++ }", "actions/a.go: changes the variable actions.errA"},
		{"globals", "actions/a.go", "package actions\nfunc init() {}", "actions/a.go: an init function"},
		{"globals", "actions/a.go", "package actions", "main.version: in globals, but not declared"},
		{"time", "actions/a.go", "package actions\nimport \"time\"\nvar _ = time.Since", "actions/a.go: time.Since; take a clock.Clock"},
		{"file length", "actions/a.go", "// Package actions is.\npackage actions" + strings.Repeat("\n", maxLines), "actions/a.go: 551 lines, and the comment of actions does not say why"},
		{"system tests", "actions/a_test.go", "//go:build linux && system\n\npackage actions\nfunc TestSystemA(t T) { t.Skipf(``) }", "actions/a_test.go: t.Skipf; a system test that lacks something fails"},
		{"system tests", "actions/a_test.go", "package actions\nfunc TestSystemA(t T) {}", "actions/a_test.go: TestSystemA without the build tag system"},
		{"words", "docs/a.md", "one\nsee /" + "work/main", "docs/a.md:2: names a path of one machine: /" + "work/"},
		{"words", "docs/a.md", "// TO" + "DO later", "docs/a.md:1: postpones: do it, or leave it out:  TO" + "DO"},
	} {
		t.Run(tt.rule+"/"+tt.want, func(t *testing.T) {
			tree := fstest.MapFS{tt.file: {Data: []byte(tt.text)}}
			faults := rules[tt.rule](survey(t, tree, []string{tt.file}))
			if !slices.Contains(faults, tt.want) {
				t.Errorf("%s in %s gives\n%s\nwant among them\n%s", tt.text, tt.file, strings.Join(faults, "\n"), tt.want)
			}
		})
	}
}

func (h *house) imports() (faults []string) {
	faults = stale(maps.Keys(mayImport), h.packages, "has a row in mayImport, but no code")
	for name, p := range h.packages {
		allowed, known := mayImport[name]
		if !known {
			faults = append(faults, name+": a package without a row in mayImport")
			continue
		}
		for _, f := range p.files {
			for _, theirs := range f.ours {
				switch {
				case theirs == name || slices.Contains(allowed, theirs):
				case !f.test:
					faults = append(faults, fmt.Sprintf("%s: %s may not import %s", f.name, name, theirs))
				case name != "main" && !slices.Contains(testsMayImport, theirs):
					faults = append(faults, fmt.Sprintf("%s: a test of %s may not import %s", f.name, name, theirs))
				}
			}
		}
	}
	return faults
}

func (h *house) thirdParties() (faults []string) {
	seen := map[string]bool{} // owner and module, or library
	for name, p := range h.packages {
		for _, f := range p.files {
			for _, imported := range f.thirdParty {
				of := func(module string) bool { return imported == module || strings.HasPrefix(imported, module+"/") }
				if i := slices.IndexFunc(testLibraries, of); i >= 0 {
					seen[testLibraries[i]] = true
					if !f.test && !slices.Contains(testPackages, name) {
						faults = append(faults, fmt.Sprintf("%s: only tests may import %s", f.name, imported))
					}
					continue
				}
				var theirs []string
				for _, o := range owners {
					if of(o.module) {
						theirs = append(theirs, o.owner)
						seen[name+" "+o.module] = seen[name+" "+o.module] || !f.test
						seen[name+" borrows "+o.module] = true
						if f.test && borrowers[name+" "+o.module] != "" {
							theirs = append(theirs, name)
						}
					}
				}
				switch {
				case theirs == nil:
					faults = append(faults, fmt.Sprintf("%s: %s has no owner", f.name, imported))
				case !slices.Contains(theirs, name):
					faults = append(faults, fmt.Sprintf("%s: only %s may import %s", f.name, strings.Join(theirs, ", "), imported))
				}
			}
		}
	}
	for _, o := range owners {
		if !seen[o.owner+" "+o.module] {
			faults = append(faults, fmt.Sprintf("%s: owns %s, but does not import it", o.owner, o.module))
		}
	}
	for borrower := range borrowers {
		if name, module, _ := strings.Cut(borrower, " "); !seen[name+" borrows "+module] {
			faults = append(faults, fmt.Sprintf("%s: may borrow %s, but does not", name, module))
		}
	}
	for _, library := range testLibraries {
		if !seen[library] {
			faults = append(faults, library+": no test imports it")
		}
	}
	return faults
}

func (h *house) packageComments() (faults []string) {
	for name, p := range h.packages {
		if len(p.comments) != 1 {
			faults = append(faults, fmt.Sprintf("%s: %d package comments, want 1", name, len(p.comments)))
			continue
		}
		want := "Package " + path.Base(name) + " "
		if name == "main" {
			want = "Command sessiond "
		}
		if first, _, _ := strings.Cut(p.comments[0], "\n"); !strings.HasPrefix(first, want) {
			faults = append(faults, fmt.Sprintf("%s: the comment begins %q, want %q", name, first, want))
		}
	}
	return faults
}

func (h *house) globals() (faults []string) {
	declared := map[string]bool{}
	for name, p := range h.packages {
		ours := map[string]bool{} // of this package, outside tests; true if it needs an entry
		for _, f := range p.files {
			if !f.test {
				maps.Copy(ours, f.variables())
			}
		}
		for _, f := range p.files {
			if f.declaresInit() {
				faults = append(faults, f.name+": an init function")
			}
			if f.test || slices.Contains(testPackages, name) {
				continue
			}
			for variable, needsEntry := range f.variables() {
				full := name + "." + variable
				declared[full] = true
				if _, allowed := globals[full]; needsEntry && !allowed {
					faults = append(faults, fmt.Sprintf("%s: the variable %s is not in globals", f.name, full))
				}
			}
			for _, variable := range f.assigned() {
				if _, ok := ours[variable]; ok {
					faults = append(faults, fmt.Sprintf("%s: changes the variable %s.%s", f.name, name, variable))
				}
			}
		}
	}
	return append(faults, stale(maps.Keys(globals), declared, "in globals, but not declared")...)
}

func (h *house) time() (faults []string) {
	for name, p := range h.packages {
		for _, f := range p.files {
			if f.test || slices.Contains(timekeepers, name) {
				continue
			}
			for _, call := range f.selectors("time", "Now", "Since", "Until") {
				faults = append(faults, fmt.Sprintf("%s: %s; take a clock.Clock", f.name, call))
			}
		}
	}
	return append(faults, stale(slices.Values(timekeepers), h.packages, "a timekeeper, but no package")...)
}

func (h *house) fileLength() (faults []string) {
	for name, p := range h.packages {
		for _, f := range p.files {
			lines := bytes.Count(f.text, []byte("\n"))
			explained := strings.Contains(strings.Join(p.comments, ""), path.Base(f.name))
			if lines > maxLines && !explained && !ast.IsGenerated(f.syntax) {
				faults = append(faults, fmt.Sprintf("%s: %d lines, and the comment of %s does not say why", f.name, lines, name))
			}
		}
	}
	return faults
}

func (h *house) systemTests() (faults []string) {
	for _, p := range h.packages {
		for _, f := range p.files {
			if f.system {
				for _, call := range f.selectors("t", "Skip", "Skipf", "SkipNow") {
					faults = append(faults, fmt.Sprintf("%s: %s; a system test that lacks something fails", f.name, call))
				}
				continue
			}
			for _, decl := range f.syntax.Decls {
				if fn, ok := decl.(*ast.FuncDecl); ok && strings.HasPrefix(fn.Name.Name, "TestSystem") {
					faults = append(faults, fmt.Sprintf("%s: %s without the build tag system", f.name, fn.Name.Name))
				}
			}
		}
	}
	return faults
}

func (h *house) words() (faults []string) {
	for _, rule := range forbidden {
		pattern := regexp.MustCompile(rule.pattern)
		for name, text := range h.texts {
			for i, line := range strings.Split(text, "\n") {
				if found := pattern.FindString(line); found != "" {
					faults = append(faults, fmt.Sprintf("%s:%d: %s: %s", name, i+1, rule.reason, found))
				}
			}
		}
	}
	return faults
}

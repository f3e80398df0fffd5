package main_test

import (
	"bytes"
	"cmp"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// house is what the rules look at: our committed files, as read from disk.
type house struct {
	packages map[string]*pkg   // by folder; the root is "main"
	texts    map[string]string // every text file that is ours, by name
}

type pkg struct {
	files    []*file
	comments []string // package comments outside tests, or of the tests where there is nothing else
}

type file struct {
	name             string // with its folder
	text             []byte
	syntax           *ast.File
	test             bool
	system           bool // built under the tag system only
	ours, thirdParty []string
}

func survey(t *testing.T, tree fs.FS, names []string) *house {
	t.Helper()
	h := &house{packages: map[string]*pkg{}, texts: map[string]string{}}
	for _, name := range names {
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text, 0) < 0 && !notOurs.MatchString(name) {
			h.texts[name] = string(text)
		}
		if path.Ext(name) == ".go" {
			folder := cmp.Or(strings.TrimPrefix(path.Dir(name), "."), "main")
			h.packages[folder] = cmp.Or(h.packages[folder], &pkg{})
			h.packages[folder].files = append(h.packages[folder].files, parse(t, name, text))
		}
	}
	for _, p := range h.packages {
		tests := !slices.ContainsFunc(p.files, func(f *file) bool { return !f.test })
		for _, f := range p.files {
			if f.syntax.Doc != nil && f.test == tests {
				p.comments = append(p.comments, f.syntax.Doc.Text())
			}
		}
	}
	return h
}

func parse(t *testing.T, name string, text []byte) *file {
	t.Helper()
	syntax, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	f := &file{name: name, text: text, syntax: syntax, test: strings.HasSuffix(name, "_test.go")}
	for _, spec := range syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		host, rest, _ := strings.Cut(imported, "/")
		switch {
		case host == "sessiond":
			f.ours = append(f.ours, cmp.Or(rest, "main"))
		case strings.Contains(host, "."):
			f.thirdParty = append(f.thirdParty, imported)
		}
	}
	for line := range strings.Lines(string(text)) {
		if expr, err := constraint.Parse(strings.TrimSpace(line)); err == nil {
			f.system = strings.Contains(expr.String(), "system")
		}
	}
	return f
}

func (f *file) declaresInit() bool {
	return slices.ContainsFunc(f.syntax.Decls, func(d ast.Decl) bool {
		fn, ok := d.(*ast.FuncDecl)
		return ok && fn.Recv == nil && fn.Name.Name == "init"
	})
}

// variables are the file's package-level variables, but for interface checks,
// and whether they need a reason to be there.
func (f *file) variables() map[string]bool {
	found := map[string]bool{}
	for _, decl := range f.syntax.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.VAR {
			continue
		}
		for _, spec := range group.Specs {
			values := spec.(*ast.ValueSpec)
			for i, name := range values.Names {
				constant := i < len(values.Values) && slices.Contains(constants, calledIn(values.Values[i]))
				found[name.Name] = !isError.MatchString(name.Name) && !constant
			}
		}
	}
	delete(found, "_")
	return found
}

var isError = regexp.MustCompile(`^[Ee]rr[A-Z]`)

// calledIn names the function that an expression calls, without type arguments.
func calledIn(e ast.Expr) string {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(types.ExprString(call.Fun), "[")
	return name
}

// assigned are the names whose values, members or elements the file changes.
func (f *file) assigned() (names []string) {
	root := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.Ident:
				names = append(names, x.Name)
				return
			default:
				return
			}
		}
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.AssignStmt:
			for _, left := range x.Lhs {
				if x.Tok != token.DEFINE {
					root(left)
				}
			}
		case *ast.IncDecStmt:
			root(x.X)
		}
		return true
	})
	return names
}

// selectors finds the uses of on.name for each of the names.
func (f *file) selectors(on string, names ...string) (found []string) {
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains(names, s.Sel.Name) {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == on {
				found = append(found, on+"."+s.Sel.Name)
			}
		}
		return true
	})
	return found
}

// stale says of each name in a table that is not among what exists why it must go.
func stale[V any](table func(func(string) bool), exists map[string]V, why string) (faults []string) {
	for name := range table {
		if _, ok := exists[name]; !ok {
			faults = append(faults, name+": "+why)
		}
	}
	return faults
}

// committed lists the files under version control, and those about to be.
func committed(t *testing.T) []string {
	t.Helper()
	if _, err := os.Stat(".git"); err != nil {
		t.Skip("not a git work tree: only what is committed is held to the rules")
	}
	out, err := exec.CommandContext(t.Context(), "git", "ls-files", "-z").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	names := strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
	names = slices.DeleteFunc(names, func(name string) bool {
		_, err := os.Lstat(name)
		return err != nil // deleted, but not yet committed so
	})
	if len(names) == 0 {
		t.Fatal("git lists no files")
	}
	return names
}

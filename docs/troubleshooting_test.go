package docs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestTroubleshooting holds troubleshooting.md to the hints that the four programs can print: each has an entry, and each entry
// is of a hint that there is.
func TestTroubleshooting(t *testing.T) {
	text, err := os.ReadFile("troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	var entries []string
	for _, m := range regexp.MustCompile(`(?m)^> hint: (.+)$`).FindAllStringSubmatch(string(text), -1) {
		entries = append(entries, m[1])
	}
	hints := map[string]string{} // with where each is
	for _, folder := range []string{"../cmd/nix-cache-check", "../cmd/nix-build-images", "../cmd/push-images", "../cmd/deploy-manifests", "../internal/apply", "../internal/action"} {
		s := read(t, folder)
		for _, f := range s.found() {
			hints[f.text] = f.where
		}
	}
	if len(hints) < 100 {
		t.Errorf("only %d hints were found in the programs: does this test still know how they are written?", len(hints))
	}
	for text, where := range hints {
		if !slices.Contains(entries, text) {
			t.Errorf("%s: troubleshooting.md has no entry\n> hint: %s", where, text)
		}
	}
	for i, text := range entries {
		if hints[text] == "" {
			t.Errorf("troubleshooting.md has an entry of a hint that no program gives:\n> hint: %s", text)
		}
		if slices.Contains(entries[:i], text) {
			t.Errorf("troubleshooting.md has two entries of\n> hint: %s", text)
		}
	}
}

// source is one package, as far as finding its hints needs it.
type source struct {
	t     *testing.T
	set   *token.FileSet
	files []*ast.File
	funcs map[string]*ast.FuncDecl // functions and methods, by name
	busy  map[string]bool          // variables whose values are being looked for
}

type found struct{ text, where string }

func read(t *testing.T, folder string) *source {
	t.Helper()
	s := &source{t: t, set: token.NewFileSet(), funcs: map[string]*ast.FuncDecl{}, busy: map[string]bool{}}
	packages, err := parser.ParseDir(s.set, folder, func(i fs.FileInfo) bool { return !strings.HasSuffix(i.Name(), "_test.go") }, 0) //nolint:staticcheck // no types wanted
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		for _, f := range p.Files {
			s.files = append(s.files, f)
			for _, d := range f.Decls {
				if d, ok := d.(*ast.FuncDecl); ok {
					s.funcs[d.Name.Name] = d
				}
			}
		}
	}
	return s
}

// found are the hints of all calls of action.Fail, and all that is assigned to a field Hint.
func (s *source) found() (all []found) {
	add := func(scope ast.Node, x ast.Expr, args []ast.Expr) {
		for _, text := range s.texts(scope, x, args) {
			if text != "" {
				all = append(all, found{text, s.set.Position(x.Pos()).String()})
			}
		}
	}
	for _, file := range s.files {
		for _, d := range file.Decls {
			ast.Inspect(d, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					if name(n.Fun) == "Fail" && len(n.Args) >= 3 {
						add(d, n.Args[2], n.Args[3:])
					}
				case *ast.AssignStmt:
					for i, left := range n.Lhs {
						if left, ok := left.(*ast.SelectorExpr); ok && left.Sel.Name == "Hint" && len(n.Lhs) == len(n.Rhs) {
							add(d, n.Rhs[i], nil)
						}
					}
				}
				return true
			})
		}
	}
	return all
}

var verb = regexp.MustCompile(`%[.0-9]*[a-z]`)

// texts are the values that x can have, what is only known when the program runs as an ellipsis. args are those of x as a format.
func (s *source) texts(scope ast.Node, x ast.Expr, args []ast.Expr) (all []string) {
	switch x := x.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(x.Value)
		if err != nil {
			return nil // a number
		}
		if text == "%s" && len(args) == 1 {
			return s.texts(scope, args[0], nil)
		}
		return []string{strings.ReplaceAll(verb.ReplaceAllString(text, "…"), "%%", "%")}
	case *ast.BinaryExpr:
		for _, left := range s.texts(scope, x.X, nil) {
			for _, right := range s.texts(scope, x.Y, nil) {
				all = append(all, left+right)
			}
		}
		return all
	case *ast.CallExpr:
		if name(x.Fun) == "Sprintf" {
			return s.texts(scope, x.Args[0], x.Args[1:])
		}
		if f := s.funcs[name(x.Fun)]; f != nil {
			return s.returned(f)
		}
		return []string{"…"}
	case *ast.Ident:
		return s.assigned(scope, x.Name)
	}
	return nil // a field: what is assigned to it is found there
}

// returned are the texts f can return.
func (s *source) returned(f *ast.FuncDecl) (all []string) {
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) > 0 {
			all = append(all, s.texts(f, r.Results[0], nil)...)
		}
		return true
	})
	return all
}

// assigned are the texts that a variable of scope, a parameter of a function literal in it, or a constant can have.
func (s *source) assigned(scope ast.Node, variable string) (all []string) {
	if key := fmt.Sprint(scope.Pos(), variable); s.busy[key] {
		return nil
	} else {
		s.busy[key] = true
		defer delete(s.busy, key)
	}
	values := func(names []ast.Expr, values []ast.Expr) {
		for i, n := range names {
			if name(n) == variable && len(names) == len(values) {
				all = append(all, s.texts(scope, values[i], nil)...)
			}
		}
	}
	inspect := func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			values(n.Lhs, n.Rhs)
			for i, right := range n.Rhs {
				if f, ok := right.(*ast.FuncLit); ok {
					all = append(all, s.passed(scope, name(n.Lhs[i]), f.Type, variable)...)
				}
			}
		case *ast.ValueSpec:
			for i, n2 := range n.Names {
				if n2.Name == variable && i < len(n.Values) {
					all = append(all, s.texts(scope, n.Values[i], nil)...)
				}
			}
		}
		return true
	}
	ast.Inspect(scope, inspect)
	if f, ok := scope.(*ast.FuncDecl); ok {
		for _, file := range s.files {
			for _, d := range file.Decls {
				all = append(all, s.passed(d, f.Name.Name, f.Type, variable)...)
			}
		}
	}
	if len(all) == 0 {
		for _, file := range s.files {
			for _, d := range file.Decls {
				if g, ok := d.(*ast.GenDecl); ok {
					ast.Inspect(g, inspect)
				}
			}
		}
	}
	return all
}

// passed are the texts that calls in scope of a function give its parameter.
func (s *source) passed(scope ast.Node, function string, t *ast.FuncType, parameter string) (all []string) {
	index, at := -1, 0
	for _, field := range t.Params.List {
		for _, n := range field.Names {
			if n.Name == parameter {
				index = at
			}
			at++
		}
	}
	if index < 0 {
		return nil
	}
	ast.Inspect(scope, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok && name(c.Fun) == function && index < len(c.Args) {
			all = append(all, s.texts(scope, c.Args[index], nil)...)
		}
		return true
	})
	return all
}

// name is the last identifier of an expression.
func name(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return x.Sel.Name
	}
	return ""
}

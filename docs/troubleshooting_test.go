package docs_test

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTroubleshooting holds troubleshooting.md to the hints that the programs can print: each has one entry, and each entry is of a
// hint that there is. What a heading quotes is found in the programs as well.
func TestTroubleshooting(t *testing.T) {
	text, err := os.ReadFile("troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^> hint: (.+)$`).FindAllStringSubmatch(string(text), -1) {
		hint := strings.ReplaceAll(m[1], `\<`, "<") // Markdown takes <system> for HTML
		if entries[hint] {
			t.Errorf("troubleshooting.md has two entries of\n> hint: %s", hint)
		}
		entries[hint] = true
	}

	hints := map[string]string{} // with where each is
	var code strings.Builder
	for _, root := range []string{"../cmd", "../internal"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() && entry.Name() != "testdata" {
				readPackage(t, path, &code).find(hints)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	launcher, err := os.ReadFile("../actions/launch.sh")
	if err != nil {
		t.Fatal(err)
	}
	code.Write(launcher)
	for _, m := range regexp.MustCompile(`\$tool: hint: (.+)"`).FindAllStringSubmatch(string(launcher), -1) {
		hints[m[1]] = "../actions/launch.sh"
	}

	for hint, where := range hints {
		if !entries[hint] {
			t.Errorf("%s: troubleshooting.md has no entry\n> hint: %s", where, hint)
		}
	}
	for hint := range entries {
		if hints[hint] == "" {
			t.Errorf("troubleshooting.md has an entry of a hint that no program gives:\n> hint: %s", hint)
		}
	}
	said := strings.ReplaceAll(code.String(), `\"`, `"`)
	for _, m := range regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatch(string(text), -1) {
		pieces := others.Split(m[1], -1)
		if longest := strings.TrimSpace(slices.MaxFunc(pieces, func(a, b string) int { return len(a) - len(b) })); !strings.Contains(said, longest) {
			t.Errorf("troubleshooting.md: the heading %q quotes %q, which no program says", m[1], longest)
		}
	}
}

// others is what of a heading is somebody else's words, or between two pieces of a message.
var others = regexp.MustCompile(`…|: |, |\d{3} [A-Z][A-Za-z ]+|x509: .*|server gave .*|repository can .*|exit status|no such file or directory|Anything else`)

// source is one package, type-checked without its imports: names lead to objects, and constants have their values.
type source struct {
	t     *testing.T
	set   *token.FileSet
	files []*ast.File
	info  types.Info
	// values are the expressions that an object can have: what is assigned to a variable, given to a parameter, returned by a function.
	values map[types.Object][]ast.Expr
	busy   map[types.Object]bool // whose values are being looked for
}

func readPackage(t *testing.T, folder string, code *strings.Builder) *source {
	t.Helper()
	s := &source{t: t, set: token.NewFileSet(), values: map[types.Object][]ast.Expr{}, busy: map[types.Object]bool{}}
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(s.set, path, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
		s.files = append(s.files, f)
	}
	s.info = types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: nothing{}, Error: func(error) {}} // what is imported is not known: an error each
	_, _ = config.Check(folder, s.set, s.files, &s.info)
	s.gather()
	return s
}

type nothing struct{}

func (nothing) Import(string) (*types.Package, error) { return nil, fs.ErrNotExist }

// object is what an expression names.
func (s *source) object(x ast.Expr) types.Object {
	switch x := x.(type) {
	case *ast.Ident:
		return s.info.ObjectOf(x)
	case *ast.SelectorExpr:
		return s.info.ObjectOf(x.Sel)
	}
	return nil
}

// gather fills values.
func (s *source) gather() {
	parameters := map[types.Object][]types.Object{} // of functions, and of variables that are one
	function := func(f types.Object, t *ast.FuncType, body *ast.BlockStmt) {
		for _, field := range t.Params.List {
			for _, name := range field.Names {
				parameters[f] = append(parameters[f], s.object(name))
			}
		}
		ast.Inspect(body, func(n ast.Node) bool {
			if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) > 0 {
				s.values[f] = append(s.values[f], r.Results[0])
			}
			_, other := n.(*ast.FuncLit)
			return !other
		})
	}
	assign := func(left, right ast.Expr) {
		if f, ok := right.(*ast.FuncLit); ok {
			function(s.object(left), f.Type, f.Body)
		} else if o := s.object(left); o != nil {
			s.values[o] = append(s.values[o], right)
		}
	}
	s.each(func(n ast.Node) {
		switch n := n.(type) {
		case *ast.FuncDecl:
			function(s.object(n.Name), n.Type, n.Body)
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				if n.Tok == token.ADD_ASSIGN || len(n.Lhs) != len(n.Rhs) { // not read: whoever asks for the value shall hear of it
					assign(left, &ast.BadExpr{From: n.Pos()})
				} else {
					assign(left, n.Rhs[i])
				}
			}
		case *ast.ValueSpec:
			for i, value := range n.Values {
				assign(n.Names[i], value)
			}
		}
	})
	s.each(func(n ast.Node) {
		if call, ok := n.(*ast.CallExpr); ok {
			for i, p := range parameters[s.object(call.Fun)] {
				if i < len(call.Args) {
					s.values[p] = append(s.values[p], call.Args[i])
				}
			}
		}
	})
}

func (s *source) each(do func(ast.Node)) {
	for _, f := range s.files {
		ast.Inspect(f, func(n ast.Node) bool { do(n); return true })
	}
}

// find adds the hints of all calls of action.Fail, and all that becomes a field Hint.
func (s *source) find(hints map[string]string) {
	add := func(x ast.Expr, args ...ast.Expr) {
		for _, text := range s.format(x, args) {
			if text != "" { // it has none
				hints[text] = s.set.Position(x.Pos()).String()
			}
		}
	}
	s.each(func(n ast.Node) {
		switch n := n.(type) {
		case *ast.CallExpr:
			if last(n.Fun) == "Fail" && len(n.Args) >= 3 {
				add(n.Args[2], n.Args[3:]...)
			}
		case *ast.KeyValueExpr:
			if last(n.Key) == "Hint" {
				add(n.Value)
			}
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				if last(left) == "Hint" && i < len(n.Rhs) {
					add(n.Rhs[i])
				}
			}
		}
	})
}

var verb = regexp.MustCompile(`%[-+# .0-9]*[a-z]`)

// format are the texts of a format with arguments: constants are put in, what is only known when the program runs is an ellipsis.
func (s *source) format(x ast.Expr, args []ast.Expr) (all []string) {
	for _, text := range s.texts(x) {
		if text == "%s" && len(args) == 1 {
			return s.texts(args[0])
		}
		i := -1
		all = append(all, verb.ReplaceAllStringFunc(text, func(string) string {
			if i++; i < len(args) {
				if v := s.info.Types[args[i]].Value; v != nil && v.Kind() == constant.String {
					return constant.StringVal(v)
				}
			}
			return "…"
		}))
	}
	return all
}

// texts are the values that x can have. An expression of a form that is not known here fails the test.
func (s *source) texts(x ast.Expr) (all []string) {
	if v := s.info.Types[x].Value; v != nil && v.Kind() == constant.String {
		return []string{constant.StringVal(v)}
	}
	o := s.object(x)
	switch x := x.(type) {
	case *ast.BinaryExpr:
		for _, left := range s.texts(x.X) {
			if call, ok := x.Y.(*ast.CallExpr); ok && s.values[s.object(call.Fun)] == nil {
				return append(all, left+"…")
			}
			for _, right := range s.texts(x.Y) {
				all = append(all, left+right)
			}
		}
		return all
	case *ast.CallExpr:
		if last(x.Fun) == "Sprintf" {
			return s.format(x.Args[0], x.Args[1:])
		}
		if slices.ContainsFunc(x.Args, func(arg ast.Expr) bool { return last(arg) == "Hint" }) {
			return nil
		}
		o = s.object(x.Fun)
	case *ast.SelectorExpr:
		if x.Sel.Name == "Hint" {
			return nil // what is assigned to it is found there
		}
	}
	if o == nil || s.values[o] == nil {
		s.t.Errorf("%s: this test cannot read the hint here: write it as a constant, or as a format, in one piece", s.set.Position(x.Pos()))
		return nil
	}
	if s.busy[o] {
		return nil
	}
	s.busy[o] = true
	defer delete(s.busy, o)
	for _, value := range s.values[o] {
		all = append(all, s.texts(value)...)
	}
	return all
}

// last is the last name of an expression.
func last(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return x.Sel.Name
	}
	return ""
}

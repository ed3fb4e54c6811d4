package handoff_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestFieldsAreDocumented holds the tables of docs/handoff.md to the Go types. FLAKESHIP_GENERATE=1 writes them.
func TestFieldsAreDocumented(t *testing.T) {
	const begin, end = "<!-- fields: generated from internal/handoff by make generate -->\n", "<!-- end of generated part -->\n"
	path := filepath.Join("..", "..", "docs", "handoff.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the lines around its generated part", path)
	}
	want := head + begin + tables(t) + "\n" + end + tail
	if os.Getenv("FLAKESHIP_GENERATE") == "1" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(page) != want {
		t.Errorf("%s is not up to date; make generate writes it", path)
	}
}

// tables renders each struct with JSON fields: its comment, then one row a field; and each named text type's values.
func tables(t *testing.T) string {
	var b strings.Builder
	fset := token.NewFileSet()
	for _, name := range []string{"handoff.go", "documents.go"} {
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range gen.Specs {
				switch spec := s.(type) {
				case *ast.TypeSpec:
					if st, ok := spec.Type.(*ast.StructType); ok && hasJSON(st) {
						writeStruct(t, &b, spec.Name.Name, gen.Doc.Text(), st)
					}
				case *ast.ValueSpec:
					if typ, ok := spec.Type.(*ast.Ident); ok && len(spec.Values) == 1 && typ.Name != "Kind" {
						if !strings.Contains(b.String(), "### "+typ.Name+"\n") {
							fmt.Fprintf(&b, "\n### %s\n\n| value | meaning |\n|---|---|\n", typ.Name)
						}
						fmt.Fprintf(&b, "| `%s` | %s |\n", strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`), oneLine(spec.Comment.Text()))
					}
				}
			}
		}
	}
	return b.String()
}

func hasJSON(st *ast.StructType) bool {
	for _, f := range st.Fields.List {
		if f.Tag != nil && strings.Contains(f.Tag.Value, "json:") {
			return true
		}
	}
	return false
}

func writeStruct(t *testing.T, b *strings.Builder, name, doc string, st *ast.StructType) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n| field | type | meaning |\n|---|---|---|\n", name, oneLine(doc))
	for _, f := range st.Fields.List {
		if f.Tag == nil { // embedded Header
			b.WriteString("| | Header | the fields of Header stand beside these |\n")
			continue
		}
		field, opts, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
		if field == "" {
			t.Errorf("%s: a field without a JSON name", name)
		}
		meaning := oneLine(f.Comment.Text())
		if strings.Contains(opts, "omitempty") {
			meaning = strings.TrimPrefix(meaning+"; may be left out", "; ")
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", field, typeName(f.Type), strings.ReplaceAll(meaning, "|", `\|`))
	}
}

func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.ArrayType:
		return "list of " + typeName(e.Elt)
	case *ast.StarExpr:
		return typeName(e.X)
	}
	return fmt.Sprintf("%T", e)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

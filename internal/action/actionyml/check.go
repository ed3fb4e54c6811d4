package actionyml

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/action"
)

// Check fails t when actions/<name>/action.yml or the tables of its README are not what spec renders to. It is called from
// the folder cmd/<name>. With FLAKESHIP_GENERATE=1 it writes them instead.
func Check(t *testing.T, spec action.Spec) {
	t.Helper()
	folder := filepath.Join("..", "..", "actions", spec.Name)
	text := Render(spec)
	f, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("the rendered action.yml is no YAML: %v\n%s", err, text)
	}
	Same(t, filepath.Join(folder, "action.yml"), text)

	path := filepath.Join(folder, "README.md")
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Splice(string(readme), Tables(f, spec))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	Same(t, path, want)
	checkSpec(t, spec)
}

// Same fails t when the file at path does not hold text, or writes it with FLAKESHIP_GENERATE=1.
func Same(t *testing.T, path, text string) {
	t.Helper()
	if os.Getenv("FLAKESHIP_GENERATE") == "1" {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; make generate writes it", err)
	}
	if diff := cmp.Diff(string(got), text); diff != "" {
		t.Errorf("%s is not up to date; make generate writes it (-file +generated):\n%s", path, diff)
	}
}

func checkSpec(t *testing.T, spec action.Spec) {
	t.Helper()
	for _, in := range spec.All() {
		if in.Help == "" || strings.HasSuffix(in.Help, ".") {
			t.Errorf("input %s: the help %q is to be a phrase without a full stop", in.Name, in.Help)
		}
		if in.Example == "" && wantsExample(in) {
			t.Errorf("input %s: an example of it is to be given", in.Name)
		}
		if in.Secret && in.Default != "" {
			t.Errorf("input %s: a secret has no default", in.Name)
		}
	}
}

// wantsExample says whether an input's form is not plain from its kind or its default.
func wantsExample(in action.Input) bool {
	switch in.Kind {
	case action.Bool, action.Choice, action.Int:
		return false
	case action.Duration:
		return in.Default == ""
	}
	return true
}

package manifest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree makes files, each with one ConfigMap of the given name, and moves there.
func tree(t *testing.T, files ...string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, file := range files {
		text := cm
		if strings.Contains(file, "[") {
			text = strings.Replace(cm, "%s", "'%s'", 1)
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		if err := os.WriteFile(file, fmt.Appendf(nil, text, strings.TrimPrefix(name, ".")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRead(t *testing.T) {
	tree(t, "m/b.yaml", "m/a.yml", "m/sub/c.json.yaml", "m/.hidden.yaml", "m/.git/d.yaml", "m/README.md", "other", "m/sub/deep/e.yaml", "x[1].yaml")
	if err := os.Symlink("../../m/sub/deep", "m/sub/link"); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		inputs []string
		want   []string
	}{
		{[]string{"m"}, []string{"m/a.yml:1 ConfigMap/a", "m/b.yaml:1 ConfigMap/b", "m/sub/c.json.yaml:1 ConfigMap/c.json", "m/sub/deep/e.yaml:1 ConfigMap/e"}},
		{[]string{"other", "m/b.yaml"}, []string{"other:1 ConfigMap/other", "m/b.yaml:1 ConfigMap/b"}},
		{[]string{"m/b.yaml", "m/*.y*ml"}, []string{"m/b.yaml:1 ConfigMap/b", "m/a.yml:1 ConfigMap/a"}},
		{[]string{"m/**/*.yaml"}, []string{"m/b.yaml:1 ConfigMap/b", "m/sub/c.json.yaml:1 ConfigMap/c.json", "m/sub/deep/e.yaml:1 ConfigMap/e"}},
		{[]string{"**/e.yaml"}, []string{"m/sub/deep/e.yaml:1 ConfigMap/e"}},
		{[]string{"m/su?"}, []string{"m/sub/c.json.yaml:1 ConfigMap/c.json", "m/sub/deep/e.yaml:1 ConfigMap/e"}},
		{[]string{"x[1].yaml"}, []string{"x[1].yaml:1 ConfigMap/x[1]"}}, // a file of that very name wins over the pattern
		{[]string{"-"}, []string{"stdin:1 ConfigMap/in"}},
	}
	for _, tt := range tests {
		objects, err := Read(context.Background(), tt.inputs, strings.NewReader(fmt.Sprintf(cm, "in")))
		if err != nil {
			t.Errorf("Read(%q): %v", tt.inputs, err)
		}
		if diff := cmp.Diff(tt.want, outline(objects)); diff != "" {
			t.Errorf("Read(%q) (-want +got):\n%s", tt.inputs, diff)
		}
	}
}

func TestReadProblems(t *testing.T) {
	tree(t, "m/a.yaml", "k/kustomization.yaml", "k/a.yaml", "empty/README.md")
	if err := os.WriteFile("m/bad.yaml", []byte("a: b: c\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", "m/broken.yaml"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("nothing.yaml", []byte("# nothing\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Read(context.Background(), []string{"m", "gone", "k", "empty", "none/*.yaml", "none/**/*.yaml", "[", "*/**"}, nil)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("Read: %v, want *Error", err)
	}
	want := []string{
		"m/bad.yaml:1: not YAML: mapping values are not allowed in this context",
		"m/broken.yaml: cannot be read: no such file or directory",
		"gone: cannot be read: no such file or directory",
		"k/kustomization.yaml: a kustomization is not applied as it is: give the output of `kustomize build`",
		"empty: no .yaml, .yml or .json file in this folder",
		"none/*.yaml: no file matches this pattern",
		"none/**/*.yaml: no file matches this pattern",
		"[: not a pattern: syntax error in pattern",
		"*/**: not a pattern: ** must come before other wildcards of folders",
	}
	if diff := cmp.Diff(want, texts(e.Problems)); diff != "" {
		t.Error(diff)
	}
	if _, err := Read(context.Background(), []string{"nothing.yaml"}, nil); err == nil || err.Error() != "nothing.yaml: no Kubernetes object in it" {
		t.Errorf("Read: %v", err)
	}
}

func TestReadStdinEndsWithContext(t *testing.T) {
	r, _, err := os.Pipe() // nobody writes, nobody closes
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if _, err := Read(ctx, []string{"-"}, r); !errors.Is(err, context.Canceled) {
		t.Errorf("Read: %v, want %v", err, context.Canceled)
	}
}

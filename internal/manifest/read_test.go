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
	if _, err := Read(context.Background(), []string{"-"}, strings.NewReader("")); err == nil || err.Error() != "-: no Kubernetes object in it" { // a pipe whose program failed
		t.Errorf("Read: %v", err)
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

// What kubenix and nixidy build is read from its store path, and from a link to it: a List in one JSON file, and a folder for each
// application whose files are links into the store.
func TestReadStorePaths(t *testing.T) {
	t.Chdir(t.TempDir())
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	const kubenix, nixidy = "store/0i3x2q5h9n1c8v7b6m4k0j2h1g3f5d7s-kubenix-generated.json", "store/1zq0w9v8s7r6p5n4m3l2k1j0i9h8g7f6-nixidy-environment-prod"
	write(kubenix, `{"apiVersion":"v1","items":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"annotations":{"kubenix/project-name":"kubenix"},"name":"a"}},`+
		`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"b"}}],"kind":"List","labels":{"kubenix/hash":"0123"}}`)
	write("store/2x-ConfigMap-c.yaml", fmt.Sprintf(cm, "c"))
	link("../../2x-ConfigMap-c.yaml", nixidy+"/web/ConfigMap-c.yaml")
	write(nixidy+"/apps/Application-web.yaml", "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: web, namespace: argocd}\n")
	link(kubenix, "result")
	link(nixidy, "result-1")
	wantList := []string{":1 ConfigMap/a", ":1 Deployment/b"}
	wantTree := []string{"/apps/Application-web.yaml:1 Application/argocd/web", "/web/ConfigMap-c.yaml:1 ConfigMap/c"}
	for input, want := range map[string][]string{kubenix: wantList, "result": wantList, nixidy: wantTree, "result-1": wantTree} {
		objects, err := Read(context.Background(), []string{input}, nil)
		if err != nil {
			t.Errorf("%s: %v", input, err)
			continue
		}
		got := outline(objects)
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], input)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", input, diff)
		}
	}
}

package build

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A package of this module that the program uses but its key does not cover
// would leave a stale program in the cache.
func TestKeyCoversAllSources(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/flakeship/flakeship"
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if .Module}}{{if or (eq .Module.Path \""+module+"\") (eq .Module.Path \""+module+"/e2e\")}}{{.ImportPath}}{{end}}{{end}}", "./cmd/services")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.FieldsSeq(string(out)) {
		got = append(got, strings.TrimPrefix(line, module+"/e2e/"))
	}
	slices.Sort(got)
	if want := servicesSources; !slices.Equal(got, want) {
		t.Errorf("cmd/services is made of %q, but the key covers %q", got, want)
	}
}

func TestBuildOnceThenAgainWhenASourceChanges(t *testing.T) {
	t.Setenv("FLAKESHIP_E2E_CACHE", t.TempDir())
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.test/hello\n")
	// Its own folder in the source, or Go's cache has it from an earlier run and there is nothing to compile.
	write("main.go", "package main\n\nvar version string\n\nconst _ = `"+dir+"`\n\nfunc main() { println(version) }\n")
	p := program{name: "hello", title: "hello", dir: dir, pkg: ".", sources: []string{"go.mod", "main.go"}, ldflags: "-X main.version=7"}

	var progress bytes.Buffer
	first, err := p.build(t.Context(), &progress)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(first).CombinedOutput(); err != nil || string(out) != "7\n" {
		t.Errorf("the program prints %q, %v", out, err)
	}
	if got := progress.String(); !strings.Contains(got, "compiling hello: ") || !strings.Contains(got, "compiled 1 packages in ") {
		t.Errorf("progress is %q", got)
	}
	progress.Reset()
	second, err := p.build(t.Context(), &progress)
	if err != nil || second != first || progress.Len() > 0 {
		t.Errorf("second build = %s, %v, progress %q; want the first program, in silence", second, err, progress.String())
	}

	write("main.go", "package main\n\nfunc main() { println(undefined) }\n")
	if _, err := p.build(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "main.go:3:") {
		t.Errorf("build of broken %s: %v, want the compiler's words", source, err)
	}
}

func TestVersionFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "go.mod")
	if err := os.WriteFile(file, []byte("require (\n\tk8s.io/kubernetes v1.37.2\n)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := versionFlags(file)
	if err != nil || !strings.Contains(got, "-X k8s.io/component-base/version.gitVersion=v1.37.2 ") || !strings.Contains(got, "gitMinor=37 ") {
		t.Errorf("versionFlags = %q, %v", got, err)
	}
}

func TestMeter(t *testing.T) {
	var out bytes.Buffer
	m := newMeter(&out, "things", 3)
	for _, part := range []string{"inter", "nal/abi\ngo: downloading x v1\nk8s.io/api", "\n# k8s.io/bad\nfile.go:1:2: no\n"} {
		fmt.Fprint(m, part)
	}
	if other := m.finish(false); other != "# k8s.io/bad\nfile.go:1:2: no\n" {
		t.Errorf("other output is %q", other)
	}
	if m.compiled != 2 {
		t.Errorf("compiled %d packages, want 2", m.compiled)
	}
}

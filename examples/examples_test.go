// Package examples_test checks what users copy: that it parses, compiles and names things that exist. The monorepo of the
// end-to-end tests, which is run for real in e2e/, is held to the same.
package examples_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/flakeship/flakeship/internal/action/actionyml"
)

var monorepos = []string{"monorepo", filepath.Join("..", "e2e", "testdata", "monorepo")}

func TestNixParses(t *testing.T) {
	t.Setenv("NIX_CONF_DIR", t.TempDir()) // not the machine's settings
	for _, root := range append(monorepos, filepath.Join("..", "nix"), filepath.Join("..", "flake.nix")) {
		files := find(t, root, "*.nix")
		if len(files) == 0 {
			t.Errorf("%s: no Nix files", root)
		}
		for _, file := range files {
			run(t, ".", "nix-instantiate", "--parse", file)
		}
	}
}

// The workflows are what people paste: short, and without an input the root action does not have.
func TestWorkflows(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := actionyml.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	files := append(find(t, filepath.Join("monorepo", ".gitea"), "*.yaml"), find(t, filepath.Join("monorepo", ".github"), "*.yaml")...)
	files = append(files, find(t, filepath.Join(monorepos[1], ".gitea"), "*.yaml")...)
	if len(files) != 3 {
		t.Fatalf("workflows are %q, want three", files)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(text, []byte("\n")); n > 24 {
			t.Errorf("%s has %d lines: it is to be about 20", file, n)
		}
		var workflow struct {
			Jobs map[string]struct {
				Steps []struct {
					Uses string
					With map[string]string
				}
			}
		}
		if err := yaml.Unmarshal(text, &workflow); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		used := false
		for _, job := range workflow.Jobs {
			for _, step := range job.Steps {
				if !strings.HasPrefix(step.Uses, "flakeship/flakeship@") {
					continue
				}
				used = true
				for input := range step.With {
					if _, ok := root.Inputs[input]; !ok {
						t.Errorf("%s: the root action has no input %q", file, input)
					}
				}
			}
		}
		if !used {
			t.Errorf("%s does not use flakeship", file)
		}
	}
}

// Every image an object names is a service of the repository.
func TestObjectsNameServices(t *testing.T) {
	image := regexp.MustCompile(`(?m)^ *image: (\S+)`)
	for _, root := range monorepos {
		var named int
		for _, file := range find(t, filepath.Join(root, "deploy"), "*.yaml") {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range image.FindAllSubmatch(text, -1) {
				named++
				if _, err := os.Stat(filepath.Join(root, "services", string(match[1]))); err != nil {
					t.Errorf("%s: image %s: %v", file, match[1], err)
				}
			}
		}
		if named < 3 {
			t.Errorf("%s: objects name %d images", root, named)
		}
	}
}

func TestGoService(t *testing.T) {
	dir := filepath.Join("monorepo", "services", "greeter")
	run(t, dir, "go", "vet", "./...")
	run(t, dir, "go", "test", "./...")
}

// The Rust service is compiled where there is a compiler; nothing of flakeship needs one.
func TestRustService(t *testing.T) {
	if _, err := exec.LookPath("cargo"); err != nil {
		t.Log("no cargo here: the Rust service is not compiled")
		return
	}
	t.Setenv("CARGO_TARGET_DIR", t.TempDir())
	run(t, filepath.Join("monorepo", "services", "counter"), "cargo", "test", "--offline", "--locked", "--quiet")
}

func find(t *testing.T, root, pattern string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "target" {
			return fs.SkipDir
		}
		if ok, _ := filepath.Match(pattern, d.Name()); ok && !d.IsDir() {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "NIX_REMOTE=dummy://") // to parse needs no store
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

package nix

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

// evaluateAll runs an evaluation of all packages of a flake.
func evaluateAll(t *testing.T, n *Nix, dir string, worth time.Duration, o EvalOptions) (*evaluation, error) {
	t.Helper()
	src, err := n.flake(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := newEvaluation(&evaluator{nix: n, src: src, readOnly: true}, o)
	e.worth = worth
	return e, e.all(t.Context(), []string{"x86_64-linux"}, selection{})
}

// failed are the attributes that did not evaluate, by name, and what Nix says of them.
func failed(t *testing.T, err error) map[string]string {
	t.Helper()
	all := map[string]string{}
	if err == nil {
		return all
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("error is %v", err)
	}
	for _, one := range joined.Unwrap() {
		var e *EvalError
		if !errors.As(one, &e) {
			t.Fatalf("error is %v", one)
		}
		name := strings.TrimPrefix(e.Attr, "packages.x86_64-linux.")
		if all[name] != "" {
			t.Errorf("%s failed twice", name)
		}
		all[name] = e.Cause()
	}
	return all
}

// found are the names of the images, sorted.
func (e *evaluation) names(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, img := range e.images {
		names = append(names, img.ImageName)
	}
	slices.Sort(names)
	if unique := slices.Compact(slices.Clone(names)); len(unique) != len(names) {
		t.Errorf("an image was found twice: %v", names)
	}
	return names
}

func TestWorkersShareTheAttributes(t *testing.T) {
	n, store := open(t)
	packages := map[string]string{}
	for i := range 60 {
		name := fmt.Sprintf("a%02d", i)
		packages[name] = fmt.Sprintf("image %q (toString (builtins.foldl' (a: b: a + b) 0 (builtins.genList (x: x) 20000))) {}", name)
	}
	packages["a07"] = `throw "seventh"`
	packages["a31"] = `abort "thirty-first"`
	packages["a59"] = `image "a59" "" { inherit (self) nothing; }`
	packages["a40"] = `3`
	dir := flake(t, store, packages)
	for _, workers := range []int{1, 2, 5} {
		e, err := evaluateAll(t, n, dir, 0, EvalOptions{Workers: workers})
		if got := e.names(t); len(got) != 56 {
			t.Errorf("%d workers: %d images instead of 56: %v", workers, len(got), got)
		}
		got := failed(t, err)
		for name, want := range map[string]string{"a07": "seventh", "a31": "thirty-first", "a59": "'nothing' missing"} {
			if !strings.Contains(got[name], want) {
				t.Errorf("%d workers: %s failed with %q, want %q", workers, name, got[name], want)
			}
			delete(got, name)
		}
		if len(got) > 0 {
			t.Errorf("%d workers: these failed as well: %v", workers, got)
		}
	}
}

// Hundreds of attributes with one broken thing in common: the first ones say what it is, the others are named, and nobody waits
// for hundreds of processes.
func TestManyFailuresAreNotAllExplained(t *testing.T) {
	n, store := open(t)
	packages := map[string]string{"zz": `image "zz" "" {}`}
	for i := range 3 * maxExplained {
		packages[fmt.Sprintf("a%03d", i)] = `throw "the input is broken"`
	}
	e, err := evaluateAll(t, n, flake(t, store, packages), worthAWorker, EvalOptions{Workers: 2})
	explained, others := 0, 0
	for _, cause := range failed(t, err) {
		if strings.Contains(cause, "the input is broken") {
			explained++
		} else {
			others++
		}
	}
	if explained != maxExplained || others != 2*maxExplained {
		t.Errorf("%d failures with their cause and %d without, want %d and %d", explained, others, maxExplained, 2*maxExplained)
	}
	if got := e.names(t); !slices.Equal(got, []string{"zz"}) {
		t.Errorf("images are %v, want zz", got)
	}
}

// hungry is a flake whose attributes use some 20 MB each, and keep it; the one named "huge" uses some 200.
func hungry(t *testing.T, store *nixstore.Store) string {
	return writeFlake(t, store, `{
  outputs = { self }: let
    image = name: elements: let
      big = builtins.genList (x: x * 2) elements;
    in derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; } // {
      imageName = name;
      imageTag = builtins.deepSeq big "";
      inherit big;
    };
  in {
    packages.x86_64-linux = builtins.listToAttrs (builtins.genList (i: rec { name = "a${toString i}"; value = image name 400000; }) 8) // {
      huge = image "huge" 4000000;
    };
  };
}`)
}

func TestMemoryBudget(t *testing.T) {
	if resident(1) == 0 {
		t.Log("the memory of a process is not known here: there is no budget")
		return
	}
	n, store := open(t)
	dir := hungry(t, store)
	all := []string{"a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "huge"}
	small := EvalOptions{Workers: 2, Memory: 200}
	e, err := evaluateAll(t, n, dir, 0, small)
	if got := e.names(t); !slices.Equal(got, all[:8]) {
		t.Errorf("with %d MiB these were found: %v", small.Memory, got)
	}
	got := failed(t, err)
	if !strings.Contains(got["huge"], "200 MiB") || len(got) != 1 {
		t.Errorf("with %d MiB these failed: %v", small.Memory, got)
	}
	e, err = evaluateAll(t, n, dir, worthAWorker, EvalOptions{Workers: 1, Memory: 4096})
	if got := e.names(t); !slices.Equal(got, all) || err != nil {
		t.Errorf("with 4 GiB these were found: %v, %v", got, err)
	}
}

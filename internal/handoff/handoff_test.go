package handoff_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/handoff"
)

func plan() *handoff.Plan {
	return &handoff.Plan{
		Header: handoff.Header{Commit: strings.Repeat("a1", 20)},
		Flake:  handoff.Flake{Ref: ".", Locked: "git+file:///repo?rev=" + strings.Repeat("a1", 20)},
		Images: []handoff.PlannedImage{{Name: "api", Tag: "t", System: "x86_64-linux", Family: handoff.Stream,
			State: handoff.StateMissing, Reason: "no cache has <it> & that is all", Build: true, Push: true}},
	}
}

func TestWriteThenLoadGivesTheSameDocument(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "plan.json")
	want := plan()
	compact, err := handoff.WriteFile(path, want)
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{path, string(compact), "\n  " + string(compact) + "\n", handoff.Pack(compact) + "\n"} {
		var got handoff.Plan
		if err := handoff.Load(source, &got); err != nil {
			t.Fatalf("Load(%.20q): %v", source, err)
		}
		if diff := cmp.Diff(*want, got); diff != "" {
			t.Errorf("Load(%.20q) differs (-want +got):\n%s", source, diff)
		}
	}
	if strings.Contains(string(compact), "\n") {
		t.Error("the compact form has more than one line")
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("files beside the document: %v, %v", left, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	good, err := handoff.Seal(plan())
	if err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) string {
		s := strings.Replace(string(good), old, new, 1)
		if s == string(good) {
			t.Fatalf("%q is not in the document", old)
		}
		return s
	}
	build, err := handoff.Seal(&handoff.BuildResult{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text string
		want       error
		says       string
	}{
		{"an edited verdict", edit(`"build":true`, `"build":false`), handoff.ErrChanged, "its content has"},
		{"an edited commit", edit("a1a1", "a1a2"), handoff.ErrChanged, "its content has"},
		{"an added field", edit(`"build":true`, `"build":true,"extra":1`), handoff.ErrChanged, "extra"},
		{"a second document behind it", string(good) + "{}", handoff.ErrUnreadable, ""},
		{"another version", edit(`"version":1`, `"version":2`), handoff.ErrVersion, "version 2, this build reads 1"},
		{"another kind", string(build), handoff.ErrUnreadable, "nix-build-images"},
		{"some other JSON", `{"hello":1}`, handoff.ErrUnreadable, `"kind" is missing`},
		{"half a document", string(good[:len(good)/2]), handoff.ErrUnreadable, ""},
		{"half of a packed document", handoff.Pack(good)[:len(handoff.Pack(good))/8*4], handoff.ErrUnreadable, "given packed"},
		{"a packed document that was edited", handoff.Pack([]byte(edit(`"build":true`, `"build":false`))), handoff.ErrChanged, "its content has"},
		{"a small text that unpacks to a huge one", handoff.Pack(make([]byte, 129<<20)), handoff.ErrUnreadable, "more than 128 MiB"},
		{"a path that is not there", "/nowhere/plan.json", handoff.ErrUnreadable, "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got handoff.Plan
			err := handoff.Load(c.text, &got)
			var de *handoff.DocumentError
			if !errors.Is(err, c.want) || !errors.As(err, &de) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Load = %v, want %v saying %q", err, c.want, c.says)
			}
		})
	}
}

func TestWriteFileKeepsTheOldDocumentWhenItFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "plan.json")
	if err := os.Mkdir(path, 0o755); err != nil { // rename onto a folder fails
		t.Fatal(err)
	}
	if _, err := handoff.WriteFile(path, plan()); err == nil {
		t.Fatal("writing onto a folder succeeded")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSameSource(t *testing.T) {
	a := &handoff.BuildResult{Header: handoff.Header{Commit: "a", Digest: "sha256:1"}}
	b := &handoff.BuildResult{Header: handoff.Header{Commit: "b", Digest: "sha256:2"}}
	if err := handoff.SameSource([]*handoff.BuildResult{a, a}); err != nil {
		t.Errorf("same commit: %v", err)
	}
	if err := handoff.SameSource([]*handoff.PushResult(nil)); err != nil {
		t.Errorf("none: %v", err)
	}
	if err := handoff.SameSource([]*handoff.BuildResult{a, b}); !errors.Is(err, handoff.ErrMismatch) {
		t.Errorf("two commits: %v", err)
	}
}

// FuzzLoad checks that no text panics and that whatever is accepted is sealed: sealing it again gives the same text.
func FuzzLoad(f *testing.F) {
	good, _ := handoff.Seal(plan())
	f.Add(string(good))
	f.Add(handoff.Pack(good))
	f.Add(`{"kind":"plan","version":1}`)
	f.Fuzz(func(t *testing.T, text string) {
		var p handoff.Plan
		if handoff.Load(text, &p) != nil {
			return
		}
		digest := p.Digest
		if _, err := handoff.Seal(&p); err != nil || p.Digest != digest {
			t.Errorf("accepted %q, whose seal is %s, not %s (%v)", text, p.Digest, digest, err)
		}
	})
}

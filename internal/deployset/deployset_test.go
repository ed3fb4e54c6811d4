package deployset

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flakeship/flakeship/internal/manifest"
)

// The id is the one kubectl 1.37 gave the same parent.
func TestID(t *testing.T) {
	if got, want := ID("set", "asns", "ConfigMap", ""), "applyset-f5tMTRa45_OW95gShUv5eS9MltE790hKCNBDvdcrRGk-v1"; got != want {
		t.Errorf("ID = %s, want %s", got, want)
	}
}

func TestName(t *testing.T) {
	for repository, want := range map[string]string{
		"team/shop": "shop", "Team/My_Shop.git": "my-shop-git", "a/-x-": "x", "": "", "shop": "", "a/é": "", "a/" + strings.Repeat("ab-", 30): strings.Repeat("ab-", 13) + "a",
	} {
		got := Name(repository)
		if got != want {
			t.Errorf("Name(%q) = %q, want %q", repository, got, want)
		}
		if err := CheckName(got); err != nil && got != "" {
			t.Errorf("Name(%q): %v", repository, err)
		}
	}
	for _, name := range []string{"", "A", "a_b", "a.b", "-a", "a-", strings.Repeat("a", 41)} {
		if CheckName(name) == nil {
			t.Errorf("%q is a name", name)
		}
	}
}

func configMap(namespace, name, value string) manifest.Object {
	return manifest.Object{Unstructured: &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": name, "namespace": namespace}, "data": map[string]any{"a": value}, "n": int64(1)}}}
}

// What is kept is what comes back, integers as integers, and a changed or cut text is refused.
func TestPack(t *testing.T) {
	objects := []manifest.Object{configMap("x", "a", "é\n<>"), configMap("x", "b", "")}
	packed, digest, err := pack(objects)
	if err != nil {
		t.Fatal(err)
	}
	again, digestAgain, _ := pack(objects)
	if string(again) != string(packed) || digest != digestAgain {
		t.Error("packing again gives something else")
	}
	got, err := unpack(packed, "version 1", digest)
	if err != nil {
		t.Fatal(err)
	}
	for i := range objects {
		if diff := cmp.Diff(objects[i].Object, got[i].Object); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if got[1].Source.String() != "version 1:2" {
		t.Errorf("source %s", got[1].Source)
	}
	for name, text := range map[string][]byte{"cut": packed[:len(packed)/2], "empty": nil, "of something else": mustPack(t, objects[:1])} {
		if _, err := unpack(text, "", digest); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func mustPack(t *testing.T, objects []manifest.Object) []byte {
	t.Helper()
	packed, _, err := pack(objects)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func TestScope(t *testing.T) {
	sc := scopeOf([]manifest.Object{configMap("y", "a", ""), configMap("own", "a", ""), configMap("x", "a", ""), configMap("y", "b", ""), configMap("", "c", "")}, "own")
	want := scope{[]schema.GroupKind{{Kind: "ConfigMap"}}, []string{"x", "y"}}
	if !sc.equal(want) {
		t.Errorf("%v, want %v", sc, want)
	}
	other := scope{[]schema.GroupKind{{Group: "apps", Kind: "Deployment"}}, []string{"z"}}
	union := want.union(other)
	if got := fmt.Sprintf("%s %s", union.kinds, union.namespaces); got != "[ConfigMap Deployment.apps] [x y z]" || !union.union(want).equal(union) || !other.union(want).equal(union) {
		t.Errorf("union %s", got)
	}
}

func TestCheckOrder(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	run := func(commit, workflow string, number int64) *Record {
		return &Record{Commit: commit, Workflow: workflow, RunNumber: number}
	}
	made := func(commit string, n int) *Record { return &Record{Commit: commit, CommitTime: day(n)} }
	for name, tt := range map[string]struct {
		state state
		next  *Record
		stale bool
	}{
		"the first":                      {state{}, run("b", "ci", 1), false},
		"a later run":                    {state{Deployed: run("a", "ci", 1)}, run("b", "ci", 2), false},
		"an earlier run":                 {state{Deployed: run("b", "ci", 2)}, run("a", "ci", 1), true},
		"the same commit again":          {state{Deployed: run("b", "ci", 2)}, run("b", "ci", 1), false},
		"another workflow":               {state{Deployed: run("b", "ci", 2)}, run("a", "hotfix", 1), false},
		"a newer one has begun":          {state{Deployed: run("a", "ci", 1), Deploying: run("c", "ci", 3)}, run("b", "ci", 2), true},
		"a newer commit":                 {state{Deployed: made("a", 1)}, made("b", 2), false},
		"an older commit":                {state{Deployed: made("b", 2)}, made("a", 1), true},
		"nothing is known of one of two": {state{Deployed: made("b", 2)}, run("a", "ci", 1), false},
	} {
		s := &Set{state: tt.state}
		if err := s.CheckOrder(*tt.next); (err != nil) != tt.stale {
			t.Errorf("%s: %v, want refusal %v", name, err, tt.stale)
		}
	}
}

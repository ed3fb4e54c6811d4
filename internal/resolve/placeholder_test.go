package resolve

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/handoff"
)

// A placeholder is filled in any text but that of a definition, and only where it stands for itself.
func TestPlaceholders(t *testing.T) {
	text := `
apiVersion: v1
kind: ConfigMap
metadata:
  name: cm
  annotations: {note: flakeship:api}
data:
  plain: flakeship:api
  several: |
    a: flakeship:api
    b: "flakeship:tools/migrate", c=flakeship:api
  sentence: This runs flakeship:api.
  more: registry.example.org/flakeship:api and x-flakeship:api and flakeship:redis
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {containers: [{image: 'flakeship:api', args: [run, --image=flakeship:tools/migrate]}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: d}
spec: {description: flakeship:api}
`
	objects := decode(t, text)
	tab := table(t, push("reg:5000/team", "api", "tools/migrate"), "redis=mirror.test/redis:7@"+digest("9"))
	result := tab.Objects(objects, Options{RequireDigests: true})
	if len(result.Problems)+len(result.Warnings) > 0 {
		t.Fatal(result.Problems, result.Warnings)
	}
	api, migrate := "reg:5000/team/api:"+hash+"@"+digest("1"), "reg:5000/team/tools/migrate:"+hash+"@"+digest("2")
	pin := func(from, to string, n int) handoff.PinnedImage {
		return handoff.PinnedImage{From: from, To: to, Count: n}
	}
	want := []handoff.PinnedImage{pin("flakeship:api", api, 6), pin("flakeship:redis", "mirror.test/redis:7@"+digest("9"), 1), pin("flakeship:tools/migrate", migrate, 2)}
	if diff := cmp.Diff(want, result.Pinned); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantText := strings.NewReplacer("description: flakeship:api", "description: flakeship:api", "org/flakeship:api", "org/flakeship:api", "x-flakeship:api", "x-flakeship:api",
		"flakeship:api", api, "flakeship:tools/migrate", migrate, "flakeship:redis", "mirror.test/redis:7@"+digest("9")).Replace(text)
	for i, o := range decode(t, wantText) {
		if diff := cmp.Diff(o.Object, objects[i].Object); diff != "" {
			t.Errorf("%s (-want +got):\n%s", o.ID(), diff)
		}
	}
	if again := tab.Objects(objects, Options{RequireDigests: true}); len(again.Problems) > 0 {
		t.Errorf("the second time: %v", again.Problems)
	}

	for from, want := range map[string]string{
		"flakeship:zzz":     `f:3: ConfigMap/a: placeholder flakeship:zzz stands for no image of the push result or of images; there are api, worker`,
		"x flakeship:wrker": `f:3: ConfigMap/a: placeholder flakeship:wrker stands for no image of the push result or of images; near: worker`,
	} {
		objects := decode(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: {a: '"+from+"'}}\n")
		result := table(t, push("reg:5000/team", "api", "worker")).Objects(objects, strict)
		if len(result.Problems) != 1 || result.Problems[0].String() != want {
			t.Errorf("%s: %v, want %s", from, result.Problems, want)
		}
		if result := table(t, push("reg:5000/team", "api", "worker")).Objects(objects, Options{Unused: strict.Unused}); len(result.Problems) > 0 || len(result.Warnings) != 1 {
			t.Errorf("%s, without require-digests: %v, %v", from, result.Problems, result.Warnings)
		}
	}
}

package resolve

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/manifest"
)

const hash = "0123456789abcdfghijklmnpqrsvwxyz"

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func push(registry string, names ...string) *handoff.PushResult {
	result := &handoff.PushResult{Registry: registry, Complete: true}
	for i, name := range names {
		result.Images = append(result.Images, handoff.PushedImage{
			Name: name, Repository: registry + "/" + name, Tag: hash, Digest: digest(fmt.Sprint(i + 1))})
	}
	return result
}

func table(t *testing.T, push *handoff.PushResult, overrides ...string) *Table {
	t.Helper()
	tab, err := New(push, overrides)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func decode(t *testing.T, text string) []manifest.Object {
	t.Helper()
	objects, problems := manifest.Decode("f", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return objects
}

const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - image: '%s'\n"

// strict is what most tests ask for: no object has to name an image.
var strict = Options{RequireDigests: true, Unused: []string{"*", "*/*"}}

func image(t *testing.T, objects []manifest.Object) string {
	t.Helper()
	all := images(objects[0], nil)
	if len(all) != 1 {
		t.Fatalf("%d fields", len(all))
	}
	return all[0].text
}

func TestProblemsAndWarnings(t *testing.T) {
	text := strings.Join([]string{
		fmt.Sprintf(pod, "reg:5000/team/wroker:v1"),
		fmt.Sprintf(pod, "reg:5000/team/unheard-of"),
		fmt.Sprintf(pod, "mirror.example.org/x/api:v2"),
		fmt.Sprintf(pod, "${IMAGE}"),
	}, "---\n")
	objects := decode(t, text)
	result := table(t, push("reg:5000/team", "api", "worker", "web")).Objects(objects, Options{RequireDigests: true, Unused: []string{"w?b"}})
	want := []string{
		`f:6: Pod/p: image "reg:5000/team/wroker:v1" is of the push result's registry, but the push result has no wroker; near: worker`,
		`f:13: Pod/p: image "reg:5000/team/unheard-of" is of the push result's registry, but the push result has no unheard-of; it has api, web, worker`,
		`f:27: Pod/p: image "${IMAGE}" is no image reference: invalid reference format: repository name (library/${IMAGE}) must be lowercase`,
		"input push-result: image api is named by no object; near: mirror.example.org/x/api:v2 (f:20)",
		"input push-result: image worker is named by no object; near: reg:5000/team/wroker:v1 (f:6)",
	}
	var got []string
	for _, p := range result.Problems {
		got = append(got, p.String())
	}
	if diff := cmp.Diff(want, got); diff != "" || len(result.Warnings) > 0 {
		t.Errorf("problems (-want +got):\n%s%v", diff, result.Warnings)
	}

	result = table(t, push("reg:5000/team", "api")).Objects(decode(t, fmt.Sprintf(pod, "reg:5000/team/web")), Options{})
	if len(result.Problems) != 0 || len(result.Warnings) != 2 {
		t.Errorf("without require-digests: problems %v, warnings %v", result.Problems, result.Warnings)
	}
}

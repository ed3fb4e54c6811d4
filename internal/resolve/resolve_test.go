package resolve

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/distribution/reference"
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

// How each way to write an image is understood. The push result holds api, worker and tools/migrate.
func TestReferences(t *testing.T) {
	api := "reg:5000/team/api:" + hash + "@" + digest("1")
	tools := "reg:5000/team/tools/migrate:" + hash + "@" + digest("3")
	const asIs, refused = "as it is", "refused"
	tests := []struct{ from, want string }{
		// by repository
		{"reg:5000/team/api", api},
		{"reg:5000/team/api:v1", api},
		{"REG:5000/team/api:v1", api},
		{"reg:5000/team/api:v1@" + digest("9"), api},
		{"reg:5000/team/api@" + digest("9"), api},
		{"reg:5000/team/tools/migrate", tools},
		{api, api},
		// by bare name
		{"api", api},
		{"api:latest", api},
		{"api:v1@" + digest("9"), api},
		{"tools/migrate:v1", tools},
		// somebody else's
		{"docker.io/library/api", asIs},
		{"docker.io/api", asIs},
		{"localhost/api", asIs},
		{"other:5000/team/api:v1", asIs},
		{"reg:5001/team/api", asIs},
		{"reg/team/api", asIs}, // Docker Hub, user reg
		{"team/api", asIs},
		{"migrate", asIs},
		{"apis", asIs},
		{"redis:7", asIs},
		{"reg:5000", asIs}, // Docker Hub's library/reg with tag 5000
		// of our registry, but not in the push result
		{"reg:5000/team/web:v1", refused},
		{"reg:5000/team/api/sub", refused},
		{"reg:5000/team/web:v1@" + digest("9"), asIs}, // pinned already
		{"reg:5000/team-b/api", asIs},                 // another prefix
		// no reference
		{"${IMAGE}", refused},
		{"ko://x", refused},
		{"api:", refused},
		{"reg:5000/Team/api", refused},
		{"api@sha256:abc", refused},
		{" api", refused},
	}
	for _, tt := range tests {
		objects := decode(t, fmt.Sprintf(pod, tt.from))
		result := table(t, push("reg:5000/team", "api", "worker", "tools/migrate")).Objects(objects, strict)
		got := image(t, objects)
		switch {
		case len(result.Problems) > 0:
			if got != tt.from {
				t.Errorf("%q was refused, yet written as %q", tt.from, got)
			}
			got = refused
		case got == tt.from && len(result.Pinned) == 0:
			got = asIs
		}
		if got != tt.want {
			t.Errorf("%q becomes %q, want %q (%v)", tt.from, got, tt.want, result.Problems)
		}
	}
}

func TestRegistries(t *testing.T) {
	for _, tt := range []struct {
		registry, from string
		match          bool
	}{
		{"registry.example.org:443/team", "registry.example.org/team/api", true},
		{"registry.example.org/team", "Registry.Example.org:443/team/api:v1", true},
		{"registry.example.org", "registry.example.org/api", true},
		{"docker.io/team", "team/api", true},
		{"team", "docker.io/team/api", true},
		{"docker.io/team", "index.docker.io/team/api", true},
		{"docker.io", "docker.io/library/api", true},
		{"localhost:5000", "localhost:5000/api", true},
		{"[::1]:5000/team", "[::1]:5000/team/api", true},
		{"reg:443/team", "reg/team/api", false},
	} {
		objects := decode(t, fmt.Sprintf(pod, tt.from))
		result := table(t, push(tt.registry, "api")).Objects(objects, strict)
		if got := len(result.Pinned) == 1; got != tt.match {
			t.Errorf("registry %s, image %s: pinned %v, want %v", tt.registry, tt.from, got, tt.match)
		}
	}
	// Docker Hub's library belongs to everybody.
	if result := table(t, push("docker.io", "api")).Objects(decode(t, fmt.Sprintf(pod, "redis")), strict); len(result.Problems) > 0 {
		t.Errorf("redis: %v", result.Problems)
	}
}

// Every place that holds an image is found, and none that does not.
func TestPlaces(t *testing.T) {
	text := `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: d
  annotations: {image: api}
spec:
  template:
    spec:
      containers: [{name: c, image: api:YES, env: [{name: IMAGE, value: api}], args: [api]}]
      initContainers: [{name: i, image: api:YES}, {name: j}]
      ephemeralContainers: [{name: e, image: api:YES}]
      volumes: [{name: v, image: {reference: api:YES, pullPolicy: Always}}, {name: w, configMap: {name: api}}]
status: {containers: [{image: api}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: c}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: api:YES}]}}}}}
---
apiVersion: example.org/v1
kind: Fleet
metadata: {name: f}
spec:
  image: api
  groups:
  - podTemplate: {spec: {containers: [{image: api:YES}]}}
  - template: {initContainers: [{image: '{{ .Values.image }}'}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fleets.example.org}
spec: {versions: [{schema: {openAPIV3Schema: {default: {containers: [{image: api}]}}}}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cm}
data: {image: api, containers: 'image: api'}
`
	objects := decode(t, text)
	result := table(t, push("reg:5000/team", "api")).Objects(objects, strict)
	to := "reg:5000/team/api:" + hash + "@" + digest("1")
	if diff := cmp.Diff(handoffPins("api:YES", to, 6), result.Pinned); diff != "" || len(result.Problems)+len(result.Warnings) > 0 {
		t.Errorf("pinned (-want +got):\n%s%v%v", diff, result.Problems, result.Warnings)
	}
	want := decode(t, strings.ReplaceAll(text, "api:YES", to))
	for i := range want {
		if diff := cmp.Diff(want[i].Object, objects[i].Object); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want[i].ID(), diff)
		}
	}
}

func handoffPins(from, to string, n int) []handoff.PinnedImage {
	return []handoff.PinnedImage{{From: from, To: to, Count: n}}
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

func TestOverrides(t *testing.T) {
	pinned := "reg:5000/team/api:old@" + digest("7")
	for _, tt := range []struct{ override, from, want string }{
		{"api=" + pinned, "api:v1", pinned},
		{"api=" + pinned, "reg:5000/team/api:v1", pinned},
		{"reg:5000/team/api=" + pinned, "api:v1", pinned},
		{"redis=mirror.example.org/redis:7@" + digest("8"), "docker.io/library/redis:6", "mirror.example.org/redis:7@" + digest("8")},
		{"docker.io/library/redis = redis:7", "redis:6", "docker.io/library/redis:7"},
	} {
		objects := decode(t, fmt.Sprintf(pod, tt.from))
		result := table(t, push("reg:5000/team", "api"), tt.override).Objects(objects, strict)
		if got := image(t, objects); got != tt.want || len(result.Problems) > 0 {
			t.Errorf("%s: %s becomes %s, want %s (%v)", tt.override, tt.from, got, tt.want, result.Problems)
		}
	}
	// Without a push result, a bare NAME is Docker Hub's, and so is a bare name in an object.
	objects := decode(t, fmt.Sprintf(pod, "api:v1"))
	table(t, nil, "api="+pinned).Objects(objects, strict)
	if got := image(t, objects); got != pinned {
		t.Errorf("without a push result: %s", got)
	}
	result := table(t, push("reg:5000/team", "api"), "api=reg:5000/team/api:v1").Objects(decode(t, fmt.Sprintf(pod, "api")), strict)
	if len(result.Problems) != 1 || !strings.Contains(result.Problems[0].Text, "has no digest") {
		t.Errorf("override without a digest: %v", result.Problems)
	}
}

func TestOverridesRefused(t *testing.T) {
	for _, tt := range []struct {
		overrides []string
		want      string
	}{
		{[]string{"api"}, `"api" is not NAME=reference`},
		{[]string{"=x"}, `"=x" is not NAME=reference`},
		{[]string{"api=UPPER"}, `"api=UPPER": "UPPER" is no image reference: invalid reference format: repository name (library/UPPER) must be lowercase`},
		{[]string{"Über=x"}, `"Über=x": "Über" is neither an image of the push result nor a repository: invalid reference format: repository name (library/Über) must be lowercase`},
		{[]string{"redis:6=redis:7"}, `"redis:6=redis:7": "redis:6" has a tag or digest; an override is for the repository "docker.io/library/redis"`},
		{[]string{"api=x:1", "reg:5000/team/api=x:2"}, `"reg:5000/team/api=x:2": reg:5000/team/api is overridden twice, also by docker.io/library/x:1`},
		{[]string{"redis=reg:5000/team/api:v1"}, "redis becomes reg:5000/team/api:v1, but that repository is itself to become reg:5000/team/api:" + hash + "@" + digest("1")},
	} {
		_, err := New(push("reg:5000/team", "api"), tt.overrides)
		if err == nil || err.Error() != tt.want {
			t.Errorf("New(%q) = %v, want %s", tt.overrides, err, tt.want)
		}
	}
	bad := push("reg:5000/team", "api")
	bad.Images[0].Digest = ""
	if _, err := New(bad, nil); err == nil {
		t.Error("a push result without a digest was taken")
	}
}

// Whatever the images are: a second time changes nothing, the order of objects does not matter, no other field changes,
// and each replaced field was named by one of the documented rules.
func TestProperties(t *testing.T) {
	hosts := []string{"", "", "reg:5000/team/", "REG:5000/team/", "reg:5000/", "docker.io/library/", "localhost/", "a.b:443/", "a.b/"}
	names := []string{"api", "web", "redis", "team/api", "library/api", "tools/migrate", "apl"}
	tails := []string{"", ":v1", ":" + hash, "@" + digest("5"), ":v1@" + digest("5")}
	pick := func(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		registry := pick(r, []string{"reg:5000/team", "a.b:443", "team", "docker.io", "docker.io/team", "localhost"})
		var overrides []string
		if r.IntN(2) == 0 {
			overrides = append(overrides, pick(r, hosts)+pick(r, names)+"="+pick(r, hosts)+pick(r, names)+pick(r, tails))
		}
		tab, err := New(push(registry, "api", "web", "team/api", "tools/migrate"), overrides)
		if err != nil {
			continue
		}
		var docs []string
		for i := range 1 + r.IntN(5) {
			docs = append(docs, fmt.Sprintf("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d%d}\nspec: {template: {spec: {containers: [{image: '%s', x: api}], initContainers: [{image: '%s'}]}}}\n",
				i, pick(r, hosts)+pick(r, names)+pick(r, tails), pick(r, hosts)+pick(r, names)+pick(r, tails)))
		}
		before, once := decode(t, strings.Join(docs, "---\n")), decode(t, strings.Join(docs, "---\n"))
		first := tab.Objects(once, strict)
		for i := range once {
			was := images(before[i], nil)
			for j, f := range images(once[i], nil) {
				if f.text == was[j].text {
					continue
				}
				repo, _, err := parse(was[j].text)
				if err != nil || tab.byRepo[repo] == nil && tab.byName[bare(was[j].text)] == nil {
					t.Errorf("seed %d: %s became %s without a rule for it", seed, was[j].text, f.text)
				}
				if _, err := reference.ParseNormalizedNamed(f.text); err != nil {
					t.Errorf("seed %d: %s became %s: %v", seed, was[j].text, f.text, err)
				}
				was[j].set(f.text)
			}
			if diff := cmp.Diff(before[i].Object, once[i].Object); diff != "" {
				t.Errorf("seed %d: other fields changed:\n%s", seed, diff)
			}
		}
		second := tab.Objects(once, strict)
		for i := range once {
			if diff := cmp.Diff(before[i].Object, once[i].Object); diff != "" {
				t.Errorf("seed %d, registry %s, overrides %v: the second time changed\n%s", seed, registry, overrides, diff)
			}
		}
		if len(first.Problems) != len(second.Problems) {
			t.Errorf("seed %d: problems %v, then %v", seed, first.Problems, second.Problems)
		}
		r.Shuffle(len(docs), func(i, j int) { docs[i], docs[j] = docs[j], docs[i] })
		shuffled := decode(t, strings.Join(docs, "---\n"))
		third := tab.Objects(shuffled, strict)
		if diff := cmp.Diff(first.Pinned, third.Pinned); diff != "" {
			t.Errorf("seed %d: in another order (-want +got):\n%s", seed, diff)
		}
		for _, o := range shuffled {
			for i := range before {
				if o.GetName() == before[i].GetName() {
					if diff := cmp.Diff(before[i].Object, o.Object); diff != "" {
						t.Errorf("seed %d: in another order:\n%s", seed, diff)
					}
				}
			}
		}
	}
}

// A field that the reference parser refuses is never replaced, and one that is replaced stays replaced.
func FuzzImage(f *testing.F) {
	for _, seed := range []string{"api", "api:v1", "reg:5000/team/api@" + digest("1"), "REG:5000/team/api", "docker.io/api", "a/b:c/d", "[::1]/x", ":443/api", "api:443/api"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		objects := decode(t, fmt.Sprintf(pod, "x"))
		all := images(objects[0], nil)
		all[0].set(text)
		if text == "" {
			return
		}
		tab, err := New(push("reg:5000/team", "api"), nil)
		if err != nil {
			t.Fatal(err)
		}
		result := tab.Objects(objects, strict)
		got := image(t, objects)
		_, invalid := reference.ParseNormalizedNamed(text)
		if host, rest, ok := strings.Cut(text, "/"); ok && invalid != nil {
			_, invalid = reference.ParseNormalizedNamed(strings.ToLower(host) + "/" + rest)
		}
		if invalid != nil && (got != text || len(result.Problems) != 1) {
			t.Errorf("%q is invalid, became %q, problems %v", text, got, result.Problems)
		}
		if tab.Objects(objects, strict); image(t, objects) != got {
			t.Errorf("%q became %q, then %q", text, got, image(t, objects))
		}
	})
}

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

// Fields of custom resources count as images when they are declared.
func TestDeclaredPaths(t *testing.T) {
	text := `
apiVersion: example.org/v1
kind: Fleet
metadata: {name: f}
spec:
  image: api:YES
  pools: [{image: api:YES}, {image: api:YES, runners: [[{at: api:YES}]]}, {other: api}]
  containers: [{image: api:YES}]
---
apiVersion: example.org/v1
kind: Ship
metadata: {name: s}
spec: {image: api}
`
	tab := table(t, push("reg:5000/team", "api"))
	if err := tab.Declare([]string{"Fleet.example.org=spec.image", "Fleet.example.org = .spec.pools[].image", "Fleet.example.org=spec.pools[].runners[][].at", "Fleet.example.org=spec.containers[].image"}); err != nil {
		t.Fatal(err)
	}
	objects := decode(t, text)
	result := tab.Objects(objects, strict)
	to := "reg:5000/team/api:" + hash + "@" + digest("1")
	if diff := cmp.Diff(handoffPins("api:YES", to, 5), result.Pinned); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i, o := range decode(t, strings.ReplaceAll(text, "api:YES", to)) {
		if diff := cmp.Diff(o.Object, objects[i].Object); diff != "" {
			t.Errorf("%s (-want +got):\n%s", o.ID(), diff)
		}
	}
	for _, bad := range []string{"Fleet", "=a", "Fleet=", "Fleet=a..b", "Fleet=a[0]", "Fleet=a[]", "Fleet=*"} {
		if err := tab.Declare([]string{bad}); err == nil {
			t.Errorf("Declare(%q) was taken", bad)
		}
	}
}

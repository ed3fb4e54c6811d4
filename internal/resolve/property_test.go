package resolve

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
)

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

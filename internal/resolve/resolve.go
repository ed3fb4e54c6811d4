// Package resolve writes digests into Kubernetes objects: each image that a push result or an override provides becomes
// repository:tag@digest, so that what was pushed is what runs.
//
// An object names a provided image in one of two ways:
//   - by its repository, in any spelling that means the same: registry.example.org/team/api, with any tag or digest;
//     nginx is docker.io/library/nginx, a host's case and port 443 do not matter;
//   - by its bare name: api, with any tag or digest, when that is exactly the name of an image of the push result. A bare
//     name has no registry host. Whoever means Docker Hub's image of the same name writes docker.io/library/api.
//
// The first way wins. Any other image is left as it is. Images are looked for wherever something has the shape of a pod:
// containers, initContainers and ephemeralContainers with their image, volumes with their image.reference, at any depth of
// any kind, custom ones too; at the paths that are declared for a kind; never in a CustomResourceDefinition, whose schema only
// describes such fields.
//
// Everywhere else, in a ConfigMap's text or an argument, an image is meant only by the placeholder flakeship:NAME.
package resolve

import (
	_ "crypto/sha512" // digests of that kind are known to the parser then
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/manifest"
)

// Table knows what each image is replaced by.
type Table struct {
	targets  []*target
	byRepo   map[string]*target // key: normalised repository
	byName   map[string]*target // key: image name of the push result
	registry string             // normalised prefix of the push result, with a final slash; empty: none
	paths    map[schema.GroupKind][]fieldPath
}

// target is one image that is provided.
type target struct {
	name string // image name of the push result, or the repository an override names
	repo string // normalised
	to   string // what is written

	unsent bool // it has no digest, because nothing was pushed
}

// Reference is what an image of a push result becomes: repository:tag@digest, without the digest while it is not pushed.
func Reference(image handoff.PushedImage) string {
	if image.State == handoff.PushSkipped {
		return image.Repository + ":" + image.Tag
	}
	return image.Reference()
}

// New makes a Table of a push result, which may be nil, and overrides of the form NAME=reference: NAME is an image name of
// the push result, else a repository.
//
// Errors: all that is wrong with the overrides, joined.
func New(push *handoff.PushResult, overrides []string) (*Table, error) {
	t := &Table{byRepo: map[string]*target{}, byName: map[string]*target{}, paths: map[schema.GroupKind][]fieldPath{}}
	if push != nil {
		t.registry = prefix(push.Registry)
		for _, image := range push.Images {
			repo, _, err := parse(image.Repository)
			if err != nil {
				return nil, fmt.Errorf("image %s of the push result: repository %q: %w", image.Name, image.Repository, err)
			}
			if _, _, err := parse(Reference(image)); err != nil || image.Digest == "" && image.State != handoff.PushSkipped {
				return nil, fmt.Errorf("image %s of the push result has no usable digest: %q", image.Name, image.Digest)
			}
			one := &target{name: image.Name, repo: repo, to: Reference(image), unsent: image.State == handoff.PushSkipped}
			t.targets = append(t.targets, one)
			t.byRepo[repo], t.byName[image.Name] = one, one
		}
	}
	var problems []error
	overridden := map[*target]bool{}
	for _, override := range overrides {
		if err := t.override(override, overridden); err != nil {
			problems = append(problems, err)
		}
	}
	return t, errors.Join(append(problems, t.chains()...)...)
}

// Declare makes the fields at the given paths of custom resources count as images, see parsePath for their form.
//
// Errors: all that is wrong with the declarations, joined.
func (t *Table) Declare(declarations []string) error {
	var problems []error
	for _, text := range declarations {
		kind, p, err := parsePath(text)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		t.paths[kind] = append(t.paths[kind], p)
	}
	return errors.Join(problems...)
}

func (t *Table) override(text string, overridden map[*target]bool) error {
	name, to, ok := strings.Cut(text, "=")
	name, to = strings.TrimSpace(name), strings.TrimSpace(to)
	if !ok || name == "" || to == "" {
		return fmt.Errorf("%q is not NAME=reference", text)
	}
	_, ref, err := parse(to)
	if err != nil {
		return fmt.Errorf("%q: %q is no image reference: %w", text, to, err)
	}
	one := t.byName[name]
	if one == nil {
		repo, named, err := parse(name)
		if err != nil {
			return fmt.Errorf("%q: %q is neither an image of the push result nor a repository: %w", text, name, err)
		}
		if !reference.IsNameOnly(named) {
			return fmt.Errorf("%q: %q has a tag or digest; an override is for the repository %q", text, name, named.Name())
		}
		if one = t.byRepo[repo]; one == nil {
			one = &target{name: name, repo: repo}
			t.targets = append(t.targets, one)
			t.byRepo[repo] = one
		}
	}
	if overridden[one] && one.to != ref.String() {
		return fmt.Errorf("%q: %s is overridden twice, also by %s", text, name, one.to)
	}
	overridden[one], one.unsent = true, false
	one.to = ref.String() // with its registry host: never taken for a bare name
	return nil
}

// chains reports replacements that would be replaced in turn: then the result would depend on how often it is done.
func (t *Table) chains() (problems []error) {
	for _, one := range t.targets {
		repo, _, err := parse(one.to)
		if err != nil {
			continue
		}
		if next := t.byRepo[repo]; next != nil && next.to != one.to {
			problems = append(problems, fmt.Errorf("%s becomes %s, but that repository is itself to become %s", one.name, one.to, next.to))
		}
	}
	return problems
}

// Options are the settings of Objects.
type Options struct {
	// RequireDigests makes these problems instead of warnings: an image of the push result's registry that ends up without a
	// digest, a placeholder that is left, an image of the push result or an override that no object names.
	RequireDigests bool
	Unused         []string // names of images that no object needs to name; globs as of path.Match
}

// Result is what became of the images of a set of objects.
type Result struct {
	Pinned   []handoff.PinnedImage // sorted
	Edits    []manifest.Edit       // the same, place by place
	Problems []manifest.Problem    // nothing may be applied; in the order of the objects
	Warnings []string
}

// Objects replaces the images in objects, in place. It changes no other field, gives the same result however often and in
// whatever order of objects it is done, and may not be called for one object from two goroutines.
func (t *Table) Objects(objects []manifest.Object, o Options) Result {
	r := run{Table: t, options: o, count: map[handoff.PinnedImage]int{}, matched: map[*target]bool{}}
	for _, object := range objects {
		for _, f := range images(object, t.paths[object.GroupVersionKind().GroupKind()]) {
			if !hasPlaceholder(f.text) {
				r.image(f)
			}
		}
		if !isDefinition(object) {
			texts(object.Object, nil, nil, func(text string, path []any, set func(string)) {
				r.text(field{object, slices.Clone(path), text, set})
			})
		}
	}
	for pin, n := range r.count {
		pin.Count = n
		r.result.Pinned = append(r.result.Pinned, pin)
	}
	slices.SortFunc(r.result.Pinned, func(a, b handoff.PinnedImage) int {
		return strings.Compare(a.From+" "+a.To, b.From+" "+b.To)
	})
	if r.result.Pinned == nil {
		r.result.Pinned = []handoff.PinnedImage{}
	}
	for _, one := range t.targets {
		unused := func(glob string) bool { ok, _ := path.Match(glob, one.name); return ok }
		if !r.matched[one] && !slices.ContainsFunc(o.Unused, unused) && !mentioned(objects, one.to) {
			from := "push-result"
			if t.byName[one.name] != one {
				from = "images"
			}
			r.report(manifest.Problem{At: "input " + from, Text: unmatched(one, r.others)})
		}
	}
	return r.result
}

// run is one call of Objects.
type run struct {
	*Table
	options Options
	result  Result
	count   map[handoff.PinnedImage]int
	matched map[*target]bool
	others  []found // images nothing is known for
}

// image pins one image.
func (r *run) image(f field) {
	repo, named, err := parse(f.text)
	one := r.lookup(repo, f.text)
	switch {
	case err != nil && (one != nil || holdsPods(f.object)):
		r.result.Problems = append(r.result.Problems, f.problem("is no image reference: %v", err))
	case err != nil: // a custom resource may hold a template here
	case one == nil:
		r.others = append(r.others, found{f, named})
		if r.ours(repo) && !digested(named) {
			r.unprovided(f, repo)
		}
	default:
		f.set(one.to)
		r.pin(f, f.text, one)
	}
}

// text fills the placeholders in one text.
func (r *run) text(f field) {
	if !hasPlaceholder(f.text) {
		return
	}
	filled := r.fill(f.text, func(token string, one *target) { r.pin(f, token, one) }, func(name string) { r.report(r.leftover(f, name)) })
	if filled != f.text {
		f.set(filled)
	}
}

// mentioned says whether a text of the objects holds a reference: then it was put there by an earlier run.
func mentioned(objects []manifest.Object, reference string) (found bool) {
	for _, o := range objects {
		texts(o.Object, nil, nil, func(text string, _ []any, _ func(string)) { found = found || strings.Contains(text, reference) })
	}
	return found
}

// pin notes that from, in f, became the image one.
func (r *run) pin(f field, from string, one *target) {
	r.matched[one] = true
	r.count[handoff.PinnedImage{From: from, To: one.to}]++
	r.result.Edits = append(r.result.Edits, manifest.Edit{Source: f.object.Source, Path: f.path, Old: from, New: one.to})
	if repo, to, err := parse(one.to); err == nil && !one.unsent && r.ours(repo) && !digested(to) {
		r.report(f.problem("is overridden by %s, which has no digest", one.to))
	}
}

func (r *run) report(p manifest.Problem) {
	if r.options.RequireDigests {
		r.result.Problems = append(r.result.Problems, p)
	} else {
		r.result.Warnings = append(r.result.Warnings, p.String())
	}
}

// lookup finds what provides the image called text, of the normalised repository repo.
func (t *Table) lookup(repo, text string) *target {
	if one := t.byRepo[repo]; one != nil {
		return one
	}
	if name := bare(text); name != "" {
		return t.byName[name]
	}
	return nil
}

// ours says whether a repository is below the push result's registry prefix.
func (t *Table) ours(repo string) bool {
	return t.registry != "" && strings.HasPrefix(repo, t.registry)
}

// unprovided reports an image of the push result's registry that the push result does not have.
func (r *run) unprovided(f field, repo string) {
	var names []string
	for _, one := range r.targets {
		names = append(names, strings.TrimPrefix(one.repo, r.registry))
	}
	missing := strings.TrimPrefix(repo, r.registry)
	if near := nearest(missing, names); len(near) > 0 {
		r.report(f.problem("is of the push result's registry, but the push result has no %s; near: %s", missing, strings.Join(near, ", ")))
		return
	}
	slices.Sort(names)
	if len(names) > 10 {
		names = append(names[:10], "…")
	}
	r.report(f.problem("is of the push result's registry, but the push result has no %s; it has %s", missing, strings.Join(names, ", ")))
}

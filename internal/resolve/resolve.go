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
// any kind, custom ones too; never in a CustomResourceDefinition, whose schema only describes such fields.
package resolve

import (
	_ "crypto/sha512" // digests of that kind are known to the parser then
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/manifest"
)

// Table knows what each image is replaced by.
type Table struct {
	targets  []*target
	byRepo   map[string]*target // key: normalised repository
	byName   map[string]*target // key: image name of the push result
	registry string             // normalised prefix of the push result, with a final slash; empty: none
}

// target is one image that is provided.
type target struct {
	name string // image name of the push result, or the repository an override names
	repo string // normalised
	to   string // what is written
}

// New makes a Table of a push result, which may be nil, and overrides of the form NAME=reference: NAME is an image name of
// the push result, else a repository.
//
// Errors: all that is wrong with the overrides, joined.
func New(push *handoff.PushResult, overrides []string) (*Table, error) {
	t := &Table{byRepo: map[string]*target{}, byName: map[string]*target{}}
	if push != nil {
		t.registry = prefix(push.Registry)
		for _, image := range push.Images {
			repo, _, err := parse(image.Repository)
			if err != nil {
				return nil, fmt.Errorf("image %s of the push result: repository %q: %w", image.Name, image.Repository, err)
			}
			if _, _, err := parse(image.Reference()); err != nil || image.Digest == "" {
				return nil, fmt.Errorf("image %s of the push result has no usable digest: %q", image.Name, image.Digest)
			}
			one := &target{name: image.Name, repo: repo, to: image.Reference()}
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
	overridden[one] = true
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

// Result is what became of the images of a set of objects.
type Result struct {
	Pinned   []handoff.PinnedImage // sorted
	Problems []manifest.Problem    // nothing may be applied; in the order of the objects
	Warnings []string
}

// Objects replaces the images in objects, in place. It changes no other field, gives the same result however often and in
// whatever order of objects it is done, and may not be called for one object from two goroutines.
//
// With requireDigests, an image of the push result's registry that ends up without a digest is a problem; else a warning.
// An image that no field names is a warning: a push may well hold images that run elsewhere.
func (t *Table) Objects(objects []manifest.Object, requireDigests bool) Result {
	result := Result{Pinned: []handoff.PinnedImage{}}
	count := map[handoff.PinnedImage]int{}
	matched := map[*target]bool{}
	var others []found
	for _, o := range objects {
		for _, f := range fields(o) {
			repo, named, err := parse(f.text)
			one := t.lookup(repo, f.text)
			switch {
			case err != nil && (one != nil || holdsPods(o)):
				result.Problems = append(result.Problems, f.problem("is no image reference: %v", err))
			case err != nil: // a custom resource may hold a template here
			case one == nil:
				others = append(others, found{f, named})
				if t.ours(repo) && !digested(named) {
					t.unprovided(&result, f, repo, requireDigests)
				}
			default:
				matched[one] = true
				count[handoff.PinnedImage{From: f.text, To: one.to}]++
				f.parent[f.key] = one.to
				if toRepo, to, err := parse(one.to); err == nil && t.ours(toRepo) && !digested(to) {
					t.report(&result, f, requireDigests, "is overridden by %s, which has no digest", one.to)
				}
			}
		}
	}
	for pin, n := range count {
		pin.Count = n
		result.Pinned = append(result.Pinned, pin)
	}
	slices.SortFunc(result.Pinned, func(a, b handoff.PinnedImage) int {
		return strings.Compare(a.From+" "+a.To, b.From+" "+b.To)
	})
	for _, one := range t.targets {
		if !matched[one] {
			result.Warnings = append(result.Warnings, unmatched(one, others))
		}
	}
	return result
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

func (t *Table) unprovided(result *Result, f field, repo string, requireDigests bool) {
	var names []string
	for _, one := range t.targets {
		names = append(names, strings.TrimPrefix(one.repo, t.registry))
	}
	missing := strings.TrimPrefix(repo, t.registry)
	if near := nearest(missing, names); len(near) > 0 {
		t.report(result, f, requireDigests, "is of the push result's registry, but the push result has no %s; near: %s", missing, strings.Join(near, ", "))
		return
	}
	slices.Sort(names)
	if len(names) > 10 {
		names = append(names[:10], "…")
	}
	t.report(result, f, requireDigests, "is of the push result's registry, but the push result has no %s; it has %s", missing, strings.Join(names, ", "))
}

func (t *Table) report(result *Result, f field, requireDigests bool, format string, args ...any) {
	p := f.problem(format, args...)
	if requireDigests {
		result.Problems = append(result.Problems, p)
	} else {
		result.Warnings = append(result.Warnings, p.String())
	}
}

// Package changes finds out why a derivation is another than it was: the nearest inputs of it that differ.
//
// Most of what differs between two graphs of derivations follows from something else that does: one source file changes the path of
// everything that is made from it. Here only the beginnings of that are named, each with the way from the image to it.
package changes

import (
	"cmp"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/derivation"
	"github.com/flakeship/flakeship/internal/handoff"
)

// maxCauses is how many causes an image gets, the nearest first. Who changes the compiler changes everything.
const maxCauses = 12

// Explainer compares derivations of one store. It is for one goroutine.
type Explainer struct {
	Graph *derivation.Graph
	// Files are where in the repository something differs, with slashes; what is in a source is named by the one that fits.
	Files []string
	// Physical is where a store path is on disk.
	Physical func(storePath string) string
}

// pair is a derivation as it was and as it is, and the names of those between the image and it.
type pair struct {
	was, is string
	via     []string
}

// Explain returns why the derivation `is` differs from `was`: nil when it does not.
//
// Errors: those of derivation.Graph.Get.
func (x *Explainer) Explain(was, is string) ([]handoff.Cause, error) {
	if was == is {
		return nil, nil
	}
	var causes []handoff.Cause
	seen := map[string]bool{} // what is reached on two ways is told once, on the shorter one
	queue := []pair{{was: was, is: is}}
	queued := map[pairKey]bool{{was, is}: true}
	for len(queue) > 0 && len(causes) < maxCauses {
		p := queue[0]
		queue = queue[1:]
		old, err := x.Graph.Get(p.was)
		if err != nil {
			return causes, err
		}
		now, err := x.Graph.Get(p.is)
		if err != nil {
			return causes, err
		}
		own, inputs := x.compare(old, now)
		for _, c := range own {
			c.Via = p.via
			if key := string(c.Kind) + "\x00" + c.What + "\x00" + c.From + "\x00" + c.To; !seen[key] && len(causes) < maxCauses {
				seen[key] = true
				causes = append(causes, c)
			}
		}
		for _, in := range inputs {
			if key := (pairKey{in.was, in.is}); !queued[key] {
				queued[key] = true
				in.via = append(slices.Clone(p.via), derivation.Name(in.is))
				queue = append(queue, in)
			}
		}
	}
	return causes, nil
}

type pairKey struct{ was, is string }

// compare returns what differs in a derivation itself, and the inputs of one name that differ: there it goes on.
func (x *Explainer) compare(old, now *derivation.Derivation) (own []handoff.Cause, inputs []pair) {
	own = append(own, x.sources(old, now)...)
	versions, inputs := dependencies(old, now)
	own = append(own, versions...)
	return append(own, environment(old, now)...), inputs
}

// dependencies pairs the input derivations that differ: by name, then by name without version.
func dependencies(old, now *derivation.Derivation) (causes []handoff.Cause, inputs []pair) {
	gone, come := difference(old.InputDrvs, now.InputDrvs)
	take := func(key func(path string) string, found func(was, is string)) {
		byKey := map[string][]string{}
		for _, path := range gone {
			byKey[key(path)] = append(byKey[key(path)], path)
		}
		var left []string
		for _, path := range come {
			if old := byKey[key(path)]; len(old) > 0 {
				found(old[0], path)
				byKey[key(path)] = old[1:]
			} else {
				left = append(left, path)
			}
		}
		gone, come = slices.Sorted(concat(maps.Values(byKey))), left
	}
	take(derivation.Name, func(was, is string) { inputs = append(inputs, pair{was: was, is: is}) })
	take(packageName, func(was, is string) {
		_, from := derivation.Version(derivation.Name(was))
		_, to := derivation.Version(derivation.Name(is))
		causes = append(causes, handoff.Cause{Kind: handoff.CauseVersion, What: packageName(is), From: from, To: to})
	})
	for _, path := range come {
		causes = append(causes, handoff.Cause{Kind: handoff.CauseDependency, What: packageName(path), To: derivation.Name(path)})
	}
	for _, path := range gone {
		causes = append(causes, handoff.Cause{Kind: handoff.CauseDependency, What: packageName(path), From: derivation.Name(path)})
	}
	return causes, inputs
}

func packageName(path string) string {
	name, _ := derivation.Version(derivation.Name(path))
	return name
}

// environment names the variables that differ by more than the hashes of inputs.
func environment(old, now *derivation.Derivation) []handoff.Cause {
	was, is := variables(old), variables(now)
	var causes []handoff.Cause
	keys := map[string]bool{}
	for key := range was {
		keys[key] = true
	}
	for key := range is {
		keys[key] = true
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if withoutPaths(was[key]) != withoutPaths(is[key]) {
			from, to := around(was[key], is[key])
			causes = append(causes, handoff.Cause{Kind: handoff.CauseEnvironment, What: key, From: from, To: to})
		}
	}
	return causes
}

// variables are a derivation's environment, with what else makes a build what it is; attributes that are kept as one JSON text
// are taken apart.
func variables(d *derivation.Derivation) map[string]string {
	all := maps.Clone(d.Env)
	for output := range d.Outputs {
		delete(all, output) // its own path
	}
	var structured map[string]json.RawMessage
	if json.Unmarshal([]byte(all["__json"]), &structured) == nil {
		delete(all, "__json")
		for key, value := range structured {
			if text := ""; json.Unmarshal(value, &text) == nil {
				all[key] = text
			} else {
				all[key] = string(value)
			}
		}
		delete(all, "outputs")
	}
	all["builder"], all["system"] = d.Builder, d.System
	all["args"] = strings.Join(d.Args, " ")
	return all
}

// storePaths are paths of inputs, and what stands for those that are not known yet.
var storePaths = regexp.MustCompile(`/[^\s"':;,]*?/[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+._?=-]*|/[0-9a-df-np-sv-z]{52}`)

func withoutPaths(value string) string { return storePaths.ReplaceAllString(value, "/") }

// around cuts two texts down to where they differ, with some of what is before it.
func around(was, is string) (from, to string) {
	const before, length = 20, 80
	same := 0
	for same < len(was) && same < len(is) && was[same] == is[same] {
		same++
	}
	cut := func(text string) string {
		if len(text) <= length {
			return text
		}
		begin := max(0, min(same-before, len(text)-length))
		end := min(len(text), begin+length)
		part := strings.ToValidUTF8(text[begin:end], "")
		if begin > 0 {
			part = "…" + part
		}
		if end < len(text) {
			part += "…"
		}
		return part
	}
	return cut(was), cut(is)
}

// difference returns the keys that only one of the maps has, sorted by name first.
func difference[V any](old, now map[string]V) (gone, come []string) {
	for path := range old {
		if _, ok := now[path]; !ok {
			gone = append(gone, path)
		}
	}
	for path := range now {
		if _, ok := old[path]; !ok {
			come = append(come, path)
		}
	}
	byName := func(a, b string) int {
		return cmp.Or(cmp.Compare(derivation.Name(a), derivation.Name(b)), cmp.Compare(a, b))
	}
	slices.SortFunc(gone, byName)
	slices.SortFunc(come, byName)
	return gone, come
}

func concat(lists func(yield func([]string) bool)) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for list := range lists {
			for _, s := range list {
				if !yield(s) {
					return
				}
			}
		}
	}
}

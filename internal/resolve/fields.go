package resolve

import (
	"fmt"
	"maps"
	"slices"

	"github.com/distribution/reference"

	"github.com/flakeship/flakeship/internal/manifest"
)

// field is one text of an object.
type field struct {
	object manifest.Object
	path   []any // from the object
	text   string
	set    func(string)
}

// found is a field nothing is known for.
type found struct {
	field
	named reference.Named
}

func (f field) source() manifest.Source { return f.object.Source.Field(f.path...) }

func (f field) problem(format string, args ...any) manifest.Problem {
	return manifest.Problem{At: f.source().String(), Text: fmt.Sprintf("%s: image %q "+format, append([]any{f.object.ID(), f.text}, args...)...)}
}

// isDefinition says whether o only describes the fields of other objects.
func isDefinition(o manifest.Object) bool {
	return o.GroupVersionKind().Group == "apiextensions.k8s.io"
}

// images returns the places in o where an image is named, in a fixed order: those that have the shape of a pod, and those at
// the declared paths.
func images(o manifest.Object, declared []fieldPath) []field {
	if isDefinition(o) {
		return nil
	}
	var all []field
	add := func(parent map[string]any, key string, path []any) {
		if text, ok := parent[key].(string); ok && text != "" {
			all = append(all, field{o, append(slices.Clone(path), key), text, func(to string) { parent[key] = to }})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(o.Object)) {
		if key != "metadata" && key != "status" {
			pods(o.Object[key], []any{key}, add)
		}
	}
	for _, p := range declared {
		p.follow(o.Object, nil, func(parent map[string]any, key string, path []any) {
			at := append(slices.Clone(path), key)
			if !slices.ContainsFunc(all, func(f field) bool { return slices.Equal(f.path, at) }) {
				add(parent, key, path)
			}
		})
	}
	return all
}

// pods calls visit for each map that may hold an image, with the key it would have there.
func pods(v any, path []any, visit func(parent map[string]any, key string, path []any)) {
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			pods(item, append(path, i), visit)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			members, _ := v[key].([]any)
			for i, member := range members {
				m, ok := member.(map[string]any)
				if !ok {
					continue
				}
				switch key {
				case "containers", "initContainers", "ephemeralContainers":
					visit(m, "image", append(path, key, i))
				case "volumes":
					if image, ok := m["image"].(map[string]any); ok {
						visit(image, "reference", append(path, key, i, "image"))
					}
				}
			}
			pods(v[key], append(path, key), visit)
		}
	}
}

// texts calls visit for each text in v, in a fixed order.
func texts(v any, path []any, set func(string), visit func(text string, path []any, set func(string))) {
	switch v := v.(type) {
	case string:
		visit(v, path, set)
	case []any:
		for i, item := range v {
			texts(item, append(path, i), func(to string) { v[i] = to }, visit)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			texts(v[key], append(path, key), func(to string) { v[key] = to }, visit)
		}
	}
}

// holdsPods says whether o's kind is one of Kubernetes' own that run pods, so that what is in an image field is an image.
func holdsPods(o manifest.Object) bool {
	return slices.Contains([]string{"", "apps", "batch"}, o.GroupVersionKind().Group)
}

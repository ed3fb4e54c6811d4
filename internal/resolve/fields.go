package resolve

import (
	"fmt"
	"maps"
	"slices"

	"github.com/distribution/reference"

	"github.com/flakeship/flakeship/internal/manifest"
)

// field is one place where an image is named.
type field struct {
	object manifest.Object
	parent map[string]any
	key    string // in parent
	path   []any  // from the object
	text   string // parent[key] as it was found
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

// fields returns the places in o where an image is named, in a fixed order.
func fields(o manifest.Object) []field {
	if o.GroupVersionKind().Group == "apiextensions.k8s.io" {
		return nil
	}
	var all []field
	for _, key := range slices.Sorted(maps.Keys(o.Object)) {
		if key != "metadata" && key != "status" {
			walk(o.Object[key], []any{key}, func(parent map[string]any, key string, path []any) {
				if text, ok := parent[key].(string); ok && text != "" {
					all = append(all, field{o, parent, key, append(slices.Clone(path), key), text})
				}
			})
		}
	}
	return all
}

// walk calls visit for each map that may hold an image, with the key it would have there.
func walk(v any, path []any, visit func(parent map[string]any, key string, path []any)) {
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			walk(item, append(path, i), visit)
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
			walk(v[key], append(path, key), visit)
		}
	}
}

// holdsPods says whether o's kind is one of Kubernetes' own that run pods, so that what is in an image field is an image.
func holdsPods(o manifest.Object) bool {
	return slices.Contains([]string{"", "apps", "batch"}, o.GroupVersionKind().Group)
}

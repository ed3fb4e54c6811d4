package resolve

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// fieldPath leads to a field of a custom resource that holds an image: keys, "[]" for each element of a list.
type fieldPath []string

// parsePath reads a declaration KIND.GROUP=PATH, such as Cluster.postgresql.cnpg.io=spec.imageName or
// Fleet.example.org=spec.pools[].image. A kind of the core API has no group.
func parsePath(text string) (schema.GroupKind, fieldPath, error) {
	kind, fields, ok := strings.Cut(text, "=")
	kind, fields = strings.TrimSpace(kind), strings.TrimSpace(fields)
	if !ok || kind == "" || fields == "" {
		return schema.GroupKind{}, nil, fmt.Errorf("%q is not KIND.GROUP=PATH", text)
	}
	var p fieldPath
	for part := range strings.SplitSeq(strings.TrimPrefix(fields, "."), ".") {
		lists := 0
		for strings.HasSuffix(part, "[]") {
			part, lists = strings.TrimSuffix(part, "[]"), lists+1
		}
		if part == "" || strings.ContainsAny(part, "[]*") {
			return schema.GroupKind{}, nil, fmt.Errorf("%q: the path %q is not made of names with dots between them and [] behind those of lists", text, fields)
		}
		p = append(append(p, part), slices.Repeat([]string{"[]"}, lists)...)
	}
	if p[len(p)-1] == "[]" {
		return schema.GroupKind{}, nil, fmt.Errorf("%q: the path ends in a list, not in a field", text)
	}
	return schema.ParseGroupKind(kind), p, nil
}

// follow calls visit for each map that p leads to, with the key of the field in it.
func (p fieldPath) follow(v any, at []any, visit func(parent map[string]any, key string, path []any)) {
	if p[0] == "[]" {
		list, _ := v.([]any)
		for i, item := range list {
			p[1:].follow(item, append(slices.Clone(at), i), visit)
		}
		return
	}
	m, ok := v.(map[string]any)
	switch {
	case !ok:
	case len(p) == 1:
		visit(m, p[0], at)
	default:
		p[1:].follow(m[p[0]], append(slices.Clone(at), p[0]), visit)
	}
}

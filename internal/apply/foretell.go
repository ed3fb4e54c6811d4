package apply

import (
	"context"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// foretell works out what would become of an item whose dry run the server does not allow: the manifest over what is there. What the
// server would add, default or refuse is not in it. An object that may not be read either is shown as if it were new.
func (a *applier) foretell(ctx context.Context, it *item) error {
	if !it.liveKnown {
		if err := it.get(ctx); err != nil {
			return err
		}
		if it.liveKnown {
			if err := a.settle(it); err != nil || it.settled() {
				return err
			}
		}
	}
	it.checked, it.plan = it.object.Unstructured, write
	if it.live == nil {
		return nil
	}
	content, _ := over(it.live.Object, it.object.Object).(map[string]any) // both are maps
	it.checked = &unstructured.Unstructured{Object: content}
	if same(it.live, it.checked) {
		it.keep(it.live)
	}
	return nil
}

// over lays a manifest's value over the server's: maps by key, lists of named things by name, everything else whole.
func over(live, want any) any {
	switch want := want.(type) {
	case map[string]any:
		was, ok := live.(map[string]any)
		if !ok {
			return want
		}
		out := maps.Clone(was)
		for key, value := range want {
			out[key] = over(was[key], value)
		}
		return out
	case []any:
		was, _ := live.([]any) // nil: nothing is there
		out := slices.Clone(want)
		for i, value := range out {
			name := nameOf(value)
			if at := slices.IndexFunc(was, func(v any) bool { return name != "" && nameOf(v) == name }); at >= 0 {
				out[i] = over(was[at], value)
			} else if name == "" && len(was) == len(want) {
				out[i] = over(was[i], value)
			}
		}
		return out
	}
	return want
}

// nameOf is the name of a container, a volume, a variable; empty: it has none.
func nameOf(value any) string {
	fields, _ := value.(map[string]any)
	name, _ := fields["name"].(string)
	return name
}

package apply

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/flakeship/flakeship/internal/handoff"
)

// foresee makes changes of the plans. What could not be checked is at least looked up.
func (a *applier) foresee(ctx context.Context) error {
	var blocked []*item
	for _, it := range a.items {
		if it.blocked != "" {
			blocked = append(blocked, it)
		}
	}
	if err := a.look(ctx, blocked); err != nil {
		return err
	}
	for _, it := range blocked {
		if err := a.settle(it); err != nil {
			return err
		}
	}
	for _, it := range a.items {
		switch {
		case it.plan == keep:
			continue
		case it.plan == recreate:
			it.change.Action = handoff.ActionRecreated
		case it.live == nil && (it.liveKnown || it.blocked != ""):
			it.change.Action = handoff.ActionCreated
		default:
			it.change.Action = handoff.ActionConfigured
		}
		it.change.Live = it.checked
		if it.plan != write || it.checked == nil {
			it.change.Live = it.object.Unstructured
		}
		switch {
		case it.blocked != "":
			it.change.Message = "not checked: " + it.blocked + " has to be there first"
		case len(it.predecessors) > 0:
			it.change.Message = "taken over from " + strings.Join(it.predecessors, " and ") + ": their fields that the manifest does not have go as well"
		}
	}
	return a.failed()
}

// Diff shows what changes do, or would do, as a unified diff of YAML: without what only the server writes, and with every value
// of a Secret replaced, wherever it appears. It is empty when nothing changes.
func Diff(changes []Change) string {
	var out bytes.Buffer
	for _, c := range changes {
		if c.Action != handoff.ActionCreated && c.Action != handoff.ActionConfigured && c.Action != handoff.ActionRecreated || c.Live == nil {
			continue
		}
		before, after := c.Before, c.Live
		if secretKind(before) || secretKind(after) {
			before, after = masked(before, after)
		}
		out.Write(diff.Diff("live/"+c.Object.ID(), text(before), "deploy/"+c.Object.ID(), text(after)))
	}
	return hide(out.String(), secrets(changes))
}

// Restarts names the workloads whose pods the changes replace.
func Restarts(changes []Change) (ids []string) {
	for _, c := range changes {
		path := podSpecs[c.Object.GroupVersionKind().GroupKind()]
		if len(path) != 3 || c.Before == nil || c.Live == nil || c.Action != handoff.ActionConfigured && c.Action != handoff.ActionRecreated {
			continue // Jobs, which run once, and what is inside of a CronJob, which runs later, are not restarted
		}
		was, _, _ := unstructured.NestedFieldNoCopy(c.Before.Object, "spec", "template")
		is, _, _ := unstructured.NestedFieldNoCopy(c.Live.Object, "spec", "template")
		if c.Object.GetKind() != "Job" && (c.Action == handoff.ActionRecreated || !equal(was, is)) {
			ids = append(ids, c.Object.ID())
		}
	}
	return ids
}

// text is an object as it is shown.
func text(o *unstructured.Unstructured) []byte {
	if o == nil {
		return nil
	}
	content := without(o.Object, "metadata", "annotations", MarkAnnotation)
	for _, path := range [][]string{{"status"}, {"metadata", "resourceVersion"}, {"metadata", "generation"}, {"metadata", "managedFields"},
		{"metadata", "uid"}, {"metadata", "creationTimestamp"}, {"metadata", "selfLink"}, {"metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"}} {
		content = without(content, path...)
	}
	out, err := yaml.Marshal(content)
	if err != nil { // of what came from JSON
		return []byte(err.Error())
	}
	return out
}

func secretKind(o *unstructured.Unstructured) bool {
	return o != nil && o.GroupVersionKind().GroupKind() == schema.GroupKind{Kind: "Secret"}
}

// masked replaces the values of two versions of a Secret so that it still shows which differ.
func masked(before, after *unstructured.Unstructured) (*unstructured.Unstructured, *unstructured.Unstructured) {
	values := func(o *unstructured.Unstructured) map[string]any {
		if o == nil {
			return nil
		}
		data, _ := o.Object["data"].(map[string]any)
		return data
	}
	mask := func(o *unstructured.Unstructured, other map[string]any, changed string) *unstructured.Unstructured {
		if o == nil {
			return nil
		}
		data := map[string]any{}
		for key, value := range values(o) {
			data[key] = "***"
			if was, ok := other[key]; ok && was != value {
				data[key] = "*** (" + changed + ")"
			}
		}
		content := maps.Clone(o.Object)
		delete(content, "stringData")
		if len(data) > 0 {
			content["data"] = data
		}
		return &unstructured.Unstructured{Object: content}
	}
	return mask(before, values(after), "before"), mask(after, values(before), "after")
}

// shortest is the length from which on a Secret's value is looked for elsewhere: a shorter one would blot out half the text.
const shortest = 5

// secrets are the values of all Secrets among the changes, as they may appear in a text: the longest first.
func secrets(changes []Change) (all []string) {
	for _, c := range changes {
		for _, o := range []*unstructured.Unstructured{c.Before, c.Live, c.Object.Unstructured} {
			if !secretKind(o) {
				continue
			}
			data, _ := o.Object["data"].(map[string]any)
			for _, value := range data {
				encoded, _ := value.(string)
				decoded, _ := base64.StdEncoding.DecodeString(encoded) //nolint:errcheck // then it is no secret that could be found
				for line := range strings.Lines(string(decoded)) {
					all = append(all, strings.TrimSpace(line))
				}
				all = append(all, encoded)
			}
		}
	}
	all = slices.DeleteFunc(all, func(s string) bool { return len(s) < shortest })
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	return slices.Compact(all)
}

// hide replaces secrets in text.
func hide(text string, secrets []string) string {
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, "***")
	}
	return text
}

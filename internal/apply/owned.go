package apply

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/handoff"
)

// MarkAnnotation holds what an object was applied as, where the server keeps it in another form: cpu: 1000m becomes 1, empty
// maps go. Then the live object does not show whether the manifest differs from it, but the mark does. Secrets get none: it
// would be a hash of their content in a place that is not kept secret.
const MarkAnnotation = "flakeship.dev/applied"

// owner is one entry of an object's record of who wrote what.
type owner struct {
	manager, operation, subresource, apiVersion string
	fields                                      map[string]any // as fieldsV1 has them
}

// owners reads metadata.managedFields where it lies: GetManagedFields would copy it all, which counts for a thousand objects.
func owners(o *unstructured.Unstructured) (all []owner) {
	meta, _ := o.Object["metadata"].(map[string]any)
	entries, _ := meta["managedFields"].([]any)
	for _, entry := range entries {
		e, _ := entry.(map[string]any)
		text := func(key string) string { s, _ := e[key].(string); return s }
		fields, _ := e["fieldsV1"].(map[string]any)
		all = append(all, owner{text("manager"), text("operation"), text("subresource"), text("apiVersion"), fields})
	}
	return all
}

// ours is what we own of an object by having applied it, without the mark. It has no fields when we never did.
func ours(o *unstructured.Unstructured) owner {
	for _, entry := range owners(o) {
		if entry.manager == FieldManager && entry.operation == string(metav1.ManagedFieldsOperationApply) && entry.subresource == "" {
			entry.fields = without(entry.fields, "f:metadata", "f:annotations", "f:"+MarkAnnotation)
			return entry
		}
	}
	return owner{}
}

// without is m without what is at path, and without the maps around it that are empty then. m stays as it is.
func without(m map[string]any, path ...string) map[string]any {
	child, ok := m[path[0]]
	if !ok {
		return m
	}
	out := maps.Clone(m)
	delete(out, path[0])
	if len(path) > 1 {
		inner, ok := child.(map[string]any)
		if !ok {
			return m
		}
		if rest := without(inner, path[1:]...); len(rest) > 0 || len(inner) == 0 {
			out[path[0]] = rest
		}
	}
	return out
}

// absent stands for the value of a field that is owned and not there.
const absent = "\x00absent"

// project cuts from a live value what fields, of the form of fieldsV1, name. The form is described at
// https://github.com/kubernetes-sigs/structured-merge-diff/blob/master/fieldpath/serialize-pe.go: f:NAME is a key of a map,
// k:{...} a list's element with these keys, v:VALUE an element of a set, i:N an element by its index; the dot is the value
// itself, and what has nothing below it is owned whole.
func project(fields map[string]any, v any) any {
	if len(fields) == 0 {
		return v
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, below := range fields {
			name, ok := strings.CutPrefix(key, "f:")
			if !ok {
				continue
			}
			value, there := v[name]
			if !there {
				out[name] = absent
				continue
			}
			below, _ := below.(map[string]any)
			out[name] = project(below, value)
		}
		return out
	case []any:
		out := []any{}
		names := keyNames(fields)
		for i, item := range v {
			for _, key := range elementKeys(names, item, i) {
				if below, ok := fields[key].(map[string]any); ok {
					out = append(out, project(below, item))
					break
				}
			}
		}
		missing := len(fields) - len(out)
		if _, self := fields["."]; self {
			missing--
		}
		for range missing {
			out = append(out, absent)
		}
		return out
	}
	return v
}

// keyNames are the names of the fields that tell a list's elements apart.
func keyNames(fields map[string]any) (names []string) {
	for key := range fields {
		if text, ok := strings.CutPrefix(key, "k:"); ok {
			var keys map[string]any
			if json.Unmarshal([]byte(text), &keys) == nil {
				for name := range keys {
					names = append(names, name)
				}
			}
			return names
		}
	}
	return nil
}

// elementKeys is how fieldsV1 may name a list's element.
func elementKeys(names []string, item any, i int) []string {
	if m, ok := item.(map[string]any); ok && len(names) > 0 {
		keys := map[string]any{}
		for _, name := range names {
			keys[name] = m[name]
		}
		text, _ := json.Marshal(keys) //nolint:errcheck // it came from JSON
		return []string{"k:" + string(text)}
	}
	text, _ := json.Marshal(item) //nolint:errcheck // it came from JSON
	return []string{"v:" + string(text), fmt.Sprint("i:", i)}
}

// told is the state in which the object is when its manifest was applied and the server keeps it as it is written.
func told(o *unstructured.Unstructured) any {
	content := maps.Clone(o.Object)
	delete(content, "apiVersion")
	delete(content, "kind")
	content = without(without(content, "metadata", "name"), "metadata", "namespace")
	if len(content) == 0 {
		return content
	}
	return map[string]any{o.GetAPIVersion(): content}
}

// state is what the cluster has of our fields: their names and values. Whoever owns nothing has no entry.
func state(o *unstructured.Unstructured) any {
	entry := ours(o)
	if len(entry.fields) == 0 {
		return map[string]any{}
	}
	return map[string]any{entry.apiVersion: project(entry.fields, o.Object)}
}

// proven says whether the live object alone shows that applying would change nothing: we own exactly the manifest's fields,
// and they have the manifest's values. Whoever changes a field that we own, and has no other value in mind, takes it from
// us; a webhook may change it without that, so the values are compared as well.
func (it *item) proven() bool {
	value := state(it.live)
	if mark := it.live.GetAnnotations()[MarkAnnotation]; mark != "" {
		return mark == it.markOf(value)
	}
	return equal(value, told(it.object.Unstructured))
}

// seal decides, after a dry run, whether the object needs a mark, and puts it into the payload. A mark that somebody else
// wrote stays, and the object is dry-run each time.
func (it *item) seal(checked *unstructured.Unstructured) error {
	value := state(checked)
	secret := it.kind.GroupKind() == schema.GroupKind{Kind: "Secret"}
	it.mark = ""
	if !secret && !forged(it.live) && !equal(value, told(it.object.Unstructured)) {
		it.mark = it.markOf(value)
	}
	return it.encode()
}

func forged(live *unstructured.Unstructured) bool {
	if live == nil || live.GetAnnotations()[MarkAnnotation] == "" {
		return false
	}
	for _, entry := range owners(live) {
		if entry.manager == FieldManager && entry.operation == string(metav1.ManagedFieldsOperationApply) {
			if _, ok, _ := unstructured.NestedFieldNoCopy(entry.fields, "f:metadata", "f:annotations", "f:"+MarkAnnotation); ok {
				return false
			}
		}
	}
	return true
}

// markOf is a short hash of what was asked for, and one of what it became.
func (it *item) markOf(value any) string {
	short := func(v any) string {
		text, _ := json.Marshal(v) //nolint:errcheck // it came from JSON; the keys of maps are sorted
		sum := sha256.Sum256(text)
		return base64.RawURLEncoding.EncodeToString(sum[:16])
	}
	return short(it.object.Object) + "." + short(value)
}

// settle plans what needs no request: an object that is proven to be as it should. Under Safe, replicas that somebody scales
// are left to whoever does.
func (a *applier) settle(it *item) error {
	if it.live == nil || a.untouchable(it) {
		return nil
	}
	if it.live.GetDeletionTimestamp() != nil {
		reason := cluster.Diagnosis{Text: "it is being deleted"}
		if finalizers := it.live.GetFinalizers(); len(finalizers) > 0 {
			reason.Text += fmt.Sprintf(", and held by its finalizers %v", finalizers)
		}
		a.refuse(it, reason, "run it again when the object is gone")
		return nil
	}
	for _, entry := range owners(it.live) {
		_, owned, _ := unstructured.NestedFieldNoCopy(entry.fields, "f:spec", "f:replicas")
		if a.options.Conflicts == Safe && owned && entry.subresource == "scale" {
			if err := it.yieldReplicas(entry.manager); err != nil {
				return err
			}
		}
	}
	if err := a.handOver(it); err != nil {
		return err
	}
	it.predecessors = a.inherited(it.live)
	if it.proven() {
		it.keep(it.live)
	}
	return nil
}

// untouchable says whether the caller refuses the live object.
func (a *applier) untouchable(it *item) bool {
	if a.options.Refuse == nil || it.live == nil {
		return false
	}
	why := a.options.Refuse(it.live)
	if why != "" {
		a.refuse(it, cluster.Diagnosis{Class: cluster.Conflict, Text: why}, "an object belongs to one set: take it out of one of the two")
	}
	return why != ""
}

// yieldReplicas takes spec.replicas out of what is applied.
func (it *item) yieldReplicas(manager string) error {
	if _, found, _ := unstructured.NestedFieldNoCopy(it.object.Object, "spec", "replicas"); !found {
		return nil
	}
	unstructured.RemoveNestedField(it.object.Object, "spec", "replicas")
	it.change.Message = "spec.replicas is left to " + manager + ", which scaled it"
	return it.encode()
}

// handOver keeps spec.replicas, which we own and the manifest no longer has, as it is when an autoscaler of the input is to take it
// over. Left out, it would fall back to one, and most pods would be gone until the autoscaler notices.
func (a *applier) handOver(it *item) error {
	scaler := a.scalers[it.object.ID()]
	if _, owned, _ := unstructured.NestedFieldNoCopy(ours(it.live).fields, "f:spec", "f:replicas"); scaler == "" || !owned || a.options.Conflicts != Safe {
		return nil
	}
	if _, given, _ := unstructured.NestedFieldNoCopy(it.object.Object, "spec", "replicas"); given {
		return nil
	}
	n, found, _ := unstructured.NestedInt64(it.live.Object, "spec", "replicas")
	if !found {
		return nil
	}
	it.change.Message = fmt.Sprintf("spec.replicas stays %d until %s sets it", n, scaler)
	if err := unstructured.SetNestedField(it.object.Object, n, "spec", "replicas"); err != nil {
		return err
	}
	return it.encode()
}

// scalersOf names the autoscaler of each object that has one among the items, by the object's ID.
func scalersOf(items []*item) map[string]string {
	scalers := map[string]string{}
	for _, it := range items {
		if it.object.GroupVersionKind().GroupKind() != (schema.GroupKind{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}) {
			continue
		}
		kind, _, _ := unstructured.NestedString(it.object.Object, "spec", "scaleTargetRef", "kind")
		name, _, _ := unstructured.NestedString(it.object.Object, "spec", "scaleTargetRef", "name")
		scalers[kind+"/"+it.object.GetNamespace()+"/"+name] = it.object.ID()
	}
	return scalers
}

// keep plans to leave the object as it is; a hook that failed is run again.
func (it *item) keep(live *unstructured.Unstructured) {
	if it.hook != "" && it.live != nil && jobFailed(it.live) {
		it.recreate("it had failed")
		return
	}
	it.plan = keep
	it.change.Action, it.change.Live, it.change.At = handoff.ActionUnchanged, live, time.Now()
}

package apply

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flakeship/flakeship/internal/cluster"
)

// HookAnnotation makes a Job a hook. With "before" it has to complete before services, custom resources and workloads are
// written; with "after" it runs when everything else is ready. A hook runs when its manifest changed, as it does with each new
// image, or when it has failed; then it is deleted and created again without further permission.
const HookAnnotation = "flakeship.dev/hook"

var hookStages = map[string]stage{"before": hooksBefore, "after": hooksAfter}

var jobKind = schema.GroupKind{Group: "batch", Kind: "Job"}

// asHook notes whether an object is a hook.
func (a *applier) asHook(it *item) {
	value, ok := it.object.GetAnnotations()[HookAnnotation]
	if !ok {
		return
	}
	s, known := hookStages[value]
	switch {
	case !known:
		a.refuse(it, cluster.Diagnosis{Class: cluster.Invalid, Text: fmt.Sprintf("annotation %s is %q, not before or after", HookAnnotation, value)}, "")
	case it.object.GroupVersionKind().GroupKind() != jobKind:
		a.refuse(it, cluster.Diagnosis{Class: cluster.Invalid, Text: "only a Job can be a hook, because only a Job completes"}, "remove the annotation "+HookAnnotation)
	default:
		it.hook, it.stage = value, s
	}
}

// jobFailed says whether a Job has failed for good.
func jobFailed(job *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedFieldNoCopy(job.Object, "status", "conditions")
	list, _ := conditions.([]any)
	for _, c := range list {
		if c, _ := c.(map[string]any); c["type"] == "Failed" && c["status"] == "True" {
			return true
		}
	}
	return false
}

// await lets the caller wait until what has been applied is ready: the hooks that run before the rest, and everything before
// the hooks that run after it.
func (a *applier) await(ctx context.Context, s stage) error {
	var wait []Change
	hooks := false
	for _, it := range a.items {
		switch {
		case s == hooksBefore && it.stage == s, s == hooksAfter && it.stage < s:
			wait = append(wait, it.change)
		}
		hooks = hooks || it.stage == s && (s == hooksBefore || it.plan != keep)
	}
	if !hooks || a.options.Await == nil {
		return nil
	}
	return a.options.Await(ctx, wait)
}

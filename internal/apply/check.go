package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flakeship/flakeship/internal/cluster"
)

// check plans the wanted items: it looks up what the cluster has and, where that does not show that nothing would change, asks
// the server in a dry run what would become of the object. What it may not judge yet stays blocked.
func (a *applier) check(ctx context.Context, wanted func(*item) bool) error {
	var items []*item
	for _, it := range a.items {
		if wanted(it) && it.problem == nil {
			items = append(items, it)
		}
	}
	if err := a.look(ctx, items); err != nil {
		return err
	}
	for _, it := range items {
		if err := a.settle(it); err != nil {
			return err
		}
	}
	a.absent = map[string][]*item{}
	for _, it := range a.items {
		if it.live == nil && it.problem == nil && it.plan != keep {
			a.absent[it.object.GetName()] = append(a.absent[it.object.GetName()], it)
		}
	}
	return a.each(ctx, func(it *item) bool { return wanted(it) && it.plan == unplanned }, a.dryRun)
}

// freshTimeout is how long the server is given to use a definition it has just taken; 45 ms were measured.
const freshTimeout = 5 * time.Second

func (a *applier) dryRun(ctx context.Context, it *item) error {
	begin := time.Now()
	for poll := pollFirst; ; poll = min(2*poll, pollMost) {
		err := a.dryRunOnce(ctx, it)
		if err == nil {
			return nil
		}
		reason := cluster.Diagnose(err)
		if a.options.ReadOnly && reason.Class == cluster.Denied {
			return a.foretell(ctx, it)
		}
		if it.fresh && time.Since(begin) < freshTimeout && (reason.Class == cluster.Absent || reason.Class == cluster.Invalid && it.coming(a)) {
			if err := sleep(ctx, poll); err != nil {
				return err
			}
			continue
		}
		if reason.Class == cluster.Conflict && !it.liveKnown {
			if known, err := a.meet(ctx, it); err != nil || it.settled() {
				return err
			} else if known {
				continue
			}
		}
		if goneVersion(err) != "" {
			if settled, err := a.withoutDryRun(ctx, it); err != nil || settled {
				return err
			}
		}
		switch {
		case a.mend(it, reason):
			continue
		case it.takesOver(reason):
			it.force = true
			continue
		case strings.Contains(reason.Text, "does not support dry run"): // a webhook: it will judge the real request
			it.plan = write
			return nil
		case reason.Class == cluster.Immutable:
			return a.immutable(ctx, it, reason)
		}
		if it.awaitable {
			if it.blocked = a.awaited(it, reason); it.blocked != "" {
				return nil
			}
		}
		return a.fail(it, err, hint(reason))
	}
}

// coming says whether the definition of the item's kind was there before, in another form: then the server may still judge
// by that.
func (it *item) coming(a *applier) bool {
	d, ok := a.coming.definitions[it.object.GroupVersionKind().GroupKind()]
	return ok && d.live != nil
}

// dryRunOnce plans an item the server takes.
func (a *applier) dryRunOnce(ctx context.Context, it *item) error {
	for moves := 0; ; moves++ {
		checked, err := a.patch(ctx, it, metav1.DryRunAll)
		if err != nil {
			return err
		}
		it.checked = checked
		if !it.liveKnown {
			if checked.GetResourceVersion() == "" {
				it.liveKnown = true // it would be created
			} else if known, err := a.meet(ctx, it); err != nil || it.settled() {
				return err
			} else if known {
				continue
			}
		}
		switch {
		case it.live != nil && same(it.live, checked):
			it.keep(checked)
			return nil
		case it.live == nil || it.live.GetResourceVersion() == checked.GetResourceVersion() || moves == 3:
			it.plan = write
			return it.seal(checked)
		}
		// Somebody wrote the object since it was looked up, so not every difference is ours.
		if err := it.get(ctx); err != nil {
			return err
		}
	}
}

// meet looks up an object that turned out to exist, though it was not found where the set's members are. It reports false to
// whoever may not read it.
func (a *applier) meet(ctx context.Context, it *item) (known bool, err error) {
	if err := it.get(ctx); err != nil || it.live == nil {
		return it.liveKnown, err
	}
	return true, a.settle(it)
}

// settled says whether there is nothing left to ask the server.
func (it *item) settled() bool { return it.problem != nil || it.plan != unplanned }

// patch sends the item's payload.
func (a *applier) patch(ctx context.Context, it *item, dryRun ...string) (live *unstructured.Unstructured, err error) {
	force := a.options.Conflicts == Force || it.force && len(dryRun) > 0
	options := metav1.PatchOptions{FieldManager: FieldManager, Force: &force, DryRun: dryRun, FieldValidation: metav1.FieldValidationStrict}
	err = cluster.Retry(ctx, func() error {
		live, err = it.client.Patch(ctx, it.object.GetName(), types.ApplyPatchType, it.payload, options)
		return err
	})
	return live, err
}

// same says whether a dry run changed nothing. What controllers write at the same time does not count: the status, and the
// records of who wrote when.
func same(live, checked *unstructured.Unstructured) bool {
	return equal(content(live), content(checked))
}

// content is what of an object only an apply of ours or an edit by somebody changes. The mark is neither.
func content(o *unstructured.Unstructured) map[string]any {
	out := without(o.Object, "metadata", "annotations", MarkAnnotation)
	for _, path := range [][]string{{"status"}, {"metadata", "resourceVersion"}, {"metadata", "generation"}, {"metadata", "managedFields"}} {
		out = without(out, path...)
	}
	out = maps.Clone(out)
	if entry := ours(o); entry.fields != nil {
		out["our fields"] = []any{entry.apiVersion, entry.fields}
	}
	return out
}

// mend makes a refused item acceptable where that needs nobody's decision: under Safe, the number of replicas belongs to
// whoever scales, an autoscaler as a rule.
func (a *applier) mend(it *item, reason cluster.Diagnosis) bool {
	if a.options.Conflicts != Safe {
		return false
	}
	for _, c := range reason.Conflicts {
		if c.Subresource == "scale" && c.Field == ".spec.replicas" {
			return it.yieldReplicas(c.Manager) == nil
		}
	}
	return false
}

// awaited names the object of the input that is still to come and that the server misses for it; empty: none.
func (a *applier) awaited(it *item, reason cluster.Diagnosis) string {
	if reason.Class != cluster.Absent && reason.Class != cluster.Denied {
		return ""
	}
	for _, word := range strings.FieldsFunc(reason.Text, func(r rune) bool { return strings.ContainsRune(" \"'/:,", r) }) {
		for _, other := range a.absent[word] {
			if other != it && other.stage < it.stage && (strings.Contains(reason.Text, "not found") || strings.Contains(reason.Text, "was found")) {
				return other.object.ID()
			}
		}
	}
	return ""
}

func hint(reason cluster.Diagnosis) string {
	if name := reason.Webhook(); name != "" {
		return fmt.Sprintf("the webhook %s of the cluster does not answer: whoever runs it has to mend it, or its configuration has to go", name)
	}
	if reason.Class == cluster.Absent && strings.HasPrefix(reason.Text, "namespaces ") {
		return "create the namespace, add a Namespace object to the manifests, or set the input namespace"
	}
	return ""
}

// equal compares two values as JSON has them.
func equal(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key, v := range a {
			w, ok := b[key]
			if !ok || !equal(v, w) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	}
	return a == b
}

package apply

import (
	"context"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/csaupgrade"

	"github.com/flakeship/flakeship/internal/cluster"
)

// predecessors are the field managers of tools that write whole manifests without server-side apply: kubectl apply, whatever
// wrote before there were field managers, and Helm up to version 3. What they own of an object is not somebody else's decision
// but an earlier deploy of the same manifest, so it becomes ours with the first apply. Else fields that the manifest no longer
// has would stay for ever.
var predecessors = []string{"kubectl-client-side-apply", "before-first-apply", "helm"}

// inherited returns the predecessors that wrote the live object, if we never did. Under Fail nothing is taken over.
func (a *applier) inherited(live *unstructured.Unstructured) (managers []string) {
	if live == nil || a.options.Conflicts == Fail {
		return nil
	}
	applied := map[string]bool{}
	for _, entry := range owners(live) {
		applied[entry.manager] = applied[entry.manager] || entry.operation == string(metav1.ManagedFieldsOperationApply)
		if entry.operation == string(metav1.ManagedFieldsOperationUpdate) && entry.subresource == "" && slices.Contains(predecessors, entry.manager) {
			managers = append(managers, entry.manager)
		}
	}
	if applied[FieldManager] {
		return nil
	}
	managers = slices.DeleteFunc(managers, func(manager string) bool { return applied[manager] }) // Helm 4, which applies as we do
	slices.Sort(managers)
	return slices.Compact(managers)
}

// migrate makes what predecessors own of the live object ours, which changes nothing but the record of owners.
func (a *applier) migrate(ctx context.Context, it *item) error {
	for {
		managers := a.inherited(it.live)
		if len(managers) == 0 {
			return nil
		}
		patch, err := csaupgrade.UpgradeManagedFieldsPatch(it.live, sets.New(managers...), FieldManager)
		if err != nil || patch == nil {
			return err
		}
		_, err = it.client.Patch(ctx, it.object.GetName(), types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
		switch {
		case err == nil:
			it.change.Message = "taken over from " + strings.Join(managers, " and ")
			return nil
		case !apierrors.IsConflict(err):
			return err
		}
		// Somebody wrote it since it was looked up: once more, with what there is now.
		if err := it.get(ctx); err != nil {
			return err
		}
	}
}

// takesOver says whether all that stands in an item's way is owned by predecessors.
func (it *item) takesOver(reason cluster.Diagnosis) bool {
	if len(it.predecessors) == 0 || len(reason.Conflicts) == 0 || it.force {
		return false
	}
	return !slices.ContainsFunc(reason.Conflicts, func(c cluster.FieldConflict) bool {
		return c.Subresource != "" || !slices.Contains(it.predecessors, c.Manager)
	})
}

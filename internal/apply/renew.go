package apply

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// convert is how the server refuses to apply a custom resource whose record of owners names an API version that its definition no
// longer has. Nothing but the record is wrong, and it stays wrong for ever (kubernetes/kubernetes#111937).
var convert = regexp.MustCompile(`request to convert CR to an invalid group/version: (\S+)`)

// mostVersions is how many versions that are gone may be in one record.
const mostVersions = 8

// goneVersion is the API version that the record of owners names and the definition does not have; empty: that was not the cause.
func goneVersion(err error) string {
	if err == nil {
		return ""
	}
	if m := convert.FindStringSubmatch(err.Error()); m != nil {
		return m[1]
	}
	return ""
}

// withoutDryRun plans to write an item that no dry run can judge before its record of owners is put right. It reports false for one
// that cannot be read, and therefore not be put right.
func (a *applier) withoutDryRun(ctx context.Context, it *item) (planned bool, err error) {
	if !it.liveKnown {
		if _, err := a.meet(ctx, it); err != nil || it.settled() {
			return true, err
		}
	}
	if it.live == nil {
		return false, nil
	}
	content, _ := over(it.live.Object, it.object.Object).(map[string]any) // both are maps
	it.checked, it.plan = &unstructured.Unstructured{Object: content}, write
	return true, nil
}

// renew makes entries of a version that is gone, in the live object's record of owners, entries of the version that is applied: whose
// a field is stays known.
func (a *applier) renew(ctx context.Context, it *item, gone string) error {
	for {
		if it.live == nil {
			return errors.New("it cannot be read, so that its record of owners, which names " + gone + ", cannot be put right")
		}
		entries := it.live.GetManagedFields()
		for i := range entries {
			if entries[i].APIVersion == gone {
				entries[i].APIVersion = it.object.GetAPIVersion()
			}
		}
		patch, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/metadata/managedFields", "value": entries},
			{"op": "replace", "path": "/metadata/resourceVersion", "value": it.live.GetResourceVersion()}})
		if err != nil {
			return err
		}
		_, err = it.client.Patch(ctx, it.object.GetName(), types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
		if !apierrors.IsConflict(err) {
			return err
		}
		// Somebody wrote it since it was looked up: once more, with what there is now.
		if err := it.get(ctx); err != nil {
			return err
		}
	}
}

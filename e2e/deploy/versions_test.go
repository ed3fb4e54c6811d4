package deploy_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A kind that goes from one API version to the next, and loses the first, does not leave its objects behind: not those that the
// record of owners knows by the version that is gone, and not for the prune either.
func TestDefinitionVersions(t *testing.T) {
	const group = "versions.test"
	ns := namespace(t)
	args := []string{withPrune, "--namespace", ns, "--name", "shop"}
	definition := func(versions ...string) string {
		text := "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: ships." + group + "}\nspec:\n  group: " + group +
			"\n  scope: Namespaced\n  names: {kind: Ship, plural: ships}\n  versions:\n"
		for i, version := range versions {
			text += fmt.Sprintf("  - {name: %s, served: true, storage: %v, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}, sail: {type: string}}}}}}}\n",
				version, i == len(versions)-1)
		}
		return text + "---\n"
	}
	ship := func(version, name, spec string) string {
		return fmt.Sprintf("apiVersion: %s/%s\nkind: Ship\nmetadata: {name: %s, namespace: %s}\nspec: {%s}\n---\n", group, version, name, ns, spec)
	}
	deploy(t, definition("v1")+ship("v1", "a", "size: 1")+ship("v1", "old", "size: 1"), args...).wants(t, 0, "3 created")
	apply(t, group+"/v1", "ships", ns, map[string]any{"apiVersion": group + "/v1", "kind": "Ship", "metadata": map[string]any{"name": "a"}, "spec": map[string]any{"sail": "red"}}, "other")
	deploy(t, definition("v1", "v2")+ship("v2", "a", "size: 2")+ship("v2", "old", "size: 2"), args...).wants(t, 0, "3 configured")
	// All that is stored is of the new version by now, but what the other wrote is still known by the old one.
	definitions := at(t, "apiextensions.k8s.io/v1", "customresourcedefinitions", "")
	if _, err := definitions.Patch(t.Context(), "ships."+group, types.MergePatchType, []byte(`{"status":{"storedVersions":["v2"]}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	o := deploy(t, definition("v2")+ship("v2", "a", "size: 3"), args...)
	o.wants(t, 0, "configured  Ship/"+ns+"/a", "pruned      Ship/"+ns+"/old")
	if spec := fmt.Sprint(get(t, group+"/v2", "ships", ns, "a").Object["spec"]); spec != "map[sail:red size:3]" {
		t.Errorf("spec is %s", spec)
	}
	deploy(t, definition("v2")+ship("v2", "a", "size: 3"), args...).wants(t, 0, "deployed: 2 unchanged")
	if exists(t, group+"/v2", "ships", ns, "old") != nil {
		t.Error("old is still there")
	}
	if log := deploy(t, definition("v2"), args...).log; !strings.Contains(log, "pruned      Ship/"+ns+"/a") {
		t.Errorf("the log is\n%s", log)
	}
}

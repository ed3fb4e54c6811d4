package deploy_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// Who gives the number of replicas into the hands of an autoscaler takes it out of the manifest. The pods stay until it has scaled
// them, and what it says then stands.
func TestReplicasHandedOver(t *testing.T) {
	ns := namespace(t)
	replicas := func() int64 {
		n, _, _ := unstructured.NestedInt64(get(t, "apps/v1", "deployments", ns, "web").Object, "spec", "replicas")
		return n
	}
	given := strings.Replace(deployment("web", ns, "web:1"), "spec:\n", "spec:\n  replicas: 3\n", 1)
	deploy(t, given).wants(t, 0, ": 3 pods")
	hpa := fmt.Sprintf("apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web, namespace: %s}\n"+
		"spec: {minReplicas: 2, maxReplicas: 9, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}\n---\n", ns)
	scaled := hpa + deployment("web", ns, "web:2")
	if _, text := diff(t, scaled); strings.Contains(text, "replicas: 1") {
		t.Errorf("the diff takes the pods away:\n%s", text)
	}
	deploy(t, scaled, "--wait=false").wants(t, 0, "configured  Deployment/"+ns+"/web (spec.replicas stays 3 until HorizontalPodAutoscaler/"+ns+"/web sets it)")
	if n := replicas(); n != 3 {
		t.Errorf("%d replicas, want 3", n)
	}
	deploy(t, scaled, "--wait=false").wants(t, 0, "deployed: 2 unchanged")
	if _, err := at(t, "apps/v1", "deployments", ns).Patch(t.Context(), "web", types.MergePatchType, []byte(`{"spec":{"replicas":4}}`),
		metav1.PatchOptions{FieldManager: "autoscaler"}, "scale"); err != nil {
		t.Fatal(err)
	}
	deploy(t, scaled, "--wait=false").wants(t, 0, "deployed: 2 unchanged")
	deploy(t, hpa+deployment("web", ns, "web:3"), "--wait=false").wants(t, 0, "configured  Deployment/"+ns+"/web\n")
	if n := replicas(); n != 4 {
		t.Errorf("%d replicas, want 4", n)
	}

	// Without an autoscaler, what left the manifest goes, as everything that leaves it.
	other := strings.ReplaceAll(given, "web", "alone")
	deploy(t, other).wants(t, 0)
	deploy(t, strings.Replace(other, "  replicas: 3\n", "", 1)).wants(t, 0, ": 1 pod")
}

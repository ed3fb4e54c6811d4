package deploy_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What may stand in the way of what it belongs to comes last: a webhook whose own pods are among the manifests.
func TestWebhookComesLast(t *testing.T) {
	ns := namespace(t)
	webhook := fmt.Sprintf(`apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: %[1]s}
webhooks:
- name: last.example.org
  sideEffects: None
  admissionReviewVersions: [v1]
  clientConfig: {service: {namespace: %[1]s, name: nobody}}
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[1]s}}
  rules: [{apiGroups: ['*'], apiVersions: ['*'], resources: [configmaps, services, deployments], operations: [CREATE]}]
---
`, ns)
	t.Cleanup(func() {
		_ = at(t, "admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "").Delete(t.Context(), ns, metav1.DeleteOptions{})
	})
	service := fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: %s}\nspec: {ports: [{port: 80}]}\n---\n", ns)
	manifests := webhook + deployment("web", ns, "web:1") + service + fmt.Sprintf(configMap, "a", ns, "1")
	deploy(t, manifests).wants(t, 0, "4 created; rollouts: 1 ready")
	deploy(t, manifests).wants(t, 0, "4 unchanged")
	deploy(t, fmt.Sprintf(configMap, "b", ns, "1")).wants(t, 1, "hint: the webhook last.example.org of the cluster does not answer") // it is in force
}

// Whatever the problems are, they are shown together, the gravest decides, and nothing is written.
func TestAllProblemsTogether(t *testing.T) {
	ns := namespace(t)
	kubeconfig, err := cluster.User("mixed")
	if err != nil {
		t.Fatal(err)
	}
	allow(t, ns, "mixed", rule("", "get list patch create", "configmaps"), rule("batch", "get list watch patch create delete", "jobs"), rule("apps", "get list watch patch create", "deployments"))
	deploy(t, fmt.Sprintf(configMap, "owned", ns, "1")+fmt.Sprintf(job, "done", ns, "", "a"), "--namespace", ns, "--wait=false").wants(t, 0)
	if _, err := at(t, "v1", "configmaps", ns).Patch(t.Context(), "owned", types.MergePatchType, []byte(`{"data":{"a":"2"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"}); err != nil {
		t.Fatal(err)
	}
	manifests := fmt.Sprintf(configMap, "owned", ns, "1") + // owned by somebody else
		fmt.Sprintf(job, "done", ns, "", "b") + // cannot be changed
		strings.Replace(deployment("typo", ns, "web"), "spec:\n", "spec:\n  replica: 2\n", 1) + // wrong
		fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: %s}\nspec: {ports: [{port: 80}]}\n---\n", ns) + // not allowed
		fmt.Sprintf("apiVersion: nowhere.test/v1\nkind: Ship\nmetadata: {name: s, namespace: %s}\n---\n", ns) + // not known
		fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: %s}\nstringData: {pin: 1}\n---\n", ns) + // not text
		fmt.Sprintf(configMap, "good", ns, "1")
	o := deploy(t, manifests, "--namespace", ns, "--kubeconfig", kubeconfig)
	o.wants(t, 3, "error: nothing was applied: 6 objects are refused, among them m.yaml:", "ConfigMap/"+ns+"/owned: somebody else owns", "    .data.a  kubectl-edit", "Job/"+ns+"/done: spec.template: field is immutable",
		"Deployment/"+ns+"/typo: .spec.replica: field not declared in schema", "Service/"+ns+"/web: user \"mixed\" may not patch services", "Ship/"+ns+"/s: the server knows no kind Ship",
		"Secret/"+ns+"/s: stringData.pin is not text", "kind: Role")
	if got := stateOf(t, ns); got != "gone [owned]" {
		t.Errorf("there is %s", got)
	}
}

package deploy_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// What a Secret holds is in no log and no result, whatever is wrong with it: neither what is no text, nor what is no base64, nor what
// a policy of the cluster quotes.
func TestRefusedSecretsAreNotShown(t *testing.T) {
	ns := namespace(t)
	named := map[string]any{"name": ns}
	apply(t, "admissionregistration.k8s.io/v1", "validatingadmissionpolicies", "", map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": named,
		"spec": map[string]any{"matchConstraints": map[string]any{
			"namespaceSelector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": ns}},
			"resourceRules":     []any{map[string]any{"apiGroups": []any{""}, "apiVersions": []any{"v1"}, "resources": []any{"secrets"}, "operations": []any{"CREATE", "UPDATE"}}}},
			"validations": []any{map[string]any{"expression": "!object.metadata.name.startsWith('weak')", "messageExpression": "'too weak: ' + string(object.data.a)"}}},
	}, "test")
	apply(t, "admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", "", map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": named,
		"spec": map[string]any{"policyName": ns, "validationActions": []any{"Deny"}}}, "test")
	t.Cleanup(func() {
		for _, resource := range []string{"validatingadmissionpolicybindings", "validatingadmissionpolicies"} {
			_ = at(t, "admissionregistration.k8s.io/v1", resource, "").Delete(t.Context(), ns, metav1.DeleteOptions{})
		}
	})
	await(t, "the policy is in force", func() bool {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "weak-test"}, "data": map[string]any{"a": "YQ=="}}}
		_, err := at(t, "v1", "secrets", ns).Create(t.Context(), o, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "too weak")
	})

	encoded := base64.StdEncoding.EncodeToString([]byte("hunter22"))
	for name, tt := range map[string]struct{ content, wants string }{
		"number":    {"stringData: {pin: 84739201}", "Secret/" + ns + "/number: stringData.pin is not text"},
		"code":      {"data: {pin: 84739201}", "Secret/" + ns + "/code: data.pin is not text"},
		"base":      {"data: {a: hunter22!}", "Secret/" + ns + "/base: "},
		"weak":      {"stringData: {a: hunter22}", "too weak: ***"},
		"weak-data": {"data: {a: " + encoded + "}", "too weak: ***"},
	} {
		for _, mode := range []string{"apply", "diff"} {
			manifest := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\n%s\n---\n", name, ns, tt.content)
			cmd, out := command(t, manifest+fmt.Sprintf(configMap, "a", ns, "1"), "--mode", mode)
			o := finish(t, cmd, out)
			if o.code == 0 || !strings.Contains(o.log, tt.wants) || !strings.Contains(o.log, "nothing was applied") {
				t.Errorf("%s: %s: exit code %d:\n%s", mode, name, o.code, o.log)
			}
			result, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{"84739201", "hunter22", encoded} {
				if strings.Contains(o.log, secret) || strings.Contains(string(result), secret) {
					t.Errorf("%s: %s: %q is shown:\n%s\n%s", mode, name, secret, o.log, result)
				}
			}
		}
	}
	if names := configMaps(t, ns); len(names) > 0 {
		t.Errorf("ConfigMaps %v were applied", names)
	}
}

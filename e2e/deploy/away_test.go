package deploy_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An API that another server brings, and does not at the moment, stands in nobody's way but of those who use it; what a set has of it
// is not forgotten.
func TestAPIServiceAway(t *testing.T) {
	ns := namespace(t)
	args := []string{withPrune, "--namespace", ns, "--name", "shop"}
	a := fmt.Sprintf(configMap, "a", ns, "1")
	ship := fmt.Sprintf("apiVersion: away.test/v1\nkind: Ship\nmetadata: {name: s, namespace: %s}\n---\n", ns)
	deploy(t, a+fmt.Sprintf(crd, "ships", "away", "", "Ship")+ship, args...).wants(t, 0, "3 created")

	// Somebody takes the group over for a server that is not there.
	const services, service = "apiregistration.k8s.io/v1", "v1.away.test"
	if err := at(t, "apiextensions.k8s.io/v1", "customresourcedefinitions", "").Delete(t.Context(), "ships.away.test", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the definition is gone", func() bool {
		return exists(t, "apiextensions.k8s.io/v1", "customresourcedefinitions", "", "ships.away.test") == nil && exists(t, services, "apiservices", "", service) == nil
	})
	apply(t, services, "apiservices", "", map[string]any{"apiVersion": services, "kind": "APIService", "metadata": map[string]any{"name": service}, "spec": map[string]any{
		"group": "away.test", "version": "v1", "groupPriorityMinimum": int64(10), "versionPriority": int64(10), "insecureSkipTLSVerify": true,
		"service": map[string]any{"namespace": ns, "name": "nobody"}}}, "test")
	remove := func() { _ = at(t, services, "apiservices", "").Delete(t.Context(), service, metav1.DeleteOptions{}) }
	t.Cleanup(remove)
	await(t, "the server knows that the group is away", func() bool {
		o := deploy(t, ship, "--namespace", ns, "--name", "other")
		return o.code == 2 && strings.Contains(o.log, "Ship/"+ns+"/s: what serves the API group away.test does not answer") && strings.Contains(o.log, "hint: mend or remove the APIService of that group")
	})
	deploy(t, fmt.Sprintf(configMap, "b", ns, "1"), "--namespace", ns, "--name", "third").wants(t, 0)
	deploy(t, a, args...).wants(t, 1, "what serves the API group away.test does not answer")
	remove()
	await(t, "the group is gone", func() bool { return deploy(t, a, args...).code == 0 })
}

package deploy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The commit shows that it is being deployed and then what became of that, without what its Secrets hold; and where the set can be
// reached is an output, in the result and in the summary.
func TestCommitStatusAndURLs(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	var mu sync.Mutex
	var told []string
	forge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status struct{ State, Description string }
		if err := json.NewDecoder(r.Body).Decode(&status); err != nil || r.URL.Path != "/repos/team/shop/statuses/"+strings.Repeat("a", 40) {
			t.Errorf("%s: %v", r.URL, err)
		}
		mu.Lock()
		defer mu.Unlock()
		told = append(told, status.State+": "+status.Description)
		w.WriteHeader(http.StatusCreated)
	}))
	defer forge.Close()
	run := func(manifests string) (o outcome, stdout string) {
		t.Helper()
		mu.Lock()
		told = nil
		mu.Unlock()
		cmd, out := command(t, manifests, "--namespace", ns, "--name", "shop")
		cmd.Env = append(append(cmd.Env, runOf(1, "a")...), "GITHUB_API_URL="+forge.URL, "INPUT_STATUS_TOKEN=forge-token")
		var b bytes.Buffer
		cmd.Stdout = &b
		return finish(t, cmd, out), b.String()
	}
	const reach = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gateways.gateway.networking.k8s.io, annotations: {api-approved.kubernetes.io: 'unapproved, for a test'}}
spec:
  group: gateway.networking.k8s.io
  names: {kind: Gateway, plural: gateways}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate, namespace: %[1]s}
spec: {gatewayClassName: any, listeners: [{name: web, protocol: HTTPS, port: 8443, hostname: gate.example.org}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: %[1]s}
spec:
  tls: [{hosts: [shop.example.org]}]
  rules: [{host: shop.example.org, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
---
`
	good, stdout := run(fmt.Sprintf(reach, ns) + deployment("web", ns, "web:1"))
	good.wants(t, 0)
	want := []string{"https://gate.example.org:8443/", "https://shop.example.org/"}
	if diff := cmp.Diff(want, good.result.URLs); diff != "" || !strings.Contains(stdout, `urls=["https://gate.example.org:8443/","https://shop.example.org/"]`) {
		t.Errorf("urls (-want +got):\n%s\n%s", diff, stdout)
	}
	if diff := cmp.Diff([]string{"pending: being deployed", "success: 4 created; rollouts: 1 ready"}, told); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}

	secret := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: %s}\nstringData: {why: manifest unknown}\n---\n", ns)
	bad, _ := run(secret + deployment("web", ns, "bad-pull"))
	bad.wants(t, 5)
	if len(told) != 2 || told[0] != "pending: being deployed" || !strings.HasPrefix(told[1], "failure: Deployment/"+ns+"/web: ") || strings.Contains(told[1], "manifest unknown") {
		t.Errorf("statuses %q", told)
	}
}

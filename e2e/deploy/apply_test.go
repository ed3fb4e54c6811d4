package deploy_test

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flakeship/flakeship/internal/handoff"
)

// A set with everything that rolls out becomes ready; a second time it is found unchanged, and nothing is written.
func TestCreateThenUnchanged(t *testing.T) {
	ns := "create-then-unchanged"
	manifests := fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\n", ns) +
		deployment("web", ns, "web:1") +
		fmt.Sprintf(workload, "DaemonSet", "agent", ns, "agent:1") +
		fmt.Sprintf(workload, "StatefulSet", "db", ns, "db:1") +
		fmt.Sprintf(job, "migrate", ns, "", "migrate:1") +
		fmt.Sprintf(configMap, "a", ns, "1") + fmt.Sprintf(configMap, "b", ns, "1") +
		// Forms that the server writes otherwise: they must not count as a difference.
		fmt.Sprintf(`apiVersion: v1
kind: Secret
metadata: {name: s, namespace: %[1]s, creationTimestamp: null}
stringData: {password: hunter2}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: %[1]s}
spec: {selector: {app: web}, ports: [{name: a, port: 53}, {name: b, port: 53, protocol: UDP}]}
status: {loadBalancer: {}}
---
apiVersion: v1
kind: Pod
metadata: {name: lone, namespace: %[1]s}
spec: {containers: [{name: c, image: lone, resources: {requests: {cpu: 1000m, memory: 1024Mi}}}]}
`, ns)
	requests(t)
	first := deploy(t, manifests)
	first.wants(t, 0, "created     Deployment/"+ns+"/web", "ready       Job/"+ns+"/migrate: complete", "deployed: 10 created; rollouts: 5 ready")
	first.actions(t, "Namespace/"+ns+" created none", "Deployment/"+ns+"/web created ready", "DaemonSet/"+ns+"/agent created ready",
		"StatefulSet/"+ns+"/db created ready", "Job/"+ns+"/migrate created ready", "ConfigMap/"+ns+"/a created none", "ConfigMap/"+ns+"/b created none",
		"Secret/"+ns+"/s created none", "Service/"+ns+"/web created none", "Pod/"+ns+"/lone created ready")
	if first.result.Objects[0].Kind != "Namespace" || !first.result.Changed || first.result.Server != cluster.URL {
		t.Errorf("result: %+v", first.result)
	}

	versions := func() map[string]string {
		all := map[string]string{}
		for _, o := range first.result.Objects {
			if o.Kind == "Job" || o.Kind == "Pod" || o.Kind == "Namespace" {
				continue // their controllers may still be at it
			}
			live := get(t, o.APIVersion, strings.ToLower(o.Kind)+"s", ns, o.Name)
			for _, entry := range live.GetManagedFields() {
				if entry.Manager == "flakeship" {
					all[o.ID()] = fmt.Sprint(live.GetGeneration(), entry.Time, entry.FieldsV1.GetRawString())
				}
			}
			if o.Kind == "ConfigMap" || o.Kind == "Secret" {
				all[o.ID()] += live.GetResourceVersion()
			}
		}
		return all
	}
	before := versions()
	requests(t)
	second := deploy(t, manifests)
	second.wants(t, 0, "deployed: 10 unchanged; rollouts: 5 ready")
	if second.result.Changed || strings.Contains(second.log, "created") {
		t.Errorf("something changed: %+v\n%s", second.result, second.log)
	}
	if diff := cmp.Diff(before, versions()); diff != "" {
		t.Errorf("the second run wrote:\n%s", diff)
	}
	// Two for discovery, one to look at each kind, since there are members of the set and no others to bring along. What the
	// server keeps in another form is known by its mark. None to wait.
	asked := requests(t)
	if want := 2 + 9; len(asked) != want {
		t.Errorf("%d requests, want %d:\n%s", len(asked), want, strings.Join(asked, "\n"))
	}
	if mark := get(t, "v1", "pods", ns, "lone").GetAnnotations()["flakeship.dev/applied"]; mark == "" {
		t.Error("the Pod, whose quantities the server rewrites, has no mark")
	}
	for _, resource := range []string{"configmaps", "secrets"} {
		for _, name := range []string{"a", "s"} {
			o, err := at(t, "v1", resource, ns).Get(t.Context(), name, metav1.GetOptions{})
			if err == nil && len(o.GetAnnotations()) > 0 {
				t.Errorf("%s %s has annotations: %v", resource, name, o.GetAnnotations())
			}
		}
	}
}

// Many unchanged objects cost one LIST for each kind, of the set's members alone.
func TestUnchangedRequests(t *testing.T) {
	ns := namespace(t)
	var manifests string
	for i := range 20 {
		manifests += fmt.Sprintf(configMap, fmt.Sprint("c", i), ns, "1") + deployment(fmt.Sprint("d", i), ns, "web:1")
	}
	deploy(t, manifests, "--wait=false").wants(t, 0)
	requests(t)
	deploy(t, manifests, "--wait=false").wants(t, 0, "deployed: 40 unchanged")
	asked := requests(t)
	if len(asked) != 4 {
		t.Errorf("%d requests, want 4:\n%s", len(asked), strings.Join(asked, "\n"))
	}
	for _, line := range asked {
		if strings.Contains(line, "/namespaces/") && !strings.Contains(line, "labelSelector=applyset.kubernetes.io%2Fpart-of%3Dapplyset-") {
			t.Errorf("not of the set alone: %s", line)
		}
	}
}

// A deploy of an unchanged set, with lock, prune, wait and history, costs as many requests as there are kinds, not objects. What is
// promised is at most twenty for a thousand objects.
func TestUnchangedSetRequests(t *testing.T) {
	ns := namespace(t)
	var manifests string
	for i := range 30 {
		manifests += fmt.Sprintf(configMap, fmt.Sprint("c", i), ns, "1") + deployment(fmt.Sprint("d", i), ns, "web:1") +
			fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: s%d, namespace: %s}\nspec: {ports: [{port: 80}]}\n---\n", i, ns) +
			fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: s%d, namespace: %s}\n---\n", i, ns)
	}
	args := []string{withPrune, "--namespace", ns}
	deploy(t, manifests, args...).wants(t, 0, "deployed: 120 created; rollouts: 30 ready")
	allRequests(t)
	deploy(t, manifests, args...).wants(t, 0, "deployed: 120 unchanged; rollouts: 30 ready")
	// Two for discovery, three for the lock, one for the parent; and one for each kind to compare and one to look for what has left.
	asked := allRequests(t)
	if len(asked) != 2+3+1+4+4 {
		t.Errorf("%d requests, want 14:\n%s", len(asked), strings.Join(asked, "\n"))
	}
}

// Whatever somebody changes behind our back is put right again, and what is not ours is no difference.
func TestDrift(t *testing.T) {
	ns := namespace(t)
	manifests := fmt.Sprintf(configMap, "a", ns, "1") + strings.Replace(deployment("web", ns, "web:1"), "image: 'web:1'", "image: 'web:1', env: [{name: A, value: x}], resources: {limits: {cpu: 1000m}}", 1)
	deploy(t, manifests).wants(t, 0)
	patch := func(resource, name, manager, body string) {
		t.Helper()
		group := map[string]string{"configmaps": "v1", "deployments": "apps/v1"}[resource]
		if _, err := at(t, group, resource, ns).Patch(t.Context(), name, types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{FieldManager: manager}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ resource, name, body, want string }{
		{"configmaps", "a", `{"data":{"a":"2"}}`, "configured  ConfigMap/" + ns + "/a"},
		{"configmaps", "a", `{"data":{"a":null}}`, "configured  ConfigMap/" + ns + "/a"},
		{"configmaps", "a", `{"metadata":{"managedFields":[{}]}}`, "configured  ConfigMap/" + ns + "/a"}, // all records wiped
		{"deployments", "web", `{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"web:2"}]}}}}`, "configured  Deployment/" + ns + "/web"},
		{"deployments", "web", `{"spec":{"template":{"spec":{"containers":[{"name":"main","env":[{"name":"A","value":"y"}]}]}}}}`, "configured  Deployment/" + ns + "/web"},
		{"deployments", "web", `{"spec":{"template":{"spec":{"containers":[{"name":"main","resources":{"limits":{"cpu":"2"}}}]}}}}`, "configured  Deployment/" + ns + "/web"},
		{"deployments", "web", `{"metadata":{"annotations":{"theirs":"x"}},"spec":{"template":{"spec":{"containers":[{"name":"main","env":[{"name":"B","value":"y"}]}]}}}}`, "deployed: 2 unchanged"},
		{"configmaps", "a", `{"data":{"theirs":"2"}}`, "deployed: 2 unchanged"},
		{"deployments", "web", `{"metadata":{"annotations":{"flakeship.dev/applied":"x"}}}`, "deployed: 2 unchanged"},
	} {
		patch(tt.resource, tt.name, "somebody", tt.body)
		deploy(t, manifests, "--conflicts", "force").wants(t, 0, tt.want)
		requests(t)
		deploy(t, manifests, "--conflicts", "force").wants(t, 0, "deployed: 2 unchanged")
		asked := requests(t)
		if len(asked) != 4 && !strings.Contains(tt.body, "flakeship.dev/applied") { // a mark that was forged is not trusted, and not put right
			t.Errorf("after %s: %d requests, want 4:\n%s", tt.body, len(asked), strings.Join(asked, "\n"))
		}
	}
	// Another manager that wants the same as we do changes nothing for us.
	apply(t, "v1", "configmaps", ns, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}, "data": map[string]any{"a": "1"}}, "other")
	deploy(t, manifests).wants(t, 0, "deployed: 2 unchanged")
}

func push(t *testing.T, digest string, names ...string) (path string) {
	t.Helper()
	result := &handoff.PushResult{Header: handoff.Header{Commit: strings.Repeat("c", 40)}, Registry: "registry.test:5000/team", Complete: true}
	for _, name := range names {
		result.Images = append(result.Images, handoff.PushedImage{Name: name, Repository: result.Registry + "/" + name,
			Tag: strings.Repeat("0", 32), Digest: "sha256:" + strings.Repeat(digest, 64)})
	}
	path = filepath.Join(t.TempDir(), "push-result.json")
	if _, err := handoff.WriteFile(path, result); err != nil {
		t.Fatal(err)
	}
	return path
}

// A new digest rolls out what names the image, and nothing else.
func TestImageBump(t *testing.T) {
	ns := namespace(t)
	manifests := deployment("api", ns, "api") + deployment("other", ns, "redis:7") + fmt.Sprintf(configMap, "a", ns, "1")
	deploy(t, manifests, "--push-result", push(t, "1", "api")).wants(t, 0)
	second := deploy(t, manifests, "--push-result", push(t, "2", "api"))
	second.wants(t, 0, "configured  Deployment/"+ns+"/api", "ready       Deployment/"+ns+"/api: 1 pod")
	second.actions(t, "Deployment/"+ns+"/api configured ready", "Deployment/"+ns+"/other unchanged ready", "ConfigMap/"+ns+"/a unchanged none")
	want := "registry.test:5000/team/api:" + strings.Repeat("0", 32) + "@sha256:" + strings.Repeat("2", 64)
	containers, _, _ := unstructured.NestedSlice(get(t, "apps/v1", "deployments", ns, "api").Object, "spec", "template", "spec", "containers")
	if got := containers[0].(map[string]any)["image"]; got != want {
		t.Errorf("the image is %v, want %s", got, want)
	}
	if diff := cmp.Diff([]handoff.PinnedImage{{From: "api", To: want, Count: 1}}, second.result.Images); diff != "" {
		t.Error(diff)
	}
	if second.result.Commit != strings.Repeat("c", 40) || len(second.result.Previous) != 1 {
		t.Errorf("the result does not belong to the push result: %+v", second.result.Header)
	}
}

const definition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.%[1]s.test}
spec:
  group: %[1]s.test
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}%[2]s}}}}}
---
`
const widget = `apiVersion: %[1]s.test/v1
kind: Widget
metadata: {name: w, namespace: %[1]s}
spec: {%[2]s}
---
`

// A definition and an object of it come in one cold input, in any order; later both change together.
func TestDefinitionAndObject(t *testing.T) {
	ns := "definition-and-object"
	space := fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\n", ns)
	manifests := fmt.Sprintf(widget, ns, "size: 1") + space + fmt.Sprintf(definition, ns, "")
	deploy(t, manifests).actions(t, "CustomResourceDefinition/widgets."+ns+".test created none", "Namespace/"+ns+" created none", "Widget/"+ns+"/w created none")
	deploy(t, manifests).wants(t, 0, "deployed: 3 unchanged")

	manifests = fmt.Sprintf(definition, ns, ", color: {type: string}") + fmt.Sprintf(widget, ns, "color: red") + space
	deploy(t, manifests).actions(t, "CustomResourceDefinition/widgets."+ns+".test configured none", "Namespace/"+ns+" unchanged none", "Widget/"+ns+"/w configured none")
	if spec := get(t, ns+".test/v1", "widgets", ns, "w").Object["spec"]; !cmp.Equal(spec, map[string]any{"color": "red"}) {
		t.Errorf("spec: %v", spec)
	}

	bad := deploy(t, fmt.Sprintf(widget, ns, "size: big, colour: red")+fmt.Sprintf(configMap, "a", ns, "1"))
	bad.wants(t, 2, "m.yaml:1: Widget/"+ns+"/w: ", "spec.colour", "nothing was applied")
	if names := configMaps(t, ns); len(names) > 0 {
		t.Errorf("ConfigMaps %v were applied", names)
	}
}

// A field that somebody else owns is refused with its owner's name before anything is written; with force it is taken.
func TestConflict(t *testing.T) {
	ns := namespace(t)
	manifests := fmt.Sprintf(configMap, "a", ns, "1") + fmt.Sprintf(configMap, "b", ns, "1")
	deploy(t, manifests).wants(t, 0)
	_, err := at(t, "v1", "configmaps", ns).Patch(t.Context(), "a", types.MergePatchType, []byte(`{"data":{"a":"2"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	if err != nil {
		t.Fatal(err)
	}
	manifests += fmt.Sprintf(configMap, "c", ns, "1")
	for _, policy := range []string{"safe", "fail"} {
		refused := deploy(t, manifests, "--conflicts", policy)
		refused.wants(t, 4, "m.yaml:1: ConfigMap/"+ns+"/a", ".data.a  kubectl-edit", "nothing was applied", "conflicts: force")
		refused.actions(t, "ConfigMap/"+ns+"/a failed none", "ConfigMap/"+ns+"/b unchanged none", "ConfigMap/"+ns+"/c skipped none")
	}
	deploy(t, manifests, "--conflicts", "force").actions(t, "ConfigMap/"+ns+"/a configured none", "ConfigMap/"+ns+"/b unchanged none", "ConfigMap/"+ns+"/c created none")
	deploy(t, manifests).wants(t, 0, "deployed: 3 unchanged")
}

// The number of replicas that was set through scale stays, also when the image changes.
func TestScaledReplicas(t *testing.T) {
	ns := namespace(t)
	manifest := func(image string) string {
		return strings.Replace(deployment("web", ns, image), "spec:\n", "spec:\n  replicas: 2\n", 1)
	}
	deploy(t, manifest("web:1")).wants(t, 0)
	if _, err := at(t, "apps/v1", "deployments", ns).Patch(t.Context(), "web", types.MergePatchType, []byte(`{"spec":{"replicas":3}}`),
		metav1.PatchOptions{FieldManager: "autoscaler"}, "scale"); err != nil {
		t.Fatal(err)
	}
	scaled := deploy(t, manifest("web:2"))
	scaled.wants(t, 0, "configured  Deployment/"+ns+"/web (spec.replicas is left to autoscaler, which scaled it)", ": 3 pods")
	if n, _, _ := unstructured.NestedInt64(get(t, "apps/v1", "deployments", ns, "web").Object, "spec", "replicas"); n != 3 {
		t.Errorf("%d replicas, want 3", n)
	}
	deploy(t, manifest("web:2")).wants(t, 0, "deployed: 1 unchanged")
	deploy(t, manifest("web:2"), "--conflicts", "fail").wants(t, 4, ".spec.replicas  autoscaler (through scale)")
	deploy(t, manifest("web:2"), "--conflicts", "force").wants(t, 0, ": 2 pods")
}

// All that is wrong with all objects is said at once, and nothing is written.
func TestNothingIsHalfApplied(t *testing.T) {
	ns := namespace(t)
	manifests := fmt.Sprintf(configMap, "good", ns, "1") +
		strings.Replace(deployment("typo", ns, "web"), "spec:\n", "spec:\n  replica: 2\n", 1) +
		fmt.Sprintf(configMap, "lost", "no-such-namespace", "1") +
		"apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: old}\n---\n" +
		strings.Replace(deployment("wrong", ns, "web"), "matchLabels: {app: wrong}", "matchLabels: {app: other}", 1)
	o := deploy(t, manifests, "--namespace", ns)
	o.wants(t, 2, "4 objects are refused",
		"m.yaml:6: Deployment/"+ns+"/typo: .spec.replica: field not declared in schema",
		`m.yaml:16: ConfigMap/no-such-namespace/lost: namespaces "no-such-namespace" not found`,
		"m.yaml:21: Ingress/old: the server knows no kind Ingress in extensions/v1beta1, only in networking.k8s.io/v1", "m.yaml:25: Deployment/"+ns+"/wrong: spec.template.metadata.labels: ")
	o.actions(t, "ConfigMap/"+ns+"/good skipped none", "Deployment/"+ns+"/typo failed none", "ConfigMap/no-such-namespace/lost failed none",
		"Ingress/old failed none", "Deployment/"+ns+"/wrong failed none")
	if names := configMaps(t, ns); len(names) > 0 {
		t.Errorf("ConfigMaps %v were applied", names)
	}
}

// A key that left stringData leaves the Secret.
func TestStringDataLeaves(t *testing.T) {
	ns := namespace(t)
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: %s}\nstringData: {%s}\n"
	deploy(t, fmt.Sprintf(secret, ns, "a: x, b: z")).wants(t, 0)
	deploy(t, fmt.Sprintf(secret, ns, "a: x")).wants(t, 0, "configured")
	want := map[string]any{"a": base64.StdEncoding.EncodeToString([]byte("x"))}
	if diff := cmp.Diff(want, get(t, "v1", "secrets", ns, "s").Object["data"]); diff != "" {
		t.Error(diff)
	}
}

// A run that is killed at any moment leaves nothing that keeps the next one from finishing the work.
func TestKilledThenConverges(t *testing.T) {
	ns := "killed-then-converges"
	manifests := fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\n", ns)
	for i := range 60 {
		manifests += fmt.Sprintf(configMap, fmt.Sprint("c", i), ns, "1")
	}
	for i := range 10 {
		manifests += deployment(fmt.Sprint("d", i), ns, "web:1")
	}
	manifests += fmt.Sprintf(definition, ns, "") + fmt.Sprintf(widget, ns, "size: 1")
	for _, after := range []time.Duration{20, 60, 120, 200, 300, 400} {
		cmd, _ := command(t, manifests)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
	}
	last := deploy(t, manifests)
	last.wants(t, 0, "rollouts: 10 ready")
	if len(last.result.Objects) != 73 {
		t.Errorf("%d objects", len(last.result.Objects))
	}
	deploy(t, manifests).wants(t, 0, "deployed: 73 unchanged; rollouts: 10 ready")
}

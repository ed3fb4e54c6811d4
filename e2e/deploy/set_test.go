package deploy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const withPrune = "--prune=true"

// parent is what the cluster has of the test's set, in the namespace.
func parent(t *testing.T, ns, name string) (labels, annotations map[string]string) {
	t.Helper()
	o := get(t, "v1", "secrets", ns, "flakeship-"+name)
	return o.GetLabels(), o.GetAnnotations()
}

// history names the versions that are kept.
func history(t *testing.T, ns, name string) (names []string) {
	t.Helper()
	list, err := at(t, "v1", "secrets", ns).List(t.Context(), metav1.ListOptions{LabelSelector: "flakeship.dev/set=" + name})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list.Items {
		names = append(names, strings.TrimPrefix(o.GetName(), "flakeship-"+name+"-"))
	}
	return names
}

// What leaves the manifests leaves the cluster, and nothing else does.
func TestPrune(t *testing.T) {
	ns := namespace(t)
	args := []string{withPrune, "--namespace", ns, "--name", "shop"}
	pvc := fmt.Sprintf("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data, namespace: %s}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n---\n", ns)
	note := func(text, annotation string) string {
		return strings.Replace(text, "namespace: "+ns+"}", "namespace: "+ns+", annotations: {flakeship.dev/prune: "+annotation+"}}", 1)
	}
	a, b, c := fmt.Sprintf(configMap, "a", ns, "1"), fmt.Sprintf(configMap, "b", ns, "1"), note(fmt.Sprintf(configMap, "c", ns, "1"), "keep")
	o := deploy(t, a+b+c+pvc+note(strings.Replace(pvc, "name: data", "name: scratch", 1), "delete")+deployment("web", ns, "web:1"), append(args, "--wait=false")...)
	o.wants(t, 0, "6 created")
	// Somebody else's object, and one that somebody labelled by hand.
	labels, annotations := parent(t, ns, "shop")
	apply(t, "v1", "configmaps", ns, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "foreign"}}, "test")
	apply(t, "v1", "configmaps", ns, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "labelled",
		"labels": map[string]any{"applyset.kubernetes.io/part-of": labels["applyset.kubernetes.io/id"]}}}, "test")
	if got, want := annotations["applyset.kubernetes.io/contains-group-kinds"], "ConfigMap,Deployment.apps,PersistentVolumeClaim"; got != want {
		t.Errorf("the set has %s, want %s", got, want)
	}

	o = deploy(t, a, args...)
	o.wants(t, 0, "pruned      ConfigMap/"+ns+"/b", "pruned      Deployment/"+ns+"/web", "pruned      PersistentVolumeClaim/"+ns+"/scratch",
		"kept        ConfigMap/"+ns+"/c: its annotation flakeship.dev/prune says so", "kept        PersistentVolumeClaim/"+ns+"/data: a PersistentVolumeClaim is deleted only when")
	o.actions(t, "ConfigMap/"+ns+"/a unchanged none", "ConfigMap/"+ns+"/b pruned none", "ConfigMap/"+ns+"/c kept none", "Deployment/"+ns+"/web pruned none",
		"PersistentVolumeClaim/"+ns+"/data kept none", "PersistentVolumeClaim/"+ns+"/scratch pruned none")
	if got, want := fmt.Sprint(configMaps(t, ns)), "[a c foreign labelled]"; got != want {
		t.Errorf("ConfigMaps %s, want %s", got, want)
	}
	_, annotations = parent(t, ns, "shop")
	if got, want := annotations["applyset.kubernetes.io/contains-group-kinds"], "ConfigMap,PersistentVolumeClaim"; got != want {
		t.Errorf("the set has %s, want %s", got, want)
	}

	// Another set's objects are neither taken over nor deleted, and too many are not deleted either.
	deploy(t, a, withPrune, "--namespace", ns, "--name", "other").wants(t, 4, "ConfigMap/"+ns+"/a: it belongs to another set, applyset-", "nothing was applied")
	deploy(t, b+strings.Replace(a, "a: '1'", "a: '2'", 1), append(args, "--prune-limit", "0")...).wants(t, 0)
	o = deploy(t, a, append(args, "--prune-limit", "0")...)
	o.wants(t, 2, "1 objects of the set shop are not in the manifests and would be deleted, prune-limit is 0: ConfigMap/"+ns+"/b", "nothing was applied")
	if data := get(t, "v1", "configmaps", ns, "a").Object["data"]; fmt.Sprint(data) != "map[a:2]" {
		t.Errorf("a has %v", data)
	}
}

// The id is kubectl's for such a parent, and kubectl keeps its hands off.
func TestKubectlSeesTheSet(t *testing.T) {
	ns := namespace(t)
	deploy(t, fmt.Sprintf(configMap, "a", ns, "1"), "--namespace", ns, "--name", "shop").wants(t, 0)
	kubectl := func(manifest string, args ...string) string {
		t.Helper()
		line := cluster.Kubectl(append([]string{"apply", "-n", ns, "--server-side", "--prune", "-f", "-"}, args...)...)
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Env = append(cmd.Environ(), "KUBECTL_APPLYSET=true")
		cmd.Stdin = strings.NewReader(manifest)
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := kubectl(fmt.Sprintf(configMap, "b", ns, "1"), "--applyset=flakeship-shop"); !strings.Contains(out, `this ApplySet's parent exists and is managed by "flakeship"`) &&
		!strings.Contains(out, "flakeship") {
		t.Errorf("kubectl says %s", out)
	}
	if names := fmt.Sprint(configMaps(t, ns)); names != "[a]" {
		t.Errorf("after kubectl there are %s", names)
	}

	// And the other way round: kubectl's set is not ours.
	if out := kubectl(fmt.Sprintf(configMap, "k", ns, "1"), "--applyset=flakeship-theirs"); !strings.Contains(out, "serverside-applied") {
		t.Fatalf("kubectl says %s", out)
	}
	deploy(t, fmt.Sprintf(configMap, "z", ns, "1"), "--namespace", ns, "--name", "theirs").wants(t, 4,
		"Secret "+ns+"/flakeship-theirs is the parent of a set that kubectl manages", "nothing was applied")
	deploy(t, fmt.Sprintf(configMap, "k", ns, "1"), "--namespace", ns, "--name", "shop").wants(t, 4, "ConfigMap/"+ns+"/k: it belongs to another set")
	apply(t, "v1", "secrets", ns, map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "flakeship-mine"}}, "test")
	deploy(t, fmt.Sprintf(configMap, "z", ns, "1"), "--namespace", ns, "--name", "mine").wants(t, 4, "Secret "+ns+"/flakeship-mine is there, but is not the parent of a set")
}

// The namespace that the set is kept in may come with the manifests.
func TestOwnNamespace(t *testing.T) {
	ns := strings.ToLower(t.Name())
	manifests := fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\n", ns) + fmt.Sprintf(configMap, "a", ns, "1")
	deploy(t, manifests, withPrune, "--namespace", ns).wants(t, 0, "2 created")
	deploy(t, manifests, withPrune, "--namespace", ns).wants(t, 0, "2 unchanged")
	o := deploy(t, fmt.Sprintf(configMap, "a", ns, "1"), withPrune, "--namespace", ns)
	o.wants(t, 0, "kept        Namespace/"+ns+": a Namespace is deleted only when")
	deploy(t, fmt.Sprintf(configMap, "a", "default", "1"), "--namespace", "nowhere").wants(t, 2, "the namespace the set is to be kept in: does not exist", "Namespace object")
}

// Ten versions are kept, each once.
func TestHistory(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	for i := range 12 {
		o := deploy(t, fmt.Sprintf(configMap, "a", ns, fmt.Sprint(i)), withPrune, "--namespace", ns, "--name", "shop")
		o.wants(t, 0)
		if o.result.History != i+1 {
			t.Errorf("version %d, want %d", o.result.History, i+1)
		}
	}
	deploy(t, fmt.Sprintf(configMap, "a", ns, "11"), withPrune, "--namespace", ns, "--name", "shop").wants(t, 0, "1 unchanged")
	if got, want := fmt.Sprint(history(t, ns, "shop")), "[v10 v11 v12 v3 v4 v5 v6 v7 v8 v9]"; got != want {
		t.Errorf("kept are %s, want %s", got, want)
	}
}

const crd = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]s.%[2]s.test, annotations: {%[3]s}}
spec:
  group: %[2]s.test
  names: {kind: %[4]s, plural: %[1]s}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
`

// A kind whose definition is gone does not break the set, and custom resources go before their definition.
func TestKindIsGone(t *testing.T) {
	ns := namespace(t)
	args := []string{withPrune, "--namespace", ns, "--name", "shop"}
	a := fmt.Sprintf(configMap, "a", ns, "1")
	definition := fmt.Sprintf(crd, "ships", "gone", "", "Ship")
	ship := fmt.Sprintf("apiVersion: gone.test/v1\nkind: Ship\nmetadata: {name: s, namespace: %s}\n---\n", ns)
	deploy(t, a+definition+ship, args...).wants(t, 0, "3 created")
	if err := at(t, "apiextensions.k8s.io/v1", "customresourcedefinitions", "").Delete(t.Context(), "ships.gone.test", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the definition is gone", func() bool {
		_, err := at(t, "apiextensions.k8s.io/v1", "customresourcedefinitions", "").Get(t.Context(), "ships.gone.test", metav1.GetOptions{})
		return err != nil
	})
	deploy(t, a, args...).wants(t, 0, "1 unchanged")

	deploy(t, a+definition+ship, args...).wants(t, 0, "2 created")
	deploy(t, a, args...).wants(t, 0, "pruned      Ship/"+ns+"/s", "kept        CustomResourceDefinition/ships.gone.test: a CustomResourceDefinition is deleted only when")
	definition = strings.Replace(definition, "annotations: {}", "annotations: {flakeship.dev/prune: delete}", 1)
	deploy(t, a+definition+ship, args...).wants(t, 0, "1 created, 1 configured, 1 unchanged")
	o := deploy(t, a, args...)
	o.wants(t, 0, "pruned      Ship/"+ns+"/s")
	if first, then := strings.Index(o.log, "pruned      Ship/"), strings.Index(o.log, "pruned      CustomResourceDefinition/"); first < 0 || then < first {
		t.Errorf("the definition went first:\n%s", o.log)
	}
}

// What is deleted and stays because of a finalizer is said, and found again by the next deploy.
func TestFinalizer(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	args := []string{withPrune, "--namespace", ns, "--name", "shop"}
	a, b := fmt.Sprintf(configMap, "a", ns, "1"), fmt.Sprintf(configMap, "b", ns, "1")
	deploy(t, a+strings.Replace(b, "namespace: "+ns, "finalizers: [test.dev/hold], namespace: "+ns, 1), args...).wants(t, 0)
	o := deploy(t, a, append(args, "--timeout", "8s")...)
	if o.code == 0 || !strings.Contains(o.log, "ConfigMap/"+ns+"/b") {
		t.Errorf("exit code %d:\n%s", o.code, o.log)
	}
	apply(t, "v1", "configmaps", ns, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "b"}}, "flakeship")
	deploy(t, a, args...).wants(t, 0)
	if names := fmt.Sprint(configMaps(t, ns)); names != "[a]" {
		t.Errorf("there are %s", names)
	}
}

// The parent is right before anything of a new kind or in a new namespace is written: whatever happens then, it is found again.
func TestSupersetBeforeExactAfter(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	args := []string{withPrune, "--namespace", ns, "--name", "shop"}
	deploy(t, fmt.Sprintf(configMap, "a", ns, "1"), args...).wants(t, 0)
	deploy(t, fmt.Sprintf(configMap, "a", ns, "1")+deployment("web", ns, "bad-pull"), args...).wants(t, 5)
	_, notes := parent(t, ns, "shop")
	if got, want := notes["applyset.kubernetes.io/contains-group-kinds"], "ConfigMap,Deployment.apps"; got != want {
		t.Errorf("after a failure the set has %s, want %s", got, want)
	}
	deploy(t, fmt.Sprintf(configMap, "a", ns, "1"), args...).wants(t, 0, "pruned      Deployment/"+ns+"/web")
	_, notes = parent(t, ns, "shop")
	if got, want := notes["applyset.kubernetes.io/contains-group-kinds"], "ConfigMap"; got != want {
		t.Errorf("after all went well the set has %s, want %s", got, want)
	}
}

// start runs deploy-manifests and returns while it does. The log may be read once end has returned the exit code.
func startDeploy(t *testing.T, manifests string, args ...string) (cmd *exec.Cmd, log *bytes.Buffer, end func() int) {
	t.Helper()
	cmd, _ = command(t, manifests, args...)
	log = new(bytes.Buffer)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd, log, func() int {
		cmd.Wait()
		return cmd.ProcessState.ExitCode()
	}
}

// record is what the set says was deployed, or is being.
func record(t *testing.T, ns, name, which string) map[string]any {
	t.Helper()
	_, notes := parent(t, ns, name)
	var state map[string]map[string]any
	if err := json.Unmarshal([]byte(notes["flakeship.dev/state"]), &state); err != nil {
		t.Fatal(err)
	}
	return state[which]
}

func exists(t *testing.T, groupVersion, resource, ns, name string) *unstructured.Unstructured {
	t.Helper()
	o, err := at(t, groupVersion, resource, ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return o
}

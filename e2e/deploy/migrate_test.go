package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// kubectl runs kubectl on manifests.
func kubectl(t *testing.T, manifests string, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "m.yaml")
	if err := os.WriteFile(file, []byte(manifests), 0o644); err != nil {
		t.Fatal(err)
	}
	line := cluster.Kubectl(append(args, "-f", file)...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// asHelm creates an object as Helm 3 does.
func asHelm(t *testing.T, ns, manifests string) {
	t.Helper()
	for text := range strings.SplitSeq(manifests, "---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		if o == nil {
			continue
		}
		u := &unstructured.Unstructured{Object: o}
		if _, err := at(t, u.GetAPIVersion(), strings.ToLower(u.GetKind())+"s", ns).Create(t.Context(), u, metav1.CreateOptions{FieldManager: "helm"}); err != nil {
			t.Fatal(err)
		}
	}
}

// What kubectl apply or Helm brought is taken over by the first deploy: no conflict, and what the manifest no longer has goes.
// The members of a set are found too, though nothing marks them yet.
func TestTakeover(t *testing.T) {
	ns := namespace(t)
	for name, before := range map[string]func(manifests string){
		"kubectl": func(manifests string) { kubectl(t, manifests, "apply") },
		"helm":    func(manifests string) { asHelm(t, ns, manifests) },
	} {
		for _, label := range []string{"", "labels: {applyset.kubernetes.io/part-of: takeover}, "} {
			t.Run(name+label, func(t *testing.T) {
				a, web := "a-"+name+fmt.Sprint(len(label)), "web-"+name+fmt.Sprint(len(label))
				old := strings.Replace(fmt.Sprintf(configMap, a, ns, "1"), "{a: '1'}", "{a: '1', gone: x}", 1) +
					strings.Replace(deployment(web, ns, "web:1"), "image: 'web:1'", "image: 'web:1', env: [{name: GONE, value: x}]", 1)
				before(old)
				manifests := strings.ReplaceAll(fmt.Sprintf(configMap, a, ns, "2")+fmt.Sprintf(configMap, a+"new", ns, "2")+deployment(web, ns, "web:2"), "metadata: {name", "metadata: {"+label+"name")
				refused := deploy(t, manifests, "--conflicts", "fail")
				refused.wants(t, 4, "somebody else owns", "nothing was applied")
				if !strings.Contains(refused.log, "kubectl-client-side-apply") && !strings.Contains(refused.log, "helm") {
					t.Errorf("no owner is named:\n%s", refused.log)
				}
				first := deploy(t, manifests)
				first.wants(t, 0, "configured  ConfigMap/"+ns+"/"+a+" (taken over from ", "configured  Deployment/"+ns+"/"+web+" (taken over from ")

				live := get(t, "v1", "configmaps", ns, a)
				if data := fmt.Sprint(live.Object["data"]); data != "map[a:2]" {
					t.Errorf("data is %s", data)
				}
				if _, ok := live.GetAnnotations()["kubectl.kubernetes.io/last-applied-configuration"]; ok {
					t.Error("the annotation of kubectl is still there")
				}
				for _, entry := range live.GetManagedFields() {
					if entry.Manager != "flakeship" {
						t.Errorf("%s owns %s", entry.Manager, entry.FieldsV1.GetRawString())
					}
				}
				containers, _, _ := unstructured.NestedSlice(get(t, "apps/v1", "deployments", ns, web).Object, "spec", "template", "spec", "containers")
				if c := containers[0].(map[string]any); c["env"] != nil || c["image"] != "web:2" {
					t.Errorf("container: %v", c)
				}
				requests(t)
				deploy(t, manifests).wants(t, 0, "deployed: 3 unchanged")
				if asked := requests(t); len(asked) > 5 {
					t.Errorf("%d requests:\n%s", len(asked), strings.Join(asked, "\n"))
				}
			})
		}
	}
}

// What somebody applies on purpose, as we do, is not taken: neither by kubectl's server-side apply nor by Helm 4.
func TestNoTakeover(t *testing.T) {
	ns := namespace(t)
	kubectl(t, fmt.Sprintf(configMap, "a", ns, "1"), "apply", "--server-side")
	apply(t, "v1", "configmaps", ns, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "b"}, "data": map[string]any{"a": "1"}}, "helm")
	deploy(t, fmt.Sprintf(configMap, "a", ns, "2")+fmt.Sprintf(configMap, "b", ns, "2")).wants(t, 4, ".data.a  kubectl", ".data.a  helm", "nothing was applied")
	// Nor is it once the object is ours: then it is two who deploy the same.
	c := strings.Replace(fmt.Sprintf(configMap, "c", ns, "1"), "{a: '1'}", "{a: '1', b: x}", 1)
	deploy(t, c).wants(t, 0)
	kubectl(t, strings.Replace(c, "a: '1'", "a: '3'", 1), "apply")
	deploy(t, strings.Replace(c, "a: '1'", "a: '2'", 1)).wants(t, 4, ".data.a  kubectl-client-side-apply")
}

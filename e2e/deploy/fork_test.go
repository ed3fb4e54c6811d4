package deploy_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pull request from a fork sees what its manifests would change, and changes nothing, whatever the kubeconfig allows: one that may
// only read, which does not even get dry runs, and that of an administrator.
func TestForkOnlyLooks(t *testing.T) {
	reader, err := cluster.User("onlooker")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []struct{ name, kubeconfig string }{{"reader", reader}, {"administrator", cluster.Kubeconfig}} {
		t.Run(kind.name, func(t *testing.T) {
			ns := namespace(t)
			deploy(t, fmt.Sprintf(configMap, "a", ns, "1")+fmt.Sprintf(configMap, "same", ns, "1")+deployment("web", ns, "web:1"), "--namespace", ns).wants(t, 0)
			view := rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "view"}, Rules: []rbacv1.PolicyRule{rule("", "get list watch", "configmaps"), rule("apps", "get list watch", "deployments")}}
			binding := rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "view"}, RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: "view"},
				Subjects: []rbacv1.Subject{{Kind: "User", Name: "onlooker"}}}
			if _, err := client.RbacV1().Roles(ns).Create(t.Context(), &view, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := client.RbacV1().RoleBindings(ns).Create(t.Context(), &binding, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			requests(t)

			manifests := fmt.Sprintf(configMap, "a", ns, "2") + fmt.Sprintf(configMap, "same", ns, "1") + fmt.Sprintf(configMap, "new", ns, "1") + deployment("web", ns, "web:2")
			cmd, out := command(t, manifests, "--kubeconfig", kind.kubeconfig, "--namespace", ns, "--prune")
			event := filepath.Join(filepath.Dir(out), "event.json")
			if err := os.WriteFile(event, []byte(`{"pull_request": {"head": {"repo": {"id": 2, "full_name": "stranger/shop"}}, "base": {"repo": {"id": 1}}}}`), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd.Env = append(cmd.Env, "RUNNER_TEMP="+filepath.Dir(out), "GITHUB_EVENT_NAME=pull_request", "GITHUB_EVENT_PATH="+event)
			var stdout bytes.Buffer
			cmd.Stdout = &stdout
			o := finish(t, cmd, out)
			o.wants(t, 0, "notice: this pull request comes from stranger/shop", "left out: every write to ",
				"-  a: \"1\"\n+  a: \"2\"\n", "+++ deploy/ConfigMap/"+ns+"/new\n", "-      - image: web:1\n", "+      - image: web:2\n", "restarts    Deployment/"+ns+"/web", "nothing was written")
			o.actions(t, "ConfigMap/"+ns+"/a configured none", "ConfigMap/"+ns+"/same unchanged none", "ConfigMap/"+ns+"/new created none", "Deployment/"+ns+"/web configured none")
			if strings.Contains(o.log, "/same\n") || strings.Count(o.log, "\n-") > 8 {
				t.Errorf("the diff shows more than what changes:\n%s", o.log)
			}
			for _, line := range requests(t) {
				verb, _, _ := strings.Cut(line, " ")
				if strings.Contains("create update patch delete", verb) && !strings.Contains(line, "dryRun=All") && !strings.Contains(line, "selfsubject") {
					t.Errorf("a write: %s", line)
				}
			}
			if names := configMaps(t, ns); len(names) != 2 {
				t.Errorf("ConfigMaps are now %v", names)
			}
		})
	}
}

package deploy_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A rollback is over when what ran before runs again. When it does not, or not within the rollback's own time, that is said, and
// what the version before kept secret stays secret.
func TestRollbackDoesNotRun(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ limit, wants string }{
		"fails":    {"5m", "failed      Deployment/"},
		"is-late":  {"9s", "timeout     Deployment/"}, // less than a quota is given to become free
		"recovers": {"5m", "rolled back to commit aaaaaaaaaaaa"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := namespace(t)
			args := []string{withPrune, "--namespace", ns, "--name", "shop", "--on-failure=rollback", "--rollback-timeout", tt.limit}
			set := func(image, password string) string { // of which no pod is left when another version comes
				secret := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: %s}\nstringData: {password: %s}\n---\n", ns, password)
				return secret + strings.Replace(deployment("web", ns, image), "spec:\n", "spec:\n  strategy: {type: Recreate}\n", 1)
			}
			good := set("web:1", "first-password")
			deployIn(t, runOf(1, "a"), good, args...).wants(t, 0)
			if name != "recovers" { // an event will quote the quota's name
				apply(t, "v1", "resourcequotas", ns, map[string]any{"apiVersion": "v1", "kind": "ResourceQuota", "metadata": map[string]any{"name": "first-password"},
					"spec": map[string]any{"hard": map[string]any{"pods": "0"}}}, "test")
			}
			o := deployIn(t, runOf(2, "b"), set("bad-pull", "second-password"), args...)
			o.wants(t, 5, "rolling back to commit aaaaaaaaaaaa", tt.wants)
			if strings.Contains(o.log, "-password") {
				t.Errorf("the log shows a secret:\n%s", o.log)
			}
			r := o.result.Rollback
			if name == "recovers" {
				if r == nil || !r.Done {
					t.Errorf("rollback: %+v", r)
				}
				return
			}
			if r == nil || r.Done || !strings.Contains(r.Message, "Deployment/"+ns+"/web: its pods cannot be created: ") || strings.Contains(r.Message, "-password") {
				t.Errorf("rollback: %+v", r)
			}
			o.wants(t, 5, "the rollback failed too: Deployment/"+ns+"/web: ", "exceeded quota: ***")
			if err := at(t, "v1", "resourcequotas", ns).Delete(t.Context(), "first-password", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			deployIn(t, runOf(3, "a"), good, args...).wants(t, 0, "rollouts: 1 ready")
		})
	}
}

// A rollback deletes what the run created, but nothing that data would go with.
func TestRollbackKeepsData(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	args := []string{withPrune, "--namespace", ns, "--name", "shop", "--on-failure=rollback"}
	pvc := fmt.Sprintf("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data, namespace: %s}\nspec: {storageClassName: none, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n---\n", ns)
	more := fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s-more}\n---\n", ns)
	o := deploy(t, pvc+more+fmt.Sprintf(configMap, "a", ns, "1")+deployment("web", ns, "bad-pull"), args...)
	o.wants(t, 5, "deleted     ConfigMap/"+ns+"/a", "deleted     Deployment/"+ns+"/web", "kept        PersistentVolumeClaim/"+ns+"/data: ", "kept        Namespace/"+ns+"-more: ",
		"rolled back to what was there before the first deploy")
	if exists(t, "v1", "persistentvolumeclaims", ns, "data") == nil || exists(t, "v1", "namespaces", "", ns+"-more") == nil || exists(t, "apps/v1", "deployments", ns, "web") != nil {
		t.Errorf("not what was to be kept:\n%s", o.log)
	}
	_, notes := parent(t, ns, "shop") // still of the set: the next prune finds them
	if got := notes["applyset.kubernetes.io/contains-group-kinds"]; !strings.Contains(got, "Namespace") || !strings.Contains(got, "PersistentVolumeClaim") {
		t.Errorf("the set has %s", got)
	}
}

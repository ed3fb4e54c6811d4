package deploy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Containers that crash, however they do, are red with the reason and their last words, secrets masked.
func TestCrashes(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	secret := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: %s}\nstringData: {password: hunter2-password}\n---\n", ns)
	for name, tt := range map[string]struct {
		manifest func(name string) string
		want     string
	}{
		"again": {func(name string) string { return deployment(name, ns, "crash-again") }, "container main of pod again-"},
		"oom":   {func(name string) string { return deployment(name, ns, "oom-loop") }, "CrashLoopBackOff, it ended with exit code 137 (OOMKilled) after 2 restarts"},
		"init": {func(name string) string {
			return strings.Replace(deployment(name, ns, "web"), "spec: {containers:", "spec: {initContainers: [{name: setup, image: init-crash}], containers:", 1)
		}, "container setup of pod init-"},
		"db": {func(name string) string { return fmt.Sprintf(workload, "StatefulSet", name, ns, "crash-loop") }, "CrashLoopBackOff, it ended with exit code 2 after 4 restarts"},
	} {
		o := redInTime(t, ns, name, crashLoopTime, func(name string) string { return secret + tt.manifest(name) },
			tt.want, "panic: no route to the database", "connecting to the database as ***", "the log of its last run of container ")
		if strings.Contains(o.log, "hunter2") {
			t.Errorf("%s: the log shows a secret:\n%s", name, o.log)
		}
		if strings.Contains(o.result.Objects[1].Message, "hunter2") {
			t.Errorf("%s: the result shows a secret: %+v", name, o.result.Objects)
		}
	}
}

// What recovers was no failure: a pull that failed twice, one crash, a pod that is slow to become ready, one that had to wait
// for a node.
func TestRecovers(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	waits := strings.Replace(deployment("waits", ns, "web"), "spec: {containers:", "spec: {nodeSelector: {disk: "+ns+"}, containers:", 1)
	manifests := deployment("flaky", ns, "flaky-pull") + deployment("once", ns, "crash-once") + deployment("slow", ns, "slow-start") + waits
	time.AfterFunc(5*time.Second, func() {
		node := map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": "node-1", "labels": map[string]any{"disk": ns}}}
		apply(t, "v1", "nodes", "", node, "test")
	})
	o := deploy(t, manifests)
	o.wants(t, 0, "waiting     Deployment/"+ns+"/slow: 1 of 1 pods updated, 0 available; container main of pod slow-", "4 ready")
}

// A new version is fine while the old one crashes: only pods of the new ReplicaSet are looked at.
func TestOldCrashes(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	both := func(image string) string {
		return strings.Replace(deployment("api", ns, image), "spec:\n", "spec:\n  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}\n", 1)
	}
	deploy(t, both("crash-loop")).wants(t, 5)
	deploy(t, both("slow-start")).wants(t, 0, "ready       Deployment/"+ns+"/api: 1 pod")
}

// Policies that refuse pods are named, where only an event tells, too.
func TestPodsRefused(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, "v1", "namespaces", "", map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": ns,
		"labels": map[string]any{"pod-security.kubernetes.io/enforce": "restricted"}}}, "test")
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		o := deploy(t, fmt.Sprintf(workload, kind, "web", ns, "web:1"), "--timeout", "60s")
		o.wants(t, 5, kind+"/"+ns+"/web: its pods cannot be created: ", `violates PodSecurity "restricted:latest"`)
	}
}

// Objects without pods are waited for as well: custom resources by their conditions, claims, autoscalers.
func TestConditions(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	definition := strings.Replace(fmt.Sprintf(crd, "wishes", "cond", "", "Wish"), "storage: true,", "storage: true, subresources: {status: {}},", 1)
	wish := fmt.Sprintf("apiVersion: cond.test/v1\nkind: Wish\nmetadata: {name: w, namespace: %s}\nspec: {n: %%d}\n---\n", ns)
	deploy(t, definition+fmt.Sprintf(wish, 1)).wants(t, 0)
	status := func(generation int64, ready string) {
		o := get(t, "cond.test/v1", "wishes", ns, "w")
		o.Object["status"] = map[string]any{"observedGeneration": generation, "conditions": []any{map[string]any{"type": "Ready", "status": ready, "message": "not granted"}}}
		if _, err := at(t, "cond.test/v1", "wishes", ns).UpdateStatus(t.Context(), o, metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
	}
	status(1, "True")
	_, log, end := startDeploy(t, definition+fmt.Sprintf(wish, 2))
	await(t, "the change is there", func() bool { return get(t, "cond.test/v1", "wishes", ns, "w").GetGeneration() == 2 })
	time.Sleep(time.Second) // time to be taken in by the old status
	status(2, "False")
	time.Sleep(500 * time.Millisecond)
	status(2, "True")
	if code := end(); code != 0 || !strings.Contains(log.String(), "ready       Wish/"+ns+"/w: ready") {
		t.Errorf("exit code %d:\n%s", code, log)
	}
	status(2, "False")
	deploy(t, fmt.Sprintf(wish, 2), "--timeout", "6s").wants(t, 6, "Wish/"+ns+"/w: it is not ready: not granted")

	class := fmt.Sprintf("apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: %s}\nprovisioner: none.test\nvolumeBindingMode: WaitForFirstConsumer\n---\n", ns)
	pvc := "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: %s, namespace: %s}\nspec: {storageClassName: '%s', accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n---\n"
	o := deploy(t, class+fmt.Sprintf(pvc, "later", ns, ns), "--timeout", "20s")
	o.wants(t, 0)
	deploy(t, fmt.Sprintf(pvc, "never", ns, "none"), "--timeout", "6s").wants(t, 6, "PersistentVolumeClaim/"+ns+"/never: it is not bound to a volume")

	hpa := fmt.Sprintf("apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: h, namespace: %s}\nspec: {maxReplicas: 2, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}\n---\n", ns)
	deploy(t, hpa+deployment("web", ns, "web:1"), "--timeout", "60s").wants(t, 0, "ready       HorizontalPodAutoscaler/"+ns+"/h: able to scale")
}

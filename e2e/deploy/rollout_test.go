package deploy_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/handoff"
)

// What cannot run is red within seconds, with the container, the reason and the last event.
func TestFailsFast(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	tests := []struct{ name, manifest, want string }{
		{"bad-pull", deployment("api", ns, "reg.test/bad-pull:1"),
			`Deployment/` + ns + `/api: container main of pod api-`},
		{"bad-pull in a StatefulSet", fmt.Sprintf(workload, "StatefulSet", "db", ns, "bad-pull"), "container main of pod db-0: ImagePullBackOff: "},
		{"bad-pull in a DaemonSet", fmt.Sprintf(workload, "DaemonSet", "agent", ns, "bad-pull"), "container main of pod agent-"},
		{"bad-pull in a Job", fmt.Sprintf(job, "pull", ns, "", "bad-pull"), "container main of pod pull-"},
		{"crash-loop", deployment("loop", ns, "crash-loop"), "CrashLoopBackOff, it ended with exit code 2 after 4 restarts"},
		{"failed Job", fmt.Sprintf(job, "run", ns, "", "bad-job"), "Job/" + ns + "/run: the Job failed: Job has reached the specified backoff limit"},
	}
	for _, tt := range tests {
		o := deploy(t, tt.manifest+deployment("fine", ns, "web"))
		o.wants(t, 5, tt.want, "failed      ", "kubectl -n "+ns+" describe ")
		if strings.HasPrefix(tt.name, "bad-pull") {
			o.wants(t, 5, "manifest unknown")
		}
		t.Logf("%s: red after %.1f s", tt.name, o.seconds)
		if o.seconds > 60 { // the deadline these must not wait for is ten times that
			t.Errorf("%s: red after %.1f s", tt.name, o.seconds)
		}
		for _, object := range o.result.Objects {
			if object.Name == "fine" && object.Action == "failed" {
				t.Errorf("%s: %+v", tt.name, object)
			}
			if object.Name != "fine" && (object.Rollout != "failed" || object.Message == "") {
				t.Errorf("%s: %+v", tt.name, object)
			}
		}
	}
}

// What is merely slow runs into the timeout, with what it waits for.
func TestTimeout(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	o := deploy(t, deployment("slow", ns, "never-ready")+deployment("fine", ns, "web"), "--timeout", "12s")
	o.wants(t, 6, "Deployment/"+ns+"/slow: 1 of 1 pods updated, 0 available; container main of pod slow-", "runs but is not ready")
	o.actions(t, "Deployment/"+ns+"/slow created timeout", "Deployment/"+ns+"/fine created ready")

	big := strings.Replace(deployment("big", ns, "web"), "image: 'web'", "image: web, resources: {requests: {cpu: 1000}}", 1)
	deploy(t, big, "--timeout", "6s").wants(t, 6, "is not scheduled: 0/2 nodes are available")

	deploy(t, big, "--wait", "false").wants(t, 0, "deployed: 1 unchanged")
}

// Pods of an older version may do what they want: only those of the new one count.
func TestOldPodsDoNotCount(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	slow := func(image string) string {
		// The old pod stays until the new one is available.
		return strings.Replace(deployment("api", ns, image), "spec:\n", "spec:\n  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}\n  minReadySeconds: 1\n", 1)
	}
	deploy(t, slow("crash-loop")).wants(t, 5)
	deploy(t, slow("web:1")).wants(t, 0, "ready       Deployment/"+ns+"/api: 1 pod")
	deploy(t, slow("bad-pull")).wants(t, 5)
	deploy(t, slow("web:1")).wants(t, 0)
	for _, kind := range []string{"StatefulSet", "DaemonSet"} {
		parallel := func(image string) string {
			text := fmt.Sprintf(workload, kind, "x", ns, image)
			if kind == "StatefulSet" { // a StatefulSet waits for its broken pods for ever, unless told otherwise
				text = strings.Replace(text, "spec:\n", "spec:\n  podManagementPolicy: Parallel\n  replicas: 2\n", 1)
			}
			return text
		}
		deploy(t, parallel("web:1")).wants(t, 0)
		deploy(t, parallel("crash-loop")).wants(t, 5, "CrashLoopBackOff")
	}
}

// What does not roll out by itself is said, not called ready.
func TestNotByItself(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	paused := func(image string) string {
		return strings.Replace(deployment("paused", ns, image), "spec:\n", "spec:\n  paused: true\n", 1)
	}
	o := deploy(t, paused("web:1"))
	o.wants(t, 0, "warning: Deployment/"+ns+"/paused: it is paused")
	o.actions(t, "Deployment/"+ns+"/paused created none")

	onDelete := func(image string) string {
		return strings.Replace(fmt.Sprintf(workload, "StatefulSet", "db", ns, image), "spec:\n", "spec:\n  updateStrategy: {type: OnDelete}\n", 1)
	}
	deploy(t, onDelete("web:1")).wants(t, 0)
	deploy(t, onDelete("web:2")).wants(t, 0, "warning: StatefulSet/"+ns+"/db: its update strategy is OnDelete: 1 of 1 pods run the old version")
}

// Pods that a quota does not allow are named as the reason, though there is no pod to look at.
func TestQuota(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	quota := fmt.Sprintf("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none, namespace: %s}\nspec: {hard: {pods: 0}}\n---\n", ns)
	o := deploy(t, quota)
	o.wants(t, 0)
	o = deploy(t, quota+deployment("web", ns, "web:1"), "--timeout", "30s")
	o.wants(t, 5, "Deployment/"+ns+"/web: its pods cannot be created: ", "exceeded quota: none")
}

// A cancelled job ends at once, with the code for it and a result that says what was applied.
func TestCancelled(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	cmd, out := command(t, deployment("slow", ns, "never-ready"))
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for count(t, "v1", "pods", ns) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	result := new(handoff.DeployResult)
	if err := handoff.Load(out, result); err != nil {
		t.Fatal(err)
	}
	outcome{code: cmd.ProcessState.ExitCode(), log: log.String()}.wants(t, 130, "error: cancelled: rollouts were still awaited: ", "hint: run it again")
	outcome{result: result}.actions(t, "Deployment/"+ns+"/slow created none")
}

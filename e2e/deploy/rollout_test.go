package deploy_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flakeship/flakeship/internal/handoff"
)

// What is said of how soon a step is red: so long after the first warning about what cannot run, it has ended.
const (
	badImageTime  = 5 * time.Second
	crashLoopTime = 15 * time.Second
)

// redInTime deploys manifest(name), which cannot run, and fails the test unless deploy-manifests has ended with the reason no later
// than limit after the first warning about name and its pods. A machine that is busy with other things gets three attempts, each of
// them with a name of its own that begins with name.
func redInTime(t *testing.T, ns, name string, limit time.Duration, manifest func(name string) string, texts ...string) (o outcome) {
	t.Helper()
	var took []time.Duration
	for attempt := 1; attempt <= 3 && (attempt == 1 || slices.Min(took) > limit); attempt++ {
		one := fmt.Sprintf("%s-%d", name, attempt)
		o = deploy(t, manifest(one))
		end := time.Now()
		o.wants(t, 5, append(texts, "failed      ", "/"+ns+"/"+one+": ", "kubectl -n "+ns+" describe ")...)
		took = append(took, end.Sub(firstWarning(t, ns, one)))
	}
	t.Logf("%s: red after %s", name, took)
	if slices.Min(took) > limit {
		t.Errorf("%s: red %s after the first warning, want %s", name, took, limit)
	}
	return o
}

// firstWarning is when the first warning was given about what is called name, or has a name that begins so. The server keeps whole
// seconds: it was up to one later.
func firstWarning(t *testing.T, ns, name string) time.Time {
	t.Helper()
	events, err := client.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "type=Warning"})
	if err != nil {
		t.Fatal(err)
	}
	var first time.Time
	for _, e := range events.Items {
		if about := e.InvolvedObject.Name; (about == name || strings.HasPrefix(about, name+"-")) && (first.IsZero() || e.FirstTimestamp.Time.Before(first)) {
			first = e.FirstTimestamp.Time
		}
	}
	if first.IsZero() {
		t.Fatalf("no warning, or one without a time, is about %s: %+v", name, events.Items)
	}
	return first
}

// What cannot run is red within seconds, with the container, the reason, the last event and the log's last lines.
func TestFailsFast(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	for _, tt := range []struct {
		kind, name, image string
		limit             time.Duration
		wants             []string
	}{
		{"Deployment", "api", "reg.test/bad-pull:1", badImageTime, []string{"container main of pod api-", "ImagePullBackOff: ", "manifest unknown"}},
		{"StatefulSet", "db", "bad-pull", badImageTime, []string{"container main of pod db-", "ImagePullBackOff: ", "manifest unknown"}},
		{"DaemonSet", "agent", "bad-pull", badImageTime, []string{"container main of pod agent-", "ImagePullBackOff: ", "manifest unknown"}},
		{"Job", "pull", "bad-pull", badImageTime, []string{"container main of pod pull-", "ImagePullBackOff: ", "manifest unknown"}},
		{"Deployment", "loop", "crash-loop", crashLoopTime, []string{"CrashLoopBackOff, it ended with exit code 2 after 4 restarts", "|     panic: no route to the database\n"}},
		{"Job", "run", "bad-job", crashLoopTime, []string{"the Job failed: Job has reached the specified backoff limit"}},
	} {
		o := redInTime(t, ns, tt.name, tt.limit, func(name string) string {
			text := fmt.Sprintf(workload, tt.kind, name, ns, tt.image)
			if tt.kind == "Job" {
				text = fmt.Sprintf(job, name, ns, "", tt.image)
			}
			return text + deployment("fine", ns, "web")
		}, tt.wants...)
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

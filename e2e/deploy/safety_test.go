package deploy_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flakeship/flakeship/internal/handoff"
)

// runOf is the environment of a runner's run.
func runOf(number int, commit string) []string {
	return []string{"GITHUB_SERVER_URL=https://git.test", "GITHUB_REPOSITORY=team/shop", "GITHUB_WORKFLOW=ship", fmt.Sprintf("GITHUB_RUN_NUMBER=%d", number),
		fmt.Sprintf("GITHUB_RUN_ID=10%d", number), "GITHUB_SHA=" + strings.Repeat(commit, 40)}
}

func value(t *testing.T, ns, name string) string {
	t.Helper()
	o := exists(t, "v1", "configmaps", ns, name)
	if o == nil {
		return "gone"
	}
	text, _, _ := unstructured.NestedString(o.Object, "data", "a")
	return text
}

// An older commit does not take the place of a newer one, unless it is told to.
func TestStaleCommit(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	with := func(number int, commit string, more ...string) outcome {
		return deployIn(t, runOf(number, commit), fmt.Sprintf(configMap, "a", ns, commit), append([]string{"--namespace", ns}, more...)...)
	}
	with(1, "a").wants(t, 0)
	with(3, "c").wants(t, 0)
	o := with(2, "b")
	o.wants(t, 4, "commit bbbbbbbbbbbb (https://git.test/team/shop/actions/runs/102) is older than commit cccccccccccc (https://git.test/team/shop/actions/runs/103), which was deployed at ",
		"allow-older: true")
	if got := value(t, ns, "a"); got != "c" {
		t.Errorf("a is %s", got)
	}
	with(1, "c").wants(t, 0) // the same commit again
	with(2, "b", "--allow-older").wants(t, 0, "1 configured")
	with(4, "d").wants(t, 0)
}

// Two runs at once end as if one had come after the other, and in the order of their commits.
func TestRace(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	manifests := func(n int) string {
		text := ""
		for i := range 20 {
			text += fmt.Sprintf(configMap, fmt.Sprintf("c%d", i), ns, fmt.Sprint(n))
		}
		return text + fmt.Sprintf(configMap, fmt.Sprintf("only%d", n), ns, "x")
	}
	type result struct {
		number, code int
		log          string
	}
	results := make(chan result, 4)
	for n := 1; n <= 4; n++ {
		cmd, _ := command(t, manifests(n), withPrune, "--namespace", ns)
		cmd.Env = append(cmd.Env, runOf(n, fmt.Sprint(n))...)
		log := new(strings.Builder)
		cmd.Stderr = log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			cmd.Wait()
			results <- result{n, cmd.ProcessState.ExitCode(), log.String()}
		}()
	}
	for range 4 {
		if r := <-results; r.code != 0 && !(r.code == 4 && strings.Contains(r.log, "is older than")) || r.number == 4 && r.code != 0 {
			t.Errorf("run %d ended with %d:\n%s", r.number, r.code, r.log)
		}
	}
	for i := range 20 {
		if got := value(t, ns, fmt.Sprintf("c%d", i)); got != "4" {
			t.Errorf("c%d is %s", i, got)
		}
	}
	if n := len(configMaps(t, ns)); n != 21 {
		t.Errorf("%d ConfigMaps, want 21: %v", n, configMaps(t, ns))
	}
}

// A deploy that does not run is undone: what it changed is as before, what it created is gone, what it would have pruned is there.
func TestRollback(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	args := []string{withPrune, "--namespace", ns, "--name", "shop", "--on-failure=rollback"}
	random := make([]byte, 600<<10) // too much for one Secret of the history
	rand.Read(random)
	big := fmt.Sprintf(configMap, "big1", ns, base64.StdEncoding.EncodeToString(random)) + fmt.Sprintf(configMap, "big2", ns, base64.StdEncoding.EncodeToString(random[1:]))
	good := big + fmt.Sprintf(configMap, "a", ns, "1") + fmt.Sprintf(configMap, "b", ns, "1") + deployment("web", ns, "web:1") + fmt.Sprintf(job, "migrate", ns, "", "migrate:1")
	deployIn(t, runOf(1, "a"), good, args...).wants(t, 0)
	ran := get(t, "batch/v1", "jobs", ns, "migrate").GetUID()

	bad := fmt.Sprintf(configMap, "a", ns, "2") + fmt.Sprintf(configMap, "c", ns, "1") + deployment("web", ns, "bad-pull") + deployment("extra", ns, "web:1")
	o := deployIn(t, runOf(2, "b"), bad, args...)
	o.wants(t, 5, "rolling back to commit aaaaaaaaaaaa", "configured  Deployment/"+ns+"/web", "deleted     ConfigMap/"+ns+"/c", "deleted     Deployment/"+ns+"/extra",
		"ready       Deployment/"+ns+"/web", "rolled back to commit aaaaaaaaaaaa (https://git.test/team/shop/actions/runs/101), in ", "manifest unknown")
	if r := o.result.Rollback; r == nil || !r.Done || r.History != 1 || r.Commit != strings.Repeat("a", 40) || len(r.Objects) != 4 {
		t.Errorf("%+v", r)
	}
	if a, b, c := value(t, ns, "a"), value(t, ns, "b"), value(t, ns, "c"); a != "1" || b != "1" || c != "gone" {
		t.Errorf("a is %s, b is %s, c is %s", a, b, c)
	}
	if exists(t, "apps/v1", "deployments", ns, "extra") != nil || get(t, "batch/v1", "jobs", ns, "migrate").GetUID() != ran {
		t.Error("extra is still there, or the Job ran again")
	}
	if r := record(t, ns, "shop", "deployed"); r["commit"] != strings.Repeat("a", 40) {
		t.Errorf("deployed is %v", r)
	}
	deployIn(t, runOf(1, "a"), good, args...).wants(t, 0, "unchanged") // the old commit is the one that runs, so it is not older

	// The time that a timeout leaves is not the time a rollback has.
	late := strings.Replace(bad, "bad-pull", "never-ready", 1)
	deployIn(t, runOf(3, "c"), late, append(args, "--timeout", "8s")...).wants(t, 6, "is not ready", "rolled back to commit aaaaaaaaaaaa")
	if a := value(t, ns, "a"); a != "1" {
		t.Errorf("a is %s", a)
	}

	// When there was nothing before, nothing is left.
	o = deployIn(t, runOf(1, "a"), fmt.Sprintf(configMap, "first", ns, "1")+deployment("first", ns, "bad-pull"), withPrune, "--namespace", ns, "--name", "fresh", "--on-failure=rollback")
	o.wants(t, 5, "rolled back to what was there before the first deploy")
	if value(t, ns, "first") != "gone" || exists(t, "apps/v1", "deployments", ns, "first") != nil {
		t.Error("something of the first deploy is left")
	}

	// A rollback that cannot succeed says so.
	if err := at(t, "v1", "secrets", ns).Delete(t.Context(), "flakeship-shop-v1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	o = deployIn(t, runOf(4, "d"), bad, args...)
	o.wants(t, 5, "the rollback failed too: read version 1 of the set: ")
	if r := o.result.Rollback; r == nil || r.Done || r.Message == "" {
		t.Errorf("%+v", r)
	}
}

// What happens to objects between the moment they are looked at and the moment they are to be deleted counts.
func TestPruneRaces(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	args := []string{withPrune, "--namespace", ns, "--name", "shop"}
	names := []string{"changed", "deleted", "kept", "released", "replaced"}
	manifests := ""
	for _, name := range names {
		manifests += fmt.Sprintf(configMap, name, ns, "1")
	}
	deploy(t, manifests, args...).wants(t, 0)
	labels, _ := parent(t, ns, "shop")
	_, log, end := startDeploy(t, deployment("slow", ns, "slow-start"), args...)
	await(t, "the last object is applied", func() bool { return exists(t, "apps/v1", "deployments", ns, "slow") != nil })
	patch := func(name, text string) {
		if _, err := at(t, "v1", "configmaps", ns).Patch(t.Context(), name, types.MergePatchType, []byte(text), metav1.PatchOptions{FieldManager: "test"}); err != nil {
			t.Error(err)
		}
	}
	patch("changed", `{"data":{"b":"2"}}`)
	patch("kept", `{"metadata":{"annotations":{"flakeship.dev/prune":"keep"}}}`)
	patch("released", `{"metadata":{"labels":{"applyset.kubernetes.io/part-of":null}}}`)
	for _, name := range []string{"deleted", "replaced"} {
		if err := at(t, "v1", "configmaps", ns).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
	// Another by the same name, which looks just like a member: only its UID tells.
	apply(t, "v1", "configmaps", ns, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "replaced",
		"labels": map[string]any{"applyset.kubernetes.io/part-of": labels["applyset.kubernetes.io/id"]}}}, "flakeship")
	if code := end(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, log)
	}
	if got, want := fmt.Sprint(configMaps(t, ns)), "[kept released replaced]"; got != want {
		t.Errorf("there are %s, want %s\n%s", got, want, log)
	}
	if !strings.Contains(log.String(), "kept        ConfigMap/"+ns+"/released: somebody took it out of the set") {
		t.Errorf("the log is\n%s", log)
	}
}

// However a run ends and whenever, the next one gets where it was going.
func TestEndedAnywhere(t *testing.T) {
	slow := func(ns string) string { return deployment("slow", ns, "slow-start") }
	hook := func(ns string) string {
		return strings.Replace(fmt.Sprintf(job, "hook", ns, "flakeship.dev/hook: before", "migrate"), "containers:", "nodeSelector: {no: such-node}, containers:", 1) + slow(ns)
	}
	held := func(text, ns string) string {
		return strings.Replace(text, "namespace: "+ns, "finalizers: [test.dev/hold], namespace: "+ns, 1)
	}
	bad := func(ns string) string { return held(deployment("slow", ns, "bad-pull"), ns) }
	ends := func(version, resource, name string) func(t *testing.T, ns string) bool { // what a finalizer holds
		return func(t *testing.T, ns string) bool {
			o := exists(t, version, resource, ns, name)
			return o != nil && o.GetDeletionTimestamp() != nil
		}
	}
	stages := map[string]struct {
		brings func(ns string) string
		isTime func(t *testing.T, ns string) bool
	}{
		"locked":  {slow, func(t *testing.T, ns string) bool { return holder(t, ns, "shop") != "" }},
		"begun":   {slow, func(t *testing.T, ns string) bool { return value(t, ns, "a") == "2" }},
		"hook":    {hook, func(t *testing.T, ns string) bool { return exists(t, "batch/v1", "jobs", ns, "hook") != nil }},
		"waiting": {slow, func(t *testing.T, ns string) bool { return exists(t, "apps/v1", "deployments", ns, "slow") != nil }},
		"pruning": {slow, ends("v1", "configmaps", "held")},
		"rolling": {bad, ends("apps/v1", "deployments", "slow")}, // back
	}
	for name, stage := range stages {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(fmt.Sprint(name, "-", int(signal)), func(t *testing.T) {
				t.Parallel()
				ns := namespace(t)
				args := []string{withPrune, "--namespace", ns, "--name", "shop", "--on-failure=rollback"}
				deploy(t, held(fmt.Sprintf(configMap, "held", ns, "1"), ns)+fmt.Sprintf(configMap, "a", ns, "1")+fmt.Sprintf(configMap, "old", ns, "1"), args...).wants(t, 0)
				a := fmt.Sprintf(configMap, "a", ns, "2")
				cmd, out := command(t, a+stage.brings(ns), args...)
				log := new(strings.Builder)
				cmd.Stderr = log
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				await(t, "the stage is reached", func() bool { return stage.isTime(t, ns) })
				cmd.Process.Signal(signal)
				cmd.Wait()
				if signal == syscall.SIGTERM {
					if code := cmd.ProcessState.ExitCode(); code != 130 {
						t.Errorf("exit code %d:\n%s", code, log)
					}
					if got := holder(t, ns, "shop"); got != "" {
						t.Errorf("the lock is still %s's", got)
					}
					result := new(handoff.DeployResult)
					if err := handoff.Load(out, result); err != nil {
						t.Error(err)
					}
					if r := result.Rollback; (r != nil) != (name == "rolling") || r != nil && (r.Done || r.Message == "") {
						t.Errorf("rollback: %+v", r)
					}
					for _, o := range result.Objects { // true, whatever the stage
						if o.Name == "a" && o.Kind == "ConfigMap" && isWritten(o.Action) != (value(t, ns, "a") == "2") && name != "rolling" {
							t.Errorf("a is %s, and %s", o.Action, value(t, ns, "a"))
						}
					}
				}
				release := []byte(`{"metadata":{"finalizers":null}}`)
				for resource, name := range map[string]string{"configmaps": "held", "deployments": "slow"} {
					version := map[string]string{"configmaps": "v1", "deployments": "apps/v1"}[resource]
					if _, err := at(t, version, resource, ns).Patch(t.Context(), name, types.MergePatchType, release, metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
						t.Error(err)
					}
				}
				await(t, "what was being deleted is gone", func() bool { return !stage.isTime(t, ns) || name != "rolling" })
				o := deploy(t, a+deployment("slow", ns, "slow-start"), args...)
				o.wants(t, 0)
				if signal == syscall.SIGKILL && !strings.Contains(o.log, "took over the lock of a run that has died: process ") {
					t.Errorf("the lock was not taken over:\n%s", o.log)
				}
				if got := fmt.Sprintf("%s %s", configMaps(t, ns), value(t, ns, "a")); got != "[a] 2" || exists(t, "batch/v1", "jobs", ns, "hook") != nil {
					t.Errorf("there are %s\n%s", got, o.log)
				}
				_, notes := parent(t, ns, "shop")
				if got, want := notes["applyset.kubernetes.io/contains-group-kinds"], "ConfigMap,Deployment.apps"; got != want {
					t.Errorf("the set has %s, want %s", got, want)
				}
			})
		}
	}
}

func isWritten(a handoff.Action) bool {
	return a == handoff.ActionCreated || a == handoff.ActionConfigured || a == handoff.ActionUnchanged
}

// A namespace that is going away is said to be.
func TestTerminatingNamespace(t *testing.T) {
	ns := namespace(t)
	apply(t, "v1", "configmaps", ns, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "held", "finalizers": []any{"test.dev/hold"}}}, "test")
	if err := at(t, "v1", "namespaces", "").Delete(t.Context(), ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the namespace is terminating", func() bool { return get(t, "v1", "namespaces", "", ns).GetDeletionTimestamp() != nil })
	o := deploy(t, fmt.Sprintf(configMap, "a", ns, "1"))
	o.wants(t, 1, "because it is being terminated")
	deploy(t, fmt.Sprintf(configMap, "a", ns, "1"), "--namespace", ns).wants(t, 1, "because it is being terminated")
	patch := []byte(`{"metadata":{"finalizers":null}}`)
	if _, err := at(t, "v1", "configmaps", ns).Patch(t.Context(), "held", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
}

// An API server that goes away while a rollout is awaited, for longer than one request is tried, is waited for, and the lock is
// still ours then.
func TestAPIServerRestarts(t *testing.T) {
	ns := namespace(t)
	_, log, end := startDeploy(t, deployment("slow", ns, "slow-start"), "--namespace", ns, "--name", "shop")
	await(t, "a pod is there", func() bool { return count(t, "v1", "pods", ns) == 1 })
	if err := cluster.RestartAPIServer(8 * time.Second); err != nil {
		t.Fatal(err)
	}
	if code := end(); code != 0 || !strings.Contains(log.String(), "ready       Deployment/"+ns+"/slow") {
		t.Errorf("exit code %d:\n%s", code, log)
	}
	await(t, "the API server is well again", func() bool {
		_, err := at(t, "v1", "namespaces", "").List(t.Context(), metav1.ListOptions{})
		return err == nil
	})
	if got := holder(t, ns, "shop"); got != "" {
		t.Errorf("the lock is still %s's", got)
	}
}

// deployIn is deploy with more in its environment.
func deployIn(t *testing.T, environ []string, manifests string, args ...string) outcome {
	t.Helper()
	cmd, out := command(t, manifests, args...)
	cmd.Env = append(cmd.Env, environ...)
	return finish(t, cmd, out)
}

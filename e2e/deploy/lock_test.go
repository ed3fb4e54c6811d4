package deploy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// holder is who has the set's lock; empty: nobody.
func holder(t *testing.T, ns, name string) string {
	t.Helper()
	lease := exists(t, "coordination.k8s.io/v1", "leases", ns, "flakeship-"+name)
	if lease == nil {
		return ""
	}
	text, _, _ := unstructured.NestedString(lease.Object, "spec", "holderIdentity")
	return text
}

// One run at a time: a second one waits, and says for whom when it waits no longer.
func TestLock(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	args := []string{withPrune, "--namespace", ns}
	with := func(number int, manifests string, more ...string) outcome {
		return deployIn(t, runOf(number, fmt.Sprint(number)), manifests, append(args, more...)...)
	}
	_, firstLog, end := startDeploy(t, fmt.Sprintf(configMap, "a", ns, "1")+deployment("slow", ns, "slow-start"), args...)
	await(t, "the first run has the lock", func() bool { return holder(t, ns, "testlock") != "" })
	o := with(2, fmt.Sprintf(configMap, "a", ns, "2"), "--name", "testlock", "--lock-timeout", "1s")
	o.wants(t, 4, "waiting: another run deploys the set testlock: process ", "error: another run deploys the set testlock: process ", "nothing was applied")
	o = with(3, fmt.Sprintf(configMap, "a", ns, "3"), "--name", "testlock")
	o.wants(t, 0, "waiting: another run deploys the set testlock: process ", "pruned      Deployment/"+ns+"/slow")
	if code := end(); code != 0 {
		t.Errorf("the first run ended with %d:\n%s", code, firstLog)
	}
	if got := holder(t, ns, "testlock"); got != "" {
		t.Errorf("the lock is %s's", got)
	}
	if got := value(t, ns, "a"); got != "3" {
		t.Errorf("a is %s", got)
	}
}

// A run that is cancelled while it waits for another ends at once, and leaves the lock whose it is.
func TestWaitingRunIsCancelled(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	args := []string{"--namespace", ns, "--name", "shop"}
	_, firstLog, end := startDeploy(t, deployment("slow", ns, "slow-start"), args...)
	await(t, "the first run has the lock", func() bool { return holder(t, ns, "shop") != "" })
	first := holder(t, ns, "shop")
	second, _ := command(t, fmt.Sprintf(configMap, "a", ns, "2"), args...)
	pipe, err := second.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		fmt.Fprintln(&log, lines.Text())
		if strings.HasPrefix(lines.Text(), "waiting: another run deploys the set shop") {
			second.Process.Signal(syscall.SIGTERM)
			if got := holder(t, ns, "shop"); got != first {
				t.Errorf("the lock is %q's, not %q's", got, first)
			}
		}
	}
	second.Wait()
	outcome{code: second.ProcessState.ExitCode(), log: log.String()}.wants(t, 130, "error: cancelled: the set was still being looked up: ", "hint: run it again")
	if code := end(); code != 0 {
		t.Errorf("the first run ended with %d:\n%s", code, firstLog)
	}
	if value(t, ns, "a") != "gone" {
		t.Error("the second run wrote")
	}
}

// The lock of a run that was killed is taken over: on this machine as soon as the process is known to be gone, else when its Lease
// has run out. Who waits is told whom for, and until when.
func TestHolderKilled(t *testing.T) {
	for name, want := range map[string]string{
		"here":      "; its process, on this machine, is gone: this run goes on in 2 s",
		"elsewhere": "; if it is silent for 20 s, until ",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := namespace(t)
			args := []string{withPrune, "--namespace", ns, "--name", "shop"}
			first, _ := command(t, deployment("slow", ns, "never-ready"), args...)
			if name == "elsewhere" { // whose temporary folder is not seen
				first.Env = append(first.Env, "TMPDIR="+t.TempDir())
			}
			if err := first.Start(); err != nil {
				t.Fatal(err)
			}
			await(t, "the first run waits", func() bool { return exists(t, "apps/v1", "deployments", ns, "slow") != nil })
			first.Process.Kill()
			first.Wait()
			o := deploy(t, fmt.Sprintf(configMap, "a", ns, "1"), args...)
			o.wants(t, 0, "waiting: another run deploys the set shop: process ", want, "took over the lock of a run that has died: process ", "pruned      Deployment/"+ns+"/slow")
		})
	}
}

// A run that stood still for so long that another took its lock writes nothing more when it goes on.
func TestHolderStopped(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	args := []string{"--namespace", ns, "--name", "shop"}
	hook := strings.Replace(fmt.Sprintf(job, "before", ns, "flakeship.dev/hook: before", "migrate"), "containers:", "nodeSelector: {"+ns+": yes-it-is}, containers:", 1)
	first, _ := command(t, hook+deployment("web", ns, "web:1"), args...)
	var log bytes.Buffer
	first.Stderr = &log
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Process.Kill() })
	await(t, "the hook's pod is there", func() bool { return count(t, "v1", "pods", ns) == 1 })
	if err := first.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	deploy(t, fmt.Sprintf(configMap, "a", ns, "1"), args...).wants(t, 0, "if it is silent for 20 s", "took over the lock of a run that has died")

	mark := func(ctx context.Context, value any) error {
		label, _ := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{ns: value}}})
		_, err := client.CoreV1().Nodes().Patch(ctx, "node-1", types.MergePatchType, label, metav1.PatchOptions{})
		return err
	}
	if err := mark(t.Context(), "yes-it-is"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mark(context.Background(), nil); err != nil {
			t.Error(err)
		}
	})
	await(t, "the hook is complete, and the rest could be written", func() bool {
		n, _, _ := unstructured.NestedInt64(get(t, "batch/v1", "jobs", ns, "before").Object, "status", "succeeded")
		return n == 1
	})
	if err := first.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	first.Wait()
	outcome{code: first.ProcessState.ExitCode(), log: log.String()}.wants(t, 4, "error: the set's lock was lost to another run")
	if exists(t, "apps/v1", "deployments", ns, "web") != nil {
		t.Errorf("it wrote without the lock:\n%s", log.String())
	}
}

package rollout

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flakeship/flakeship/internal/handoff"
)

// scene is a moment of a rollout and the objects that change then.
type scene struct {
	at      time.Duration
	objects []string
}

// play tells a waiter the story of the Deployment web in the story's own time: it is looked at every tick, as Wait does each 100 ms.
// beside, when it is not empty, is awaited as well. play returns when Wait would have, or limit, and what became of web.
func play(t *testing.T, story []scene, beside string, tick, limit time.Duration) (over time.Duration, web Result) {
	t.Helper()
	begin := time.Now()
	w := newWaiter(nil, Options{})
	for _, text := range []string{webOf(1, 0, 0, ""), beside} {
		if text == "" {
			continue
		}
		if err := w.track(target(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	story = append([]scene{{0, []string{fmt.Sprintf(setText, "2")}}}, story...)
	for ; over < limit; over += tick {
		for ; len(story) > 0 && story[0].at <= over; story = story[1:] {
			for _, text := range story[0].objects {
				o := target(t, text)
				if err := w.take(news{source: source{o.Resource, "shop", ""}, objects: []*unstructured.Unstructured{o.Live}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.evaluate(begin.Add(over), false)
		if w.over(begin.Add(over)) {
			break
		}
	}
	return over, w.all[0].result
}

// webOf is the Deployment web at revision 2, of so many replicas.
func webOf(replicas, updated, available int, conditions string) string {
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop, uid: u, generation: 2, annotations: {deployment.kubernetes.io/revision: "2"}}, spec: {replicas: %[1]d},
		status: {observedGeneration: 2, replicas: %[1]d, updatedReplicas: %[2]d, availableReplicas: %[3]d, conditions: [%[4]s]}}`, replicas, updated, available, conditions)
}

// webPod is its pod in a status.
func webPod(status string) string {
	return `{apiVersion: v1, kind: Pod, metadata: {name: web-2-x, uid: pod-2, ownerReferences: [{uid: set-2, controller: true}]}, status: ` + status + `}`
}

// container is the pod with its one container in a state after so many restarts.
func container(restarts int, state string) string {
	return webPod(fmt.Sprintf(`{phase: Pending, containerStatuses: [{name: main, restartCount: %d, state: {%s}}]}`, restarts, state))
}

func waits(reason, message string) string {
	return fmt.Sprintf("waiting: {reason: %s, message: '%s'}", reason, message)
}

// putOff is what older kubelets say between two attempts to pull.
var putOff = waits("ImagePullBackOff", `Back-off pulling image "r/web:1"`)

const (
	ended   = "terminated: {exitCode: 1, reason: Error}"
	running = "running: {}"
)

// What is said to be red within seconds of the pod's event is, and the wait is over by then: with others that are still awaited,
// and alone.
func TestRedInTime(t *testing.T) {
	const bad, loop = 5 * time.Second, 15 * time.Second
	initial := func(state string) string {
		return webPod(`{phase: Pending, initContainerStatuses: [{name: setup, restartCount: 2, state: {` + state + `}}], containerStatuses: [{name: main, state: {waiting: {reason: PodInitializing}}}]}`)
	}
	for name, tt := range map[string]struct {
		limit time.Duration
		story []scene
	}{
		"no such tag":           {bad, []scene{{0, []string{container(0, waits("ErrImagePull", "manifest unknown"))}}}},
		"refused":               {bad, []scene{{0, []string{container(0, waits("ImagePullBackOff", `Back-off pulling image "r/web:1": ErrImagePull: 401 Unauthorized`))}}}},
		"for another platform":  {bad, []scene{{0, []string{container(0, waits("ErrImagePull", "no match for platform in manifest: not found"))}}}},
		"no name of an image":   {bad, []scene{{0, []string{container(0, waits("InvalidImageName", ""))}}}},
		"never to be pulled":    {bad, []scene{{0, []string{container(0, waits("ErrImageNeverPull", ""))}}}},
		"the reason was before": {bad, []scene{{0, []string{container(0, waits("ErrImagePull", "manifest unknown")), container(0, putOff)}}}},
		"to initialise with":    {bad, []scene{{0, []string{initial(waits("ErrImagePull", "manifest unknown"))}}}},
		"nothing to run":        {bad, []scene{{0, []string{container(0, waits("CreateContainerError", "no command specified"))}}}},
		"cannot be run":         {bad, []scene{{0, []string{container(0, waits("RunContainerError", "executable file not found in $PATH"))}}}},
		"nothing to run, twice": {bad, []scene{{0, []string{container(0, waits("CreateContainerError", "no command specified"))}}, {2 * time.Second, []string{container(0, waits("CreateContainerError", "no command"))}}}},

		// The kubelet starts what has ended at once, then after 10 seconds, then after 20.
		"ends, and ends again": {loop, []scene{{0, []string{container(0, ended)}}, {time.Second, []string{container(1, running)}}, {2 * time.Second, []string{container(1, waits("CrashLoopBackOff", ""))}},
			{12 * time.Second, []string{container(2, running)}}, {13 * time.Second, []string{container(2, ended)}}, {13200 * time.Millisecond, []string{container(2, waits("CrashLoopBackOff", ""))}}}},
		"cannot be run, and again": {loop, []scene{{0, []string{container(0, waits("RunContainerError", "no such file"))}}, {time.Second, []string{container(1, waits("CrashLoopBackOff", ""))}},
			{11 * time.Second, []string{container(1, waits("RunContainerError", "no such file"))}}, {12 * time.Second, []string{container(2, waits("CrashLoopBackOff", ""))}}}},
		"has ended often":          {loop, []scene{{0, []string{container(4, waits("CrashLoopBackOff", ""))}}}},
		"ends when it initialises": {loop, []scene{{0, []string{initial(waits("CrashLoopBackOff", ""))}}}},
	} {
		for _, beside := range []string{"", `{apiVersion: batch/v1, kind: Job, metadata: {name: slow, namespace: shop, uid: slow}}`} {
			over, web := play(t, tt.story, beside, 100*time.Millisecond, time.Minute)
			if over >= tt.limit || web.Rollout != handoff.RolloutFailed || !strings.HasPrefix(web.Message, "container ") {
				t.Errorf("%s, beside %q: over after %s, want less than %s: %+v", name, beside, over, tt.limit, web)
			}
		}
	}
}

// What is slow but may come right is waited for, an hour if need be, and then it is ready.
func TestSlowIsNotFailed(t *testing.T) {
	const end = time.Hour
	every := func(d time.Duration, what func(n int) []string) (story []scene) {
		for at := time.Duration(0); at < end; at += d {
			story = append(story, scene{at, what(len(story))})
		}
		return story
	}
	always := func(objects ...string) []scene { return []scene{{0, objects}} }
	// The kubelet tries twice in a minute, say; the pause is told in its own words.
	pulls := func(said, pause string) []scene {
		return every(30*time.Second, func(n int) []string {
			return []string{container(0, waits("ErrImagePull", said)), container(0, pause)}
		})
	}
	const refused = `{type: ReplicaFailure, status: "True", reason: FailedCreate, message: exceeded quota}`
	for name, story := range map[string][]scene{
		"nobody has looked at it":               nil,
		"is pulled":                             always(container(0, waits("ContainerCreating", ""))),
		"is not ready":                          always(webOf(1, 1, 0, ""), container(0, running)),
		"is ready, but not for minReadySeconds": always(webOf(1, 1, 0, ""), webPod(`{phase: Running, containerStatuses: [{name: main, ready: true, state: {running: {}}}]}`)),
		"has no node, then one": {{0, []string{webPod(`{phase: Pending, conditions: [{type: PodScheduled, status: "False", message: 0/2 nodes are available}]}`)}},
			{end / 2, []string{container(0, waits("ContainerCreating", ""))}}, {end/2 + time.Minute, []string{container(0, running)}}},
		"pod after pod":                          every(time.Minute, func(n int) []string { return []string{webOf(60, n, 60, "")} }),
		"ends once":                              {{0, []string{container(0, ended)}}, {time.Second, []string{container(1, waits("CrashLoopBackOff", ""))}}, {11 * time.Second, []string{container(1, running)}}},
		"is not pulled, who knows why, at once":  {{0, []string{container(0, waits("ErrImagePull", "something odd"))}}, {time.Second, []string{container(0, putOff)}}, {12 * time.Second, []string{container(0, running)}}},
		"the registry is down":                   pulls("dial tcp: connection refused", waits("ImagePullBackOff", `Back-off pulling image "r/web:1": ErrImagePull: connection refused`)),
		"the registry is down, the pause silent": pulls("dial tcp: connection refused", putOff),
		"too many pulls":                         pulls("toomanyrequests: You have reached your pull rate limit", putOff),
		"the disk is slow": {{0, []string{container(0, waits("ContainerCreating", ""))}}, {2 * time.Minute, []string{container(0, waits("CreateContainerError", "context deadline exceeded"))}},
			{3 * time.Minute, []string{container(0, waits("CreateContainerError", `failed to reserve container name "m": name "m" is reserved for "4f"`))}}, {end / 2, []string{container(0, running)}}},
		"a quota, until an old pod is gone":     {{0, []string{webOf(1, 0, 0, refused)}}, {9 * time.Second, []string{webOf(1, 1, 0, "")}}},
		"a ConfigMap that comes a little later": {{0, []string{container(0, waits("CreateContainerConfigError", "not found"))}}, {14 * time.Second, []string{container(0, running)}}},
	} {
		story = append(story, scene{end, []string{webOf(60, 60, 60, "")}})
		over, web := play(t, story, "", time.Second, 2*end)
		if over != end || web.Rollout != handoff.RolloutReady {
			t.Errorf("%s: over after %s, want %s: %+v", name, over, end, web)
		}
	}
}

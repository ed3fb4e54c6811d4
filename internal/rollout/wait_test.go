package rollout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/handoff"
)

// web is a Deployment with one replica at generation 2, of which observed and available are given.
func web(uid string, observed, available int) string {
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop, uid: %s, generation: 2, annotations: {deployment.kubernetes.io/revision: "2"}}, spec: {replicas: 1},
		status: {observedGeneration: %d, replicas: 1, updatedReplicas: 1, availableReplicas: %d}}`, uid, observed, available)
}

func target(t *testing.T, text string) Target {
	o := object(t, text)
	return Target{Live: o, At: time.Now(), Resource: o.GroupVersionKind().GroupVersion().WithResource(strings.ToLower(o.GetKind()) + "s")}
}

// within runs Wait and fails the test when it takes longer than ten seconds.
func within(t *testing.T, c *cluster.Cluster, o Options, targets ...Target) ([]Result, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	return Wait(ctx, c, targets, o)
}

// soon does something once Wait has been waiting for a while.
func soon(do func()) { time.AfterFunc(300*time.Millisecond, do) }

func TestReadyAtOnceAsksNothing(t *testing.T) {
	s, c := newServer(t)
	results, err := within(t, c, Options{}, target(t, web("u", 2, 1)), target(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`))
	if err != nil || results[0].Rollout != handoff.RolloutReady || results[1].Rollout != handoff.RolloutNone || len(s.requests) > 0 {
		t.Errorf("%+v, %v, requests %v", results, err, s.requests)
	}
}

// A status that is about an older generation is no answer, however ready it looks.
func TestOldStatusIsNoAnswer(t *testing.T) {
	s, c := newServer(t)
	s.put(t, "deployments", "ADDED", web("u", 1, 1))
	begin := time.Now()
	soon(func() { s.put(t, "deployments", "MODIFIED", web("u", 2, 1)) })
	results, err := within(t, c, Options{}, target(t, web("u", 1, 1)))
	if err != nil || results[0].Rollout != handoff.RolloutReady || time.Since(begin) < 300*time.Millisecond {
		t.Errorf("%+v, %v after %s", results, err, time.Since(begin))
	}
}

// A watch that ends is taken up where it ended; one whose past the server forgot starts over. A server that has only just started
// refuses for a moment what it served before.
func TestWatchEnds(t *testing.T) {
	for _, tt := range []struct{ forget, refuse bool }{{}, {forget: true}, {refuse: true}, {true, true}} {
		s, c := newServer(t)
		s.put(t, "deployments", "ADDED", web("u", 2, 0))
		s.cut = 1
		soon(func() {
			s.put(t, "deployments", "MODIFIED", web("u", 2, 0)) // after this the connection ends
			time.Sleep(20 * time.Millisecond)
			s.put(t, "deployments", "MODIFIED", web("u", 2, 1))
			s.mu.Lock()
			if tt.forget {
				s.forgot = len(s.events)
			}
			if tt.refuse {
				s.refuse = "deployments"
			}
			s.mu.Unlock()
			time.Sleep(500 * time.Millisecond)
			s.mu.Lock()
			s.refuse = ""
			s.mu.Unlock()
		})
		results, err := within(t, c, Options{}, target(t, web("u", 2, 0)))
		if err != nil || results[0].Rollout != handoff.RolloutReady {
			t.Errorf("%+v: %+v, %v", tt, results, err)
		}
	}
}

func TestGone(t *testing.T) {
	for want, happens := range map[string]func(s *server){
		"it was deleted": func(s *server) {
			s.put(t, "deployments", "ADDED", web("u", 2, 0))
			soon(func() { s.put(t, "deployments", "DELETED", web("u", 2, 0)) })
		},
		"it was deleted, or replaced by another": func(s *server) { s.put(t, "deployments", "ADDED", web("another", 2, 1)) },
	} {
		s, c := newServer(t)
		happens(s)
		results, err := within(t, c, Options{}, target(t, web("u", 2, 0)))
		var failed *FailedError
		if !errors.As(err, &failed) || results[0].Message != want || err.Error() != "Deployment/shop/web: "+want {
			t.Errorf("%+v, %v, want %s", results, err, want)
		}
	}
}

const setText = `{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-%[1]s, uid: set-%[1]s, annotations: {deployment.kubernetes.io/revision: "%[1]s"}, ownerReferences: [{uid: u, controller: true}]}}`

// podOf is a pod of the ReplicaSet of that revision, in a state.
func podOf(revision, state string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: web-%[1]s-x, uid: pod-%[1]s, ownerReferences: [{uid: set-%[1]s, controller: true}]}, status: {phase: Pending, containerStatuses: [{name: main, restartCount: 3, state: {%[2]s}}]}}`, revision, state)
}

// Trouble with a pod of the old version is not trouble with the new one.
func TestOnlyNewPodsFail(t *testing.T) {
	crash := "waiting: {reason: CrashLoopBackOff}"
	s, c := newServer(t)
	s.put(t, "deployments", "ADDED", web("u", 2, 0))
	s.put(t, "replicasets", "ADDED", fmt.Sprintf(setText, "1"))
	s.put(t, "replicasets", "ADDED", fmt.Sprintf(setText, "2"))
	s.put(t, "pods", "ADDED", podOf("1", crash))
	soon(func() { s.put(t, "deployments", "MODIFIED", web("u", 2, 1)) })
	if results, err := within(t, c, Options{}, target(t, web("u", 2, 0))); err != nil {
		t.Errorf("%+v, %v", results, err)
	}

	s.put(t, "deployments", "MODIFIED", web("u", 2, 0))
	soon(func() { s.put(t, "pods", "ADDED", podOf("2", crash)) })
	_, err := within(t, c, Options{}, target(t, web("u", 2, 0)))
	var failed *FailedError
	if want := "Deployment/shop/web: container main of pod web-2-x: CrashLoopBackOff"; !errors.As(err, &failed) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// A pull that fails for no clear reason, and then works, was no failure.
func TestFlappingPull(t *testing.T) {
	s, c := newServer(t)
	s.put(t, "deployments", "ADDED", web("u", 2, 0))
	s.put(t, "replicasets", "ADDED", fmt.Sprintf(setText, "2"))
	s.put(t, "pods", "ADDED", podOf("2", "waiting: {reason: ErrImagePull, message: something odd}"))
	soon(func() {
		s.put(t, "pods", "MODIFIED", podOf("2", "waiting: {reason: ImagePullBackOff}"))
		time.Sleep(300 * time.Millisecond)
		s.put(t, "pods", "MODIFIED", podOf("2", "waiting: {reason: ErrImagePull, message: connection refused}"))
		time.Sleep(300 * time.Millisecond)
		s.put(t, "pods", "MODIFIED", podOf("2", "running: {}"))
		s.put(t, "deployments", "MODIFIED", web("u", 2, 1))
	})
	if results, err := within(t, c, Options{}, target(t, web("u", 2, 0))); err != nil {
		t.Errorf("%+v, %v", results, err)
	}
}

// patience is over when trouble has lasted, not when it has come and gone.
func TestTroubleIsTimedByContainer(t *testing.T) {
	w := newWaiter(nil, Options{})
	job := &tracked{target: target(t, `{apiVersion: batch/v1, kind: Job, metadata: {uid: u}}`), kind: jobKind}
	p := &watchedPod{since: map[string]time.Time{}}
	w.pods["u"] = map[types.UID]*watchedPod{"p": p}
	set := func(state string) {
		t.Helper()
		p.pod = pod{}
		if err := decode(object(t, podOf("2", state)), &p.pod); err != nil {
			t.Fatal(err)
		}
	}
	const unclear, fine = "waiting: {reason: ImagePullBackOff}", "running: {}"
	begin := time.Now()
	for _, step := range []struct {
		after time.Duration
		state string
		fails bool
	}{{0, unclear, false}, {19 * time.Second, unclear, false}, {19 * time.Second, fine, false}, {21 * time.Second, unclear, false}, {40 * time.Second, unclear, false}, {42 * time.Second, unclear, true}} {
		set(step.state)
		if got := w.trouble(job, begin.Add(step.after)); (got != nil) != step.fails {
			t.Errorf("after %s, %s: %+v, want failure %v", step.after, step.state, got, step.fails)
		}
	}
}

// What is wrong with one is wrong with several: those that fail at the same time are told together, and the rest is not
// called failed.
func TestFailTogether(t *testing.T) {
	s, c := newServer(t)
	job := `{apiVersion: batch/v1, kind: Job, metadata: {name: %[1]s, namespace: shop, uid: %[1]s, generation: 1}, status: {conditions: [%[2]s]}}`
	const failure = `{type: Failed, status: "True", message: too often}`
	s.put(t, "deployments", "ADDED", web("u", 2, 0))
	for _, name := range []string{"a", "b"} {
		s.put(t, "jobs", "ADDED", fmt.Sprintf(job, name, ""))
	}
	soon(func() {
		s.put(t, "jobs", "MODIFIED", fmt.Sprintf(job, "a", failure))
		time.Sleep(200 * time.Millisecond)
		s.put(t, "jobs", "MODIFIED", fmt.Sprintf(job, "b", failure))
	})
	results, err := within(t, c, Options{}, target(t, web("u", 2, 0)), target(t, fmt.Sprintf(job, "a", "")), target(t, fmt.Sprintf(job, "b", "")))
	var failed *FailedError
	if !errors.As(err, &failed) || len(failed.Failed) != 2 || results[0].Rollout != handoff.RolloutNone || !strings.HasPrefix(results[0].Message, "not waited for") {
		t.Errorf("%+v, %v", results, err)
	}
}

// Without the right to see pods the workload's own status has to do; without the right to see workloads nothing does.
func TestForbidden(t *testing.T) {
	s, c := newServer(t)
	s.refuse = "pods"
	s.put(t, "deployments", "ADDED", web("u", 2, 0))
	soon(func() { s.put(t, "deployments", "MODIFIED", web("u", 2, 1)) })
	var warnings []string
	_, err := within(t, c, Options{Warn: func(text string) { warnings = append(warnings, text) }}, target(t, web("u", 2, 0)))
	if err != nil || len(warnings) != 1 || warnings[0] != `failing pods cannot be named: user "ci" may not list pods in namespace shop` {
		t.Errorf("%v, warnings %q", err, warnings)
	}
	s.refuse = "deployments"
	if _, err := within(t, c, Options{}, target(t, web("u", 2, 0))); cluster.Diagnose(err).Class != cluster.Denied {
		t.Errorf("%v", err)
	}
}

func TestEndOfContext(t *testing.T) {
	s, c := newServer(t)
	s.put(t, "deployments", "ADDED", web("u", 2, 0))
	ctx, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer stop()
	results, err := Wait(ctx, c, []Target{target(t, web("u", 2, 0))}, Options{})
	var late *TimeoutError
	if !errors.As(err, &late) || results[0].Rollout != handoff.RolloutTimeout || results[0].Message != "1 of 1 pods updated, 0 available" {
		t.Errorf("%+v, %v", results, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	soon(cancel)
	if _, err := Wait(ctx, c, []Target{target(t, web("u", 2, 0))}, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}

// A failure comes with the warnings about its pod and what stands above it, the latest of each reason once, and with the last
// words of the container, masked.
func TestExplained(t *testing.T) {
	warn := func(name, uid, reason, message, at string) string {
		return fmt.Sprintf(`{apiVersion: v1, kind: Event, metadata: {name: %s}, involvedObject: {kind: Thing, name: t, uid: %s}, type: Warning, reason: %s, message: %s, lastTimestamp: "2026-01-01T00:00:%sZ", count: 2}`, name, uid, reason, message, at)
	}
	s, c := newServer(t)
	s.put(t, "deployments", "ADDED", web("u", 2, 0))
	s.put(t, "replicasets", "ADDED", fmt.Sprintf(setText, "2"))
	s.put(t, "events", "ADDED", warn("e1", "pod-2", "BackOff", "back-off", "03"))
	s.put(t, "events", "ADDED", warn("e2", "pod-2", "BackOff", "an older one", "02"))
	s.put(t, "events", "ADDED", warn("e3", "set-2", "FailedCreate", "quota of hunter22", "01"))
	s.put(t, "events", "ADDED", warn("e4", "another", "Alien", "of no concern", "09"))
	soon(func() {
		s.put(t, "pods", "ADDED", podOf("2", "waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 1}"))
	})
	var reported []string
	results, err := within(t, c, Options{Mask: strings.NewReplacer("hunter22", "***").Replace, Report: func(_ Target, r Result) { reported = append(reported, r.Detail) }},
		target(t, web("u", 2, 0)))
	want := "  event FailedCreate (Thing t, 2 times): quota of ***\n  event BackOff (Thing t, 2 times): back-off\n" +
		"  the log of its last run of container main of pod web-2-x ends with\n    starting\n    login of *** failed, previous true\n"
	if got := results[0].Detail; got != want || len(reported) != 1 || reported[0] != want {
		t.Errorf("detail\n%s, want\n%s; reported %q", got, want, reported)
	}
	if want := "Deployment/shop/web: container main of pod web-2-x: CrashLoopBackOff, it ended with exit code 1 after 3 restarts; last event: BackOff: back-off"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// Pods that are refused where only events tell are a failure once it has lasted; a pod that comes after all is an end of it, and
// what the server remembers from before is nothing.
func TestRefusedByEvent(t *testing.T) {
	const set = `{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db, namespace: shop, uid: u, generation: 1}, spec: {replicas: 1}, status: {observedGeneration: 1}}`
	begin := time.Now()
	for name, happens := range map[string]func(w *waiter){
		"refused": func(w *waiter) {},
		"then not": func(w *waiter) {
			pod := object(t, `{apiVersion: v1, kind: Pod, metadata: {name: db-0, uid: p, ownerReferences: [{uid: u, controller: true}]}}`)
			if err := w.take(news{source: source{podsResource, "shop", ""}, objects: []*unstructured.Unstructured{pod}}); err != nil {
				t.Fatal(err)
			}
		},
		"long ago": func(w *waiter) { w.all[0].refused = refusal{}; event(t, w, true) },
	} {
		w := newWaiter(nil, Options{})
		if err := w.track(target(t, set)); err != nil {
			t.Fatal(err)
		}
		one := w.all[0]
		event(t, w, false)
		happens(w)
		w.evaluate(begin, false)
		w.evaluate(begin.Add(stuckPatience/2), false)
		if one.done {
			t.Errorf("%s: no patience", name)
		}
		w.evaluate(begin.Add(stuckPatience+time.Second), false)
		if failed := one.result.Rollout == handoff.RolloutFailed; failed != (name == "refused") || failed && one.result.Message != "its pods cannot be created: no room" {
			t.Errorf("%s: %+v", name, one.result)
		}
	}
}

// event tells that a pod of u was refused, as news or as something remembered.
func event(t *testing.T, w *waiter, remembered bool) {
	t.Helper()
	o := object(t, `{apiVersion: v1, kind: Event, involvedObject: {uid: u}, reason: FailedCreate, message: no room, lastTimestamp: "2026-01-01T00:00:00Z"}`)
	if err := w.take(news{source: source{eventsResource, "shop", "type=Warning"}, all: remembered, objects: []*unstructured.Unstructured{o}}); err != nil {
		t.Fatal(err)
	}
}

// A Job that is gone because it has finished is no failure.
func TestJobIsRemoved(t *testing.T) {
	s, c := newServer(t)
	results, err := within(t, c, Options{}, target(t, `{apiVersion: batch/v1, kind: Job, metadata: {name: j, namespace: shop, uid: u}, spec: {ttlSecondsAfterFinished: 0}}`))
	if err != nil || results[0].Rollout != handoff.RolloutReady {
		t.Errorf("%+v, %v, asked %v", results, err, s.requests)
	}
}

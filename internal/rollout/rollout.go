// Package rollout waits until what was applied runs, and says early and in a sentence when it will not.
//
// Workloads, Jobs, claims, definitions and whatever has conditions of the common form are waited for; anything else has no
// rollout. All objects share one watch for each kind and namespace, and what was ready before costs no request at all. A rollout
// is bound to the object's UID and to the generation that the write returned, so an old "ready" never passes for a new one, and
// only pods of the new version count as its trouble.
package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/handoff"
)

// Target is one object that was applied.
type Target struct {
	Live     *unstructured.Unstructured // as the server returned it
	At       time.Time                  // when that was
	Resource schema.GroupVersionResource
}

// Result is how far a target got.
type Result struct {
	Rollout handoff.Rollout
	Seconds float64 // from the target's time to ready or failed; 0 when it was ready right away
	Message string  // what was reached, what is awaited, or why it failed
	Detail  string  // of what failed or is late: warnings about it and the last lines of its log, each line indented
}

// Options are the settings of Wait.
type Options struct {
	Report func(Target, Result) // gets each result as soon as it is known, but not those that were ready right away; calls do not overlap
	Warn   func(text string)    // gets what keeps reasons from being found
	Slow   func(all []Outcome)  // gets what is still awaited, every ten seconds
	Mask   func(string) string  // is applied to all texts that come from the cluster; nil: they may be shown as they are
}

// FailedError is returned by Wait when targets failed, TimeoutError when its context's deadline passed.
type (
	FailedError  struct{ Failed []Outcome }
	TimeoutError struct{ Waiting []Outcome }
)

// Outcome is a target with its result.
type Outcome struct {
	Target
	Result
}

func (o Outcome) String() string { return ID(o.Live) + ": " + o.Message }

// ID is kind/namespace/name, or kind/name without a namespace.
func ID(o *unstructured.Unstructured) string {
	if o.GetNamespace() == "" {
		return o.GetKind() + "/" + o.GetName()
	}
	return o.GetKind() + "/" + o.GetNamespace() + "/" + o.GetName()
}

func (e *FailedError) Error() string  { return sentence(e.Failed, "failed") }
func (e *TimeoutError) Error() string { return sentence(e.Waiting, "are not ready") }

func sentence(all []Outcome, what string) string {
	if len(all) == 1 {
		return all[0].String()
	}
	return fmt.Sprintf("%d objects %s, the first: %s", len(all), what, all[0])
}

var (
	podsResource = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	setsResource = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}
)

// hasPods says whether a kind of object makes pods.
func hasPods(kind schema.GroupKind) bool {
	return kind.Group == "apps" || kind == jobKind
}

// failTogether is how long after the first failure others are still collected: what is wrong with one is wrong with several,
// as a rule.
const failTogether = time.Second

// explainTime is how long the events about the last failure are waited for: they are written beside what they are about.
const explainTime = 500 * time.Millisecond

// Wait waits until all targets are ready, one has failed, or ctx ends. The results are those of the targets, in their order;
// a target that was no longer waited for has RolloutNone.
//
// Errors: *FailedError; *TimeoutError when ctx's deadline passed; ctx.Err() when it was cancelled; others when the API server
// refuses to tell, see cluster.Diagnose.
func Wait(ctx context.Context, c *cluster.Cluster, targets []Target, o Options) ([]Result, error) {
	w := newWaiter(c, o)
	for _, t := range targets {
		if err := w.track(t); err != nil {
			return w.results(), err
		}
	}
	if err := w.consumers(ctx); err != nil {
		return w.results(), err
	}
	w.evaluate(time.Now(), true)
	err := w.run(ctx)
	return w.results(), err
}

type waiter struct {
	cluster *cluster.Cluster
	options Options
	all     []*tracked
	byUID   map[types.UID]*tracked

	pods   map[types.UID]map[types.UID]*watchedPod // by owner, then by pod; a pod that was applied itself is its own
	sets   map[types.UID]replicaSet
	events map[types.UID]map[string]warning // by what they are about, then by reason

	firstFailure time.Time
	told         time.Time // when Slow was called
}

func newWaiter(c *cluster.Cluster, o Options) *waiter {
	return &waiter{cluster: c, options: o, byUID: map[types.UID]*tracked{}, pods: map[types.UID]map[types.UID]*watchedPod{},
		sets: map[types.UID]replicaSet{}, events: map[types.UID]map[string]warning{}, told: time.Now()}
}

// tracked is one target on its way.
type tracked struct {
	target     Target
	kind       schema.GroupKind
	generation int64
	live       *unstructured.Unstructured
	workload   workload // when it makes pods
	verdict    verdict
	refused    refusal
	stuckSince time.Time
	deleted    string // how it came to be no more; empty: it is there
	done       bool
	result     Result
	blamed     *trouble // what the failure was found in
}

func (w *waiter) track(t Target) error {
	one := &tracked{target: t, kind: t.Live.GroupVersionKind().GroupKind(), generation: t.Live.GetGeneration(), result: Result{Rollout: handoff.RolloutNone}}
	w.all = append(w.all, one)
	w.byUID[t.Live.GetUID()] = one
	return one.update(t.Live)
}

func (t *tracked) update(o *unstructured.Unstructured) (err error) {
	t.live = o
	if hasPods(t.kind) {
		t.workload = workload{}
		if err := decode(o, &t.workload); err != nil {
			return err
		}
	}
	t.verdict, err = judge(o, t.generation)
	return err
}

func (w *waiter) results() []Result {
	var results []Result
	for _, t := range w.all {
		results = append(results, t.result)
	}
	return results
}

func (w *waiter) pending() (pending []*tracked) {
	for _, t := range w.all {
		if !t.done {
			pending = append(pending, t)
		}
	}
	return pending
}

// sources are what has to be watched for the pending targets.
func sources(pending []*tracked) []source {
	var all []source
	for _, t := range pending {
		ns := t.target.Live.GetNamespace()
		all = append(all, source{t.target.Resource, ns, ""})
		if !hasPods(t.kind) && t.kind != podKind {
			continue
		}
		all = append(all, source{podsResource, ns, ""}, source{eventsResource, ns, "type=Warning"})
		if t.workload.Kind == "Deployment" {
			all = append(all, source{setsResource, ns, ""})
		}
	}
	slices.SortFunc(all, func(a, b source) int { return strings.Compare(a.String()+a.namespace, b.String()+b.namespace) })
	return slices.Compact(all)
}

func (w *waiter) run(ctx context.Context) error {
	if len(w.pending()) == 0 {
		return w.failed(ctx)
	}
	inner, stop := context.WithCancel(ctx)
	defer stop()
	updates := make(chan news)
	for _, s := range sources(w.pending()) {
		go feed(inner, w.cluster, s, updates)
	}
	// News come in bursts; judging all of it ten times a second is soon enough, and notices when patience ends.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case n := <-updates:
			if err := w.take(n); err != nil {
				return err
			}
		case now := <-tick.C:
			w.evaluate(now, false)
			w.tellSlow(now)
			if w.over(now) {
				return w.failed(ctx)
			}
		case <-ctx.Done():
			switch {
			case !errors.Is(ctx.Err(), context.DeadlineExceeded):
				return ctx.Err()
			case !w.firstFailure.IsZero():
				return w.failed(ctx)
			}
			return w.timedOut(ctx)
		}
	}
}

// over says whether there is nothing left to wait for.
func (w *waiter) over(now time.Time) bool {
	since := now.Sub(w.firstFailure)
	if len(w.pending()) == 0 {
		return w.firstFailure.IsZero() || since > explainTime
	}
	return !w.firstFailure.IsZero() && since > failTogether
}

// take notes what a feed tells.
func (w *waiter) take(n news) error {
	resource := n.source.GroupVersionResource
	if n.err != nil {
		if apierrors.IsForbidden(n.err) && (resource == podsResource || resource == setsResource) { // the workload's own status has to do
			if w.options.Warn != nil {
				w.options.Warn("failing pods cannot be named: " + cluster.Diagnose(n.err).Text)
			}
			return nil
		}
		if apierrors.IsForbidden(n.err) && resource == eventsResource {
			return nil
		}
		return n.err
	}
	switch resource {
	case podsResource:
		if err := w.takePods(n); err != nil {
			return err
		}
	case setsResource:
		if err := w.takeSets(n); err != nil {
			return err
		}
	case eventsResource:
		return w.takeEvents(n)
	}
	present := map[types.UID]bool{}
	for _, o := range n.objects {
		present[o.GetUID()] = !n.gone
		t := w.byUID[o.GetUID()]
		if t == nil || t.done {
			continue
		}
		if err := t.update(o); err != nil {
			return err
		}
		if n.gone {
			t.deleted = "it was deleted"
		}
	}
	if n.all {
		for uid, t := range w.byUID {
			if t.target.Resource == resource && t.target.Live.GetNamespace() == n.source.namespace && !present[uid] && !t.done {
				t.vanished()
			}
		}
	}
	return nil
}

// vanished notes that the target was not among all objects of its kind.
func (t *tracked) vanished() {
	t.deleted = "it was deleted, or replaced by another"
	if t.workload.Kind == "Job" && t.workload.Spec.TTL != nil { // as it is for those that have finished
		t.verdict = verdict{phase: ready, text: "finished, and removed as its ttlSecondsAfterFinished says"}
	}
}

// stuckPatience is how long pods may be refused: a quota is free again once an old pod is gone.
const stuckPatience = 10 * time.Second

// evaluate looks at each pending target. atOnce says that nothing has been awaited yet.
func (w *waiter) evaluate(now time.Time, atOnce bool) {
	for _, t := range w.pending() {
		switch {
		case t.deleted != "" && t.verdict.phase != ready:
			w.finish(t, now, handoff.RolloutFailed, t.deleted)
			continue
		case t.verdict.phase == ready:
			if atOnce {
				t.done, t.result = true, Result{Rollout: handoff.RolloutReady, Message: t.verdict.text}
			} else {
				w.finish(t, now, handoff.RolloutReady, t.verdict.text)
			}
			continue
		case t.verdict.phase == nothing && t.verdict.text == "":
			t.done = true
			continue
		case t.verdict.phase == nothing:
			w.finish(t, now, handoff.RolloutNone, t.verdict.text)
			continue
		case t.verdict.phase == failed:
			text := t.verdict.text
			if slow := w.slow(t); slow != nil {
				text += "; " + slow.text
				t.blamed = slow
			}
			w.finish(t, now, handoff.RolloutFailed, text)
			continue
		}
		if text, patience := t.stuck(); text == "" {
			t.stuckSince = time.Time{}
		} else if t.stuckSince.IsZero() {
			t.stuckSince = now
		} else if now.Sub(t.stuckSince) > patience {
			w.finish(t, now, handoff.RolloutFailed, text)
			continue
		}
		if t.blamed = w.trouble(t, now); t.blamed != nil {
			w.finish(t, now, handoff.RolloutFailed, t.blamed.text)
		}
	}
}

// stuck says why the target cannot go on, unless that passes within the patience; empty: it can.
func (t *tracked) stuck() (text string, patience time.Duration) {
	if t.verdict.phase == stuck {
		return t.verdict.text, cmp.Or(t.verdict.patience, stuckPatience)
	}
	return t.refused.text, stuckPatience
}

func (w *waiter) finish(t *tracked, now time.Time, r handoff.Rollout, text string) {
	t.done = true
	t.result = Result{Rollout: r, Seconds: now.Sub(t.target.At).Seconds(), Message: text}
	if r == handoff.RolloutFailed {
		if w.firstFailure.IsZero() {
			w.firstFailure = now
		}
		return // reported with its last event
	}
	if w.options.Report != nil {
		w.options.Report(t.target, t.result)
	}
}

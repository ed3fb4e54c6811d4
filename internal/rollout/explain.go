package rollout

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flakeship/flakeship/internal/handoff"
)

var (
	eventsResource  = schema.GroupVersionResource{Version: "v1", Resource: "events"}
	classesResource = schema.GroupVersionResource{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"}
)

// warning is the last event of one reason about one object.
type warning struct {
	about   string // kind and name
	reason  string
	message string
	when    string // in a form that sorts
	count   int64
}

// refusal is that pods of a target may not be created, by a quota or a policy; empty: they may.
type refusal struct{ text string }

// takeEvents notes warnings. An event that is news, and no memory of the server's, may say that a controller cannot create
// pods: only Deployments and ReplicaSets have a condition for that.
func (w *waiter) takeEvents(n news) error {
	for _, o := range n.objects {
		var e struct {
			InvolvedObject struct {
				Kind string    `json:"kind"`
				Name string    `json:"name"`
				UID  types.UID `json:"uid"`
			} `json:"involvedObject"`
			Reason  string `json:"reason"`
			Message string `json:"message"`
			Count   int64  `json:"count"`
		}
		if n.gone {
			continue
		}
		if err := decode(o, &e); err != nil {
			return err
		}
		uid := e.InvolvedObject.UID
		if w.events[uid] == nil {
			w.events[uid] = map[string]warning{}
		}
		next := warning{e.InvolvedObject.Kind + " " + e.InvolvedObject.Name, e.Reason, strings.TrimSpace(e.Message), when(o), e.Count}
		if next.when >= w.events[uid][e.Reason].when {
			w.events[uid][e.Reason] = next
		}
		if t := w.byUID[uid]; t != nil && !n.all && e.Reason == "FailedCreate" && !t.done {
			t.refused = refusal{"its pods cannot be created: " + next.message}
		}
	}
	return nil
}

// created notes that an owner could create a pod.
func (w *waiter) created(owner types.UID) {
	if t := w.byUID[owner]; t != nil {
		t.refused = refusal{}
	}
}

// when an event was seen last, in a form that sorts. Events of the new API have their time elsewhere.
func when(event *unstructured.Unstructured) string {
	for _, path := range [][]string{{"series", "lastObservedTime"}, {"lastTimestamp"}, {"eventTime"}} {
		if text, _, _ := unstructured.NestedString(event.Object, path...); text != "" {
			return text
		}
	}
	return event.GetCreationTimestamp().UTC().Format(time.RFC3339)
}

// mostWarnings is how many warnings are shown of one object, mostPods of how many pods.
const (
	mostWarnings = 5
	mostPods     = 3
)

// warnings are the last ones about the target, its new pods, and the ReplicaSets between them, the latest last, each reason once.
func (w *waiter) warnings(t *tracked) (all []warning) {
	uids := []types.UID{t.target.Live.GetUID()}
	for i, p := range w.newPods(t) {
		if i == mostPods && t.blamed == nil {
			break
		}
		if t.blamed == nil || t.blamed.pod.UID == p.Metadata.UID {
			uids = append(uids, p.Metadata.UID, p.Metadata.owner())
		}
	}
	for uid, s := range w.sets {
		if s.Metadata.owner() == uids[0] && s.Metadata.Annotations[revisionAnnotation] == t.workload.Metadata.Annotations[revisionAnnotation] {
			uids = append(uids, uid)
		}
	}
	latest := map[string]warning{}
	for _, uid := range uids {
		for reason, e := range w.events[uid] {
			if e.when >= latest[reason].when {
				latest[reason] = e
			}
		}
	}
	all = slices.SortedFunc(maps.Values(latest), func(a, b warning) int { return cmp.Or(cmp.Compare(a.when, b.when), cmp.Compare(a.reason, b.reason)) })
	return all[max(0, len(all)-mostWarnings):]
}

// logLines is how much of a container's log is shown, logTimeout how long it may take to come.
const (
	logLines   = 20
	logTimeout = 5 * time.Second
)

// userName is what Docker Hub's message about its limit says of who pulls.
var userName = regexp.MustCompile(`\bas '[^']*'`)

// explained adds to a result the last warning, and as its detail all of them and the container's last words; and reports it.
func (w *waiter) explained(ctx context.Context, t *tracked) Outcome {
	var b strings.Builder
	warnings := w.warnings(t)
	for _, e := range warnings {
		times := ""
		if e.count > 1 {
			times = fmt.Sprintf(", %d times", e.count)
		}
		fmt.Fprintf(&b, "  event %s (%s%s): %s\n", e.reason, e.about, times, e.message)
	}
	if n := len(warnings); n > 0 && !strings.Contains(t.result.Message, warnings[n-1].message) {
		t.result.Message += "; last event: " + warnings[n-1].reason + ": " + warnings[n-1].message
	}
	if t.blamed != nil && t.blamed.ran {
		b.WriteString(w.log(ctx, t.blamed))
	}
	t.result.Message = w.mask(userName.ReplaceAllString(t.result.Message, "as somebody"))
	t.result.Detail = w.mask(userName.ReplaceAllString(b.String(), "as somebody"))
	if w.options.Report != nil {
		w.options.Report(t.target, t.result)
	}
	return Outcome{t.target, t.result}
}

// log is the end of a container's log: that of the run that ended, where there is one.
func (w *waiter) log(ctx context.Context, of *trouble) string {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), logTimeout)
	defer stop()
	run := ""
	text, err := "", error(nil)
	if of.previous {
		run = " of its last run"
		text, err = w.cluster.Logs(ctx, of.pod.Namespace, of.pod.Name, of.container, true, logLines)
	}
	if !of.previous || apierrors.IsBadRequest(err) { // the kubelet has removed the container that ended
		run = ""
		text, err = w.cluster.Logs(ctx, of.pod.Namespace, of.pod.Name, of.container, false, logLines)
	}
	if err != nil || strings.TrimSpace(text) == "" {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  the log%s of container %s of pod %s ends with\n", run, of.container, of.pod.Name)
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		b.WriteString("    " + line + "\n")
	}
	return b.String()
}

// consumers finds out which claims wait for a pod that uses them, as their storage class says: those are not waited for, since
// their pods are.
func (w *waiter) consumers(ctx context.Context) error {
	modes := map[string]string{}
	for _, t := range w.all {
		if t.kind != claimKind || t.verdict.phase != progressing {
			continue
		}
		class, _, _ := unstructured.NestedString(t.live.Object, "spec", "storageClassName")
		mode, known := modes[class]
		if !known {
			o, err := w.cluster.Dynamic.Resource(classesResource).Get(ctx, class, metav1.GetOptions{})
			switch {
			case class == "" || apierrors.IsNotFound(err):
				mode = "Immediate"
			case apierrors.IsForbidden(err):
				mode = "unknown"
			case err != nil:
				return err
			default:
				mode, _, _ = unstructured.NestedString(o.Object, "volumeBindingMode")
			}
			modes[class] = mode
		}
		switch mode {
		case "WaitForFirstConsumer":
			t.done, t.result = true, Result{Rollout: handoff.RolloutNone, Message: "it is bound once a pod uses it"}
		case "unknown":
			t.done, t.result = true, Result{Rollout: handoff.RolloutNone, Message: "it is not bound; whether it waits for a pod is not known, as its storage class may not be read"}
		}
	}
	return nil
}

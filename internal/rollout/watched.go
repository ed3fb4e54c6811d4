package rollout

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// watchedPod is a pod and how long its containers have been in trouble.
type watchedPod struct {
	pod
	namespace string
	since     map[string]time.Time // by container
}

type replicaSet struct {
	Metadata metadata `json:"metadata"`
}

func (w *waiter) takePods(n news) error {
	if n.all {
		fresh := map[types.UID]bool{}
		for _, o := range n.objects {
			fresh[o.GetUID()] = true
		}
		for _, owned := range w.pods {
			maps.DeleteFunc(owned, func(uid types.UID, p *watchedPod) bool { return p.namespace == n.source.namespace && !fresh[uid] })
		}
	}
	for _, o := range n.objects {
		p := &watchedPod{namespace: n.source.namespace, since: map[string]time.Time{}}
		if err := decode(o, &p.pod); err != nil {
			return err
		}
		owner := p.Metadata.owner()
		if owner == "" {
			continue
		}
		if n.gone {
			delete(w.pods[owner], p.Metadata.UID)
			continue
		}
		if w.pods[owner] == nil {
			w.pods[owner] = map[types.UID]*watchedPod{}
		}
		if before := w.pods[owner][p.Metadata.UID]; before != nil {
			p.since = before.since
		}
		w.pods[owner][p.Metadata.UID] = p
	}
	return nil
}

func (w *waiter) takeSets(n news) error {
	if n.all {
		maps.DeleteFunc(w.sets, func(_ types.UID, s replicaSet) bool { return s.Metadata.Namespace == n.source.namespace })
	}
	for _, o := range n.objects {
		var s replicaSet
		if err := decode(o, &s); err != nil {
			return err
		}
		if n.gone {
			delete(w.sets, s.Metadata.UID)
		} else {
			w.sets[s.Metadata.UID] = s
		}
	}
	return nil
}

// Where controllers note which version a pod or ReplicaSet is of.
const (
	revisionAnnotation  = "deployment.kubernetes.io/revision"
	templateAnnotation  = "deprecated.daemonset.template.generation"
	templateLabel       = "pod-template-generation"
	controllerHashLabel = "controller-revision-hash"
)

// newPods are the target's pods of the version that rolls out, by name. Old ones may do what they want.
func (w *waiter) newPods(t *tracked) (pods []*watchedPod) {
	if t.workload.Kind != "Job" && t.workload.Status.ObservedGeneration < t.generation {
		return nil // which version is the new one is not known yet
	}
	uid := t.target.Live.GetUID()
	switch t.workload.Kind {
	case "Deployment":
		for _, s := range w.sets {
			if s.Metadata.owner() == uid && s.Metadata.Annotations[revisionAnnotation] == t.workload.Metadata.Annotations[revisionAnnotation] {
				pods = slices.AppendSeq(pods, maps.Values(w.pods[s.Metadata.UID]))
			}
		}
	default:
		for _, p := range w.pods[uid] {
			labels, old := p.Metadata.Labels, false
			switch t.workload.Kind {
			case "StatefulSet":
				old = labels[controllerHashLabel] != t.workload.Status.UpdateRevision
			case "DaemonSet":
				want := t.workload.Metadata.Annotations[templateAnnotation]
				old = want != "" && labels[templateLabel] != want
			}
			if !old {
				pods = append(pods, p)
			}
		}
	}
	slices.SortFunc(pods, func(a, b *watchedPod) int { return cmp.Compare(a.Metadata.Name, b.Metadata.Name) })
	return pods
}

// trouble finds a new pod of t whose trouble has lasted longer than there is patience with it.
func (w *waiter) trouble(t *tracked, now time.Time) (text string, blamed *pod) {
	for _, p := range w.newPods(t) {
		current := map[string]time.Time{}
		for _, trouble := range p.troubles(t.workload.Kind == "Job") {
			begin, known := p.since[trouble.container]
			if !known {
				begin = now
			}
			current[trouble.container] = begin
			if trouble.patience != forever && now.Sub(begin) >= trouble.patience {
				return trouble.text, &p.pod
			}
		}
		p.since = current
	}
	return "", nil
}

// slow is what the first new pod that is not ready waits for; empty: nothing is known.
func (w *waiter) slow(t *tracked) string {
	for _, p := range w.newPods(t) {
		if text := p.slow(); text != "" {
			return text
		}
	}
	return ""
}

// eventTimeout bounds the request for a failing pod's last event: the reason is good without it.
const eventTimeout = 3 * time.Second

// addEvent adds the last warning about the pod a failure was found in.
func (w *waiter) addEvent(ctx context.Context, t *tracked) {
	if t.blamed == nil {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), eventTimeout)
	defer stop()
	events := schema.GroupVersionResource{Version: "v1", Resource: "events"}
	list, err := w.cluster.Dynamic.Resource(events).Namespace(t.blamed.Metadata.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "type=Warning,involvedObject.uid=" + string(t.blamed.Metadata.UID)})
	if err != nil || len(list.Items) == 0 {
		return
	}
	last := slices.MaxFunc(list.Items, func(a, b unstructured.Unstructured) int { return cmp.Compare(when(a), when(b)) })
	reason, _, _ := unstructured.NestedString(last.Object, "reason")
	message, _, _ := unstructured.NestedString(last.Object, "message")
	if message = strings.TrimSpace(message); message != "" && !strings.Contains(t.result.Message, message) {
		t.result.Message += "; last event: " + reason + ": " + message
	}
}

// when an event was seen last, in a form that sorts. Events of the new API have their time elsewhere.
func when(event unstructured.Unstructured) string {
	for _, field := range []string{"lastTimestamp", "eventTime"} {
		if text, _, _ := unstructured.NestedString(event.Object, field); text != "" {
			return text
		}
	}
	return event.GetCreationTimestamp().UTC().Format(time.RFC3339)
}

package rollout

import (
	"cmp"
	"maps"
	"slices"
	"time"

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
		owner := cmp.Or(p.Metadata.owner(), p.Metadata.UID)
		if n.gone {
			delete(w.pods[owner], p.Metadata.UID)
			continue
		}
		if w.pods[owner] == nil {
			w.pods[owner] = map[types.UID]*watchedPod{}
		}
		if before := w.pods[owner][p.Metadata.UID]; before != nil {
			p.since = before.since
			p.remember(before.pod)
		} else {
			w.created(owner)
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
	if t.kind.Group == "apps" && t.workload.Status.ObservedGeneration < t.generation {
		return nil // which version is the new one is not known yet
	}
	uid := t.target.Live.GetUID()
	switch t.workload.Kind { // empty for a pod
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

// trouble finds a new pod of t whose trouble has lasted longer than there is patience with it; nil: none.
func (w *waiter) trouble(t *tracked, now time.Time) *trouble {
	for _, p := range w.newPods(t) {
		current := map[string]time.Time{}
		for _, trouble := range p.troubles(t.kind == jobKind) {
			begin, known := p.since[trouble.container]
			if !known {
				begin = now
			}
			current[trouble.container] = begin
			if trouble.patience != forever && now.Sub(begin) >= trouble.patience {
				return &trouble
			}
		}
		p.since = current
	}
	return nil
}

// slow is what the first new pod that is not ready waits for; nil: nothing is known.
func (w *waiter) slow(t *tracked) *trouble {
	for _, p := range w.newPods(t) {
		if slow := p.slow(); slow != nil {
			return slow
		}
	}
	return nil
}

package rollout

import (
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// metadata, and the types below, are the parts of the objects that a rollout shows in. Kubernetes' own Go types would bring
// tens of megabytes with them.
type metadata struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace"`
	UID               types.UID         `json:"uid"`
	Generation        int64             `json:"generation"`
	Labels            map[string]string `json:"labels"`
	Annotations       map[string]string `json:"annotations"`
	DeletionTimestamp string            `json:"deletionTimestamp"`
	CreationTimestamp string            `json:"creationTimestamp"`
	OwnerReferences   []struct {
		UID        types.UID `json:"uid"`
		Controller bool      `json:"controller"`
	} `json:"ownerReferences"`
}

// owner is the UID of the controller that made the object; empty: none.
func (m metadata) owner() types.UID {
	for _, ref := range m.OwnerReferences {
		if ref.Controller {
			return ref.UID
		}
	}
	return ""
}

type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// workload is a Deployment, StatefulSet, DaemonSet, ReplicaSet or Job.
type workload struct {
	Kind     string   `json:"kind"`
	Metadata metadata `json:"metadata"`
	Spec     struct {
		Replicas        *int64 `json:"replicas"`
		Paused          bool   `json:"paused"`
		Suspend         bool   `json:"suspend"`
		TTL             *int64 `json:"ttlSecondsAfterFinished"`
		Completions     *int64 `json:"completions"`
		MinReadySeconds int64  `json:"minReadySeconds"`
		UpdateStrategy  struct {
			Type          string `json:"type"`
			RollingUpdate struct {
				Partition int64 `json:"partition"`
			} `json:"rollingUpdate"`
		} `json:"updateStrategy"`
	} `json:"spec"`
	Status struct {
		ObservedGeneration     int64       `json:"observedGeneration"`
		Replicas               int64       `json:"replicas"`
		UpdatedReplicas        int64       `json:"updatedReplicas"`
		ReadyReplicas          int64       `json:"readyReplicas"`
		AvailableReplicas      int64       `json:"availableReplicas"`
		UpdateRevision         string      `json:"updateRevision"`
		DesiredNumberScheduled int64       `json:"desiredNumberScheduled"`
		UpdatedNumberScheduled int64       `json:"updatedNumberScheduled"`
		NumberAvailable        int64       `json:"numberAvailable"`
		Succeeded              int64       `json:"succeeded"`
		Conditions             []condition `json:"conditions"`
	} `json:"status"`
}

func decode(o *unstructured.Unstructured, into any) error {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); err != nil {
		return fmt.Errorf("read %s %s/%s: %w", o.GetKind(), o.GetNamespace(), o.GetName(), err)
	}
	return nil
}

func (w workload) condition(kind string) condition { return find(w.Status.Conditions, kind) }

// replicas is the number wanted; the server's default is 1.
func (w workload) replicas() int64 {
	if w.Spec.Replicas == nil {
		return 1
	}
	return *w.Spec.Replicas
}

func (w workload) judgeDeployment() verdict {
	want, s := w.replicas(), w.Status
	switch {
	case s.UpdatedReplicas >= want && s.Replicas == s.UpdatedReplicas && s.AvailableReplicas >= s.UpdatedReplicas:
		return verdict{phase: ready, text: pods(want)}
	case w.Spec.Paused:
		return verdict{phase: nothing, text: "it is paused: nothing rolls out until it is resumed"}
	}
	if c := w.condition("Progressing"); c.Status == "False" && c.Reason == "ProgressDeadlineExceeded" {
		return verdict{phase: failed, text: "its progress deadline is over: " + counts(s.UpdatedReplicas, s.AvailableReplicas, want)}
	}
	if c := w.condition("ReplicaFailure"); c.Status == "True" {
		return verdict{phase: stuck, text: "its pods cannot be created: " + c.Message}
	}
	if s.UpdatedReplicas >= want && s.AvailableReplicas >= want {
		return verdict{phase: progressing, text: fmt.Sprintf("%d old pods are still to go", s.Replicas-s.UpdatedReplicas)}
	}
	return verdict{phase: progressing, text: counts(s.UpdatedReplicas, s.AvailableReplicas, want)}
}

func (w workload) judgeStatefulSet() verdict {
	want, s := w.replicas(), w.Status
	available := s.ReadyReplicas
	if w.Spec.MinReadySeconds > 0 {
		available = s.AvailableReplicas
	}
	toUpdate := max(0, want-w.Spec.UpdateStrategy.RollingUpdate.Partition)
	switch {
	case w.Spec.UpdateStrategy.Type == "OnDelete" && s.UpdatedReplicas < want:
		return verdict{phase: nothing, text: fmt.Sprintf("its update strategy is OnDelete: %d of %d pods run the old version until they are deleted", want-s.UpdatedReplicas, want)}
	case s.UpdatedReplicas >= toUpdate && available >= want && s.Replicas <= want:
		text := pods(want)
		if toUpdate < want {
			text += fmt.Sprintf(", %d updated: the partition is %d", toUpdate, w.Spec.UpdateStrategy.RollingUpdate.Partition)
		}
		return verdict{phase: ready, text: text}
	}
	return verdict{phase: progressing, text: counts(s.UpdatedReplicas, available, want)}
}

func (w workload) judgeDaemonSet() verdict {
	want, s := w.Status.DesiredNumberScheduled, w.Status
	switch {
	case w.Spec.UpdateStrategy.Type == "OnDelete" && s.UpdatedNumberScheduled < want:
		return verdict{phase: nothing, text: fmt.Sprintf("its update strategy is OnDelete: %d of %d pods run the old version until they are deleted", want-s.UpdatedNumberScheduled, want)}
	case s.UpdatedNumberScheduled >= want && s.NumberAvailable >= want:
		return verdict{phase: ready, text: pods(want)}
	}
	return verdict{phase: progressing, text: counts(s.UpdatedNumberScheduled, s.NumberAvailable, want)}
}

func (w workload) judgeReplicaSet() verdict {
	want, s := w.replicas(), w.Status
	if c := w.condition("ReplicaFailure"); c.Status == "True" {
		return verdict{phase: stuck, text: "its pods cannot be created: " + c.Message}
	}
	if s.Replicas == want && s.AvailableReplicas >= want {
		return verdict{phase: ready, text: pods(want)}
	}
	return verdict{phase: progressing, text: counts(s.Replicas, s.AvailableReplicas, want)}
}

func (w workload) judgeJob() verdict {
	if c := w.condition("Complete"); c.Status == "True" {
		return verdict{phase: ready, text: "complete"}
	}
	if c := w.condition("Failed"); c.Status == "True" {
		text := c.Message
		if text == "" {
			text = c.Reason
		}
		return verdict{phase: failed, text: "the Job failed: " + text}
	}
	if w.Spec.Suspend {
		return verdict{phase: nothing, text: "it is suspended: nothing runs until it is resumed"}
	}
	want := int64(1)
	if w.Spec.Completions != nil {
		want = *w.Spec.Completions
	}
	return verdict{phase: progressing, text: fmt.Sprintf("%d of %d completions", w.Status.Succeeded, want)}
}

func counts(updated, available, want int64) string {
	return fmt.Sprintf("%d of %d pods updated, %d available", updated, want, available)
}

func pods(n int64) string {
	if n == 1 {
		return "1 pod"
	}
	return strconv.FormatInt(n, 10) + " pods"
}

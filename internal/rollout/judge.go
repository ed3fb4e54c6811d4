package rollout

import (
	"fmt"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// phase is how far an object is.
type phase int

const (
	progressing phase = iota
	ready
	failed
	stuck   // failed, unless it goes on within a moment
	nothing // it does not roll out, or not by itself
)

// verdict is what an object's own status says. The text says what was reached, what is awaited, or why it failed; it is empty
// for a kind of object that has nothing to reach.
type verdict struct {
	phase    phase
	text     string
	patience time.Duration // how long it may be stuck; 0: stuckPatience
}

func find(all []condition, kind string) condition {
	for _, c := range all {
		if c.Type == kind {
			return c
		}
	}
	return condition{}
}

// Judge says in a word how far an object is, for whoever wrote it at its present generation: ready, progressing, failed, or
// nothing for one that has nothing to reach. The text says more.
func Judge(o *unstructured.Unstructured) (word, text string, err error) {
	v, err := judge(o, o.GetGeneration())
	return [...]string{"progressing", "ready", "failed", "failed", "nothing"}[v.phase], v.text, err
}

// kinds that have a rule of their own; all others have conditions of a common form, or nothing to wait for.
var (
	replicaSetKind = schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}
	jobKind        = schema.GroupKind{Group: "batch", Kind: "Job"}
	claimKind      = schema.GroupKind{Kind: "PersistentVolumeClaim"}
	podKind        = schema.GroupKind{Kind: "Pod"}

	rules = map[schema.GroupKind]func(*unstructured.Unstructured, int64) (verdict, error){
		{Group: "apps", Kind: "Deployment"}:  ofWorkload(workload.judgeDeployment),
		{Group: "apps", Kind: "StatefulSet"}: ofWorkload(workload.judgeStatefulSet),
		{Group: "apps", Kind: "DaemonSet"}:   ofWorkload(workload.judgeDaemonSet),
		replicaSetKind:                       ofWorkload(workload.judgeReplicaSet),
		jobKind:                              judgeJob,
		claimKind:                            judgeClaim,
		podKind:                              judgePod,
		{Group: "batch", Kind: "CronJob"}:    never,
		{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}: judgeDefinition,
		{Group: "apiregistration.k8s.io", Kind: "APIService"}:             judgeAPIService,
		{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}:           judgeAutoscaler,
		{Group: "policy", Kind: "PodDisruptionBudget"}:                    never, // it lets pods go or not; either is fine
		{Kind: "Service"}: never,
		{Kind: "Event"}:   never,
	}
)

// never is the rule for what runs when its time comes, or not at all.
func never(*unstructured.Unstructured, int64) (verdict, error) {
	return verdict{phase: nothing, text: ""}, nil
}

// judge reads an object's status. generation is the one our write returned: a status that does not know it yet says nothing
// about it.
func judge(o *unstructured.Unstructured, generation int64) (verdict, error) {
	kind := o.GroupVersionKind().GroupKind()
	if o.GetDeletionTimestamp() != nil {
		if v, err := judgeJob(o, generation); kind == jobKind && v.phase == ready { // removed because it has finished
			return v, err
		}
		return verdict{phase: failed, text: "it is being deleted"}, nil
	}
	if rule, ok := rules[kind]; ok {
		return rule(o, generation)
	}
	return judgeConditions(o, generation)
}

const unseen = "its controller has not seen the change yet"

func ofWorkload(rule func(workload) verdict) func(*unstructured.Unstructured, int64) (verdict, error) {
	return func(o *unstructured.Unstructured, generation int64) (verdict, error) {
		var w workload
		if err := decode(o, &w); err != nil {
			return verdict{}, err
		}
		if w.Status.ObservedGeneration < generation {
			return verdict{phase: progressing, text: unseen}, nil
		}
		return rule(w), nil
	}
}

// judgeJob has no observedGeneration to look at; a Job's template cannot change.
func judgeJob(o *unstructured.Unstructured, _ int64) (verdict, error) {
	var w workload
	err := decode(o, &w)
	return w.judgeJob(), err
}

func judgeClaim(o *unstructured.Unstructured, _ int64) (verdict, error) {
	switch phase, _, _ := unstructured.NestedString(o.Object, "status", "phase"); phase {
	case "Bound":
		return verdict{phase: ready, text: "bound"}, nil
	case "Lost":
		return verdict{phase: failed, text: "its volume is lost"}, nil
	}
	return verdict{phase: progressing, text: "it is not bound to a volume"}, nil
}

// judgePod is for a pod that was applied itself, which nobody replaces when it fails.
func judgePod(o *unstructured.Unstructured, _ int64) (verdict, error) {
	var p pod
	if err := decode(o, &p); err != nil {
		return verdict{}, err
	}
	switch {
	case p.Status.Phase == "Succeeded":
		return verdict{phase: ready, text: "complete"}, nil
	case p.Status.Phase == "Failed":
		return verdict{phase: failed, text: "the pod failed"}, nil
	case find(p.Status.Conditions, "Ready").Status == "True":
		return verdict{phase: ready, text: "ready"}, nil
	}
	return verdict{phase: progressing, text: "it is not ready"}, nil
}

func judgeDefinition(o *unstructured.Unstructured, _ int64) (verdict, error) {
	all, err := conditions(o)
	if c := find(all, "NamesAccepted"); c.Status == "False" {
		return verdict{phase: failed, text: "its names are taken: " + c.Message}, err
	}
	if find(all, "Established").Status == "True" {
		return verdict{phase: nothing}, err // no rollout of its own: objects of it could not have been applied before
	}
	return verdict{phase: progressing, text: "it is not established"}, err
}

func judgeAPIService(o *unstructured.Unstructured, _ int64) (verdict, error) {
	all, err := conditions(o)
	c := find(all, "Available")
	if c.Status == "True" {
		return verdict{phase: ready, text: "available"}, err
	}
	return verdict{phase: progressing, text: reasoned("it is not available", c)}, err
}

// scalePatience is for an autoscaler that was there before what it scales: its controller looks again every 15 seconds.
const scalePatience = 45 * time.Second

// judgeAutoscaler waits until the autoscaler has found what it scales. That it has no metrics yet is how each begins.
func judgeAutoscaler(o *unstructured.Unstructured, _ int64) (verdict, error) {
	all, err := conditions(o)
	switch c := find(all, "AbleToScale"); c.Status {
	case "True":
		return verdict{phase: ready, text: "able to scale"}, err
	case "False":
		return verdict{phase: stuck, text: reasoned("it is not able to scale", c), patience: scalePatience}, err
	}
	return verdict{phase: progressing, text: "its controller has not seen it yet"}, err
}

// judgeConditions reads the conditions that most controllers of custom resources write: Ready, and those of kstatus, Reconciling
// and Stalled. An object whose controller writes none of them has nothing to wait for.
func judgeConditions(o *unstructured.Unstructured, generation int64) (verdict, error) {
	all, err := conditions(o)
	if err != nil || all == nil && observed(o) < 0 {
		return verdict{phase: nothing, text: ""}, nil // whose status has a form of its own
	}
	if seen := observed(o); seen >= 0 && seen < generation {
		return verdict{phase: progressing, text: unseen}, nil
	}
	c := find(all, "Ready")
	switch stalled := find(all, "Stalled"); {
	case stalled.Status == "True":
		return verdict{phase: stuck, text: reasoned("it is stalled", stalled)}, nil
	case find(all, "Reconciling").Status == "True":
		return verdict{phase: progressing, text: reasoned("it is being reconciled", find(all, "Reconciling"))}, nil
	case c.Status == "True":
		return verdict{phase: ready, text: "ready"}, nil
	case c.Status != "":
		return verdict{phase: progressing, text: reasoned("it is not ready", c)}, nil
	}
	return verdict{phase: nothing, text: ""}, nil
}

// conditions are those of the status; nil: it has none.
func conditions(o *unstructured.Unstructured) ([]condition, error) {
	var of struct {
		Status struct {
			Conditions []condition `json:"conditions"`
		} `json:"status"`
	}
	list, found, _ := unstructured.NestedFieldNoCopy(o.Object, "status", "conditions")
	if !found {
		return nil, nil
	}
	err := decode(&unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": list}}}, &of)
	return of.Status.Conditions, err
}

// observed is status.observedGeneration, which some controllers write as text; -1: there is none.
func observed(o *unstructured.Unstructured) int64 {
	switch v, _, _ := unstructured.NestedFieldNoCopy(o.Object, "status", "observedGeneration"); v := v.(type) {
	case int64:
		return v
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n
		}
	}
	return -1
}

// reasoned adds a condition's reason and message to a text.
func reasoned(text string, c condition) string {
	switch {
	case c.Message != "":
		return fmt.Sprintf("%s: %s", text, c.Message)
	case c.Reason != "":
		return fmt.Sprintf("%s: %s", text, c.Reason)
	}
	return text
}

package apply

import (
	"context"
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flakeship/flakeship/internal/cluster"
)

// Dry runs show who may not write. They do not show who may write, but not delete what has to be created again, nor watch what
// is waited for. The server says that for a whole namespace at once.

var reviews = schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectrulesreviews"}

// rules are what whoever deploys may do in a namespace.
type rules struct {
	Status struct {
		Incomplete    bool // an authorizer that has no list of rules may allow more
		ResourceRules []struct {
			Verbs, APIGroups, Resources, ResourceNames []string
		}
	}
}

// allow says whether the rules grant a verb on an object of a kind. A rule for other names does not count.
func (r *rules) allow(verb string, kind cluster.Kind, name string) bool {
	has := func(list []string, value string) bool {
		return slices.Contains(list, value) || slices.Contains(list, "*")
	}
	for _, rule := range r.Status.ResourceRules {
		named := len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, name) && verb != "list" && verb != "watch"
		if has(rule.Verbs, verb) && has(rule.APIGroups, kind.Group) && has(rule.Resources, kind.Resource) && named {
			return true
		}
	}
	return r.Status.Incomplete
}

// permit refuses items for whose sake something will have to be done that is not allowed: one request for each namespace in
// which something is to be written. A server that gives no such list is believed to allow it.
func (a *applier) permit(ctx context.Context) error {
	places := map[string][]*item{}
	for _, it := range a.items {
		if len(a.verbs(it)) > 0 && it.problem == nil && it.blocked == "" && it.kind.Namespaced {
			places[it.object.GetNamespace()] = append(places[it.object.GetNamespace()], it)
		}
	}
	for namespace, items := range places {
		body := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": map[string]any{"namespace": namespace}}}
		answer, err := a.cluster.Dynamic.Resource(reviews).Create(ctx, body, metav1.CreateOptions{})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var known rules
		if err != nil || fromObject(answer, &known) != nil {
			continue
		}
		for _, it := range items {
			for _, verb := range a.verbs(it) {
				if !known.allow(verb, it.kind, it.object.GetName()) {
					missing := cluster.Right{Verb: verb, Resource: it.kind.Resource, Group: it.kind.Group, Namespace: namespace}
					a.refuse(it, cluster.Diagnosis{Class: cluster.Denied, Text: missing.String(), Missing: &missing}, "")
					break
				}
			}
		}
	}
	return nil
}

// verbs are what will be asked of the server for an item after its dry run, beyond the write itself.
func (a *applier) verbs(it *item) (verbs []string) {
	switch {
	case it.plan == recreate:
		verbs = []string{"delete", "get"}
	case it.plan != write:
		return nil
	}
	if path := podSpecs[it.kind.GroupKind()]; a.options.Watched && len(path) == 3 { // neither a Pod nor a CronJob
		verbs = append(verbs, "list", "watch")
	}
	return verbs
}

func fromObject(o *unstructured.Unstructured, into any) error {
	text, err := json.Marshal(o.Object)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

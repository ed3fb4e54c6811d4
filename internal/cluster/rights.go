package cluster

import (
	"context"
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var reviews = schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectrulesreviews"}

// Rules are what whoever asks may do in a namespace.
type Rules struct {
	incomplete bool // an authorizer that has no list of rules may allow more
	rules      []resourceRule
}

type resourceRule struct {
	Verbs, APIGroups, Resources, ResourceNames []string
}

// Rules asks the server for all that is allowed in a namespace: one request. A server that gives no such list is believed to allow
// everything: it will say otherwise.
//
// Errors: ctx.Err().
func (c *Cluster) Rules(ctx context.Context, namespace string) (Rules, error) {
	body := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": map[string]any{"namespace": namespace}}}
	answer, err := c.Dynamic.Resource(reviews).Create(ctx, body, metav1.CreateOptions{})
	if ctx.Err() != nil {
		return Rules{}, ctx.Err()
	}
	var known struct {
		Status struct {
			Incomplete    bool
			ResourceRules []resourceRule
		}
	}
	if err == nil {
		var text []byte
		if text, err = json.Marshal(answer.Object); err == nil {
			err = json.Unmarshal(text, &known)
		}
	}
	return Rules{known.Status.Incomplete || err != nil, known.Status.ResourceRules}, nil
}

// Allow says whether the rules grant a verb on an object of a kind. A rule for other names does not count.
func (r Rules) Allow(verb string, kind Kind, name string) bool {
	has := func(list []string, value string) bool {
		return slices.Contains(list, value) || slices.Contains(list, "*")
	}
	for _, rule := range r.rules {
		named := len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, name) && verb != "list" && verb != "watch"
		if has(rule.Verbs, verb) && has(rule.APIGroups, kind.Group) && has(rule.Resources, kind.Resource) && named {
			return true
		}
	}
	return r.incomplete
}

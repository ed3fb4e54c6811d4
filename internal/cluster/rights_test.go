package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// What a list of rules allows, and what is believed of a server that gives none.
func TestRules(t *testing.T) {
	const list = `{"kind":"SelfSubjectRulesReview","apiVersion":"authorization.k8s.io/v1","status":{"incomplete":%s,"resourceRules":[
		{"verbs":["get","list"],"apiGroups":[""],"resources":["pods"]}, {"verbs":["*"],"apiGroups":["apps"],"resources":["*"]},
		{"verbs":["delete","list"],"apiGroups":[""],"resources":["secrets"],"resourceNames":["mine"]}]}}`
	pods, secrets := Kind{GroupVersionKind: schema.GroupVersionKind{Version: "v1"}, Resource: "pods"}, Kind{GroupVersionKind: schema.GroupVersionKind{Version: "v1"}, Resource: "secrets"}
	jobs, sets := Kind{GroupVersionKind: schema.GroupVersionKind{Group: "batch"}, Resource: "jobs"}, Kind{GroupVersionKind: schema.GroupVersionKind{Group: "apps"}, Resource: "replicasets"}
	for _, tt := range []struct {
		incomplete string // empty: the server refuses
		verb       string
		kind       Kind
		name       string
		want       bool
	}{
		{"false", "get", pods, "x", true},
		{"false", "delete", pods, "x", false},
		{"true", "delete", pods, "x", true},
		{"", "delete", pods, "x", true},
		{"false", "delete", sets, "x", true},
		{"false", "get", jobs, "x", false},
		{"false", "delete", secrets, "mine", true},
		{"false", "delete", secrets, "yours", false},
		{"false", "list", secrets, "mine", false}, // a list is of all names
	} {
		c := open(t, func(w http.ResponseWriter, r *http.Request) {
			if tt.incomplete == "" {
				fail(w, 403, "Forbidden", "no")
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, list, tt.incomplete)
		})
		rules, err := c.Rules(t.Context(), "n")
		if got := rules.Allow(tt.verb, tt.kind, tt.name); err != nil || got != tt.want {
			t.Errorf("incomplete %s: %s %s %s: %v, %v, want %v", tt.incomplete, tt.verb, tt.kind.Resource, tt.name, got, err, tt.want)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := open(t, http.NotFound).Rules(ctx, "n"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}

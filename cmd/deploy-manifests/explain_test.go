package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/deployset"
)

// What a finalizer holds is an error of its own: it says what is held, and whom to look for.
func TestExplainPrune(t *testing.T) {
	member := deployset.Member{Kind: cluster.Kind{}, Namespace: "shop", Name: "a"}
	member.Kind.Kind = "ConfigMap"
	err := explainPrune(&deployset.StuckError{Stuck: []deployset.Fate{{Member: member, Message: "was deleted and is still there: its finalizers are test.dev/hold"}, {}}}, "https://x.test")
	var f *action.Failure
	if !errors.As(err, &f) || f.Code != action.Failed || !strings.Contains(f.Hint, "finalizer") ||
		f.Error() != "everything runs, but not all is gone that has left the manifests: ConfigMap/shop/a was deleted and is still there: its finalizers are test.dev/hold, and 1 more" {
		t.Errorf("%+v", err)
	}
}

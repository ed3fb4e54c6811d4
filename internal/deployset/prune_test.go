package deployset

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/flakeship/flakeship/internal/cluster"
)

// racing has one object, and does something to it between the moment it is read and the moment it is to be deleted, which is too
// short for a real server to be caught in.
type racing struct {
	dynamic.NamespaceableResourceInterface
	live   *unstructured.Unstructured
	happen func(*racing)
	asked  []string // to be deleted, as what
}

func (r *racing) Resource(schema.GroupVersionResource) dynamic.NamespaceableResourceInterface {
	return r
}
func (r *racing) Namespace(string) dynamic.ResourceInterface { return r }

func (r *racing) Get(context.Context, string, metav1.GetOptions, ...string) (*unstructured.Unstructured, error) {
	if r.live == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{}, "a")
	}
	return r.live.DeepCopy(), nil
}

func (r *racing) Delete(_ context.Context, _ string, o metav1.DeleteOptions, _ ...string) error {
	if r.happen != nil {
		r.happen(r)
		r.happen = nil
	}
	r.asked = append(r.asked, fmt.Sprint(*o.Preconditions.UID, " ", *o.Preconditions.ResourceVersion))
	switch {
	case r.live == nil:
		return apierrors.NewNotFound(schema.GroupResource{}, "a")
	case r.live.GetUID() != *o.Preconditions.UID || r.live.GetResourceVersion() != *o.Preconditions.ResourceVersion:
		return apierrors.NewConflict(schema.GroupResource{}, "a", fmt.Errorf("Precondition failed"))
	}
	r.live = nil
	return nil
}

// What becomes of an object after it was looked at for the last time counts too: it is deleted only as what it was.
func TestPruneRace(t *testing.T) {
	version := func(uid, version string, labels map[string]string) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "a"}}}
		o.SetUID(types.UID(uid))
		o.SetResourceVersion(version)
		o.SetLabels(labels)
		return o
	}
	member := map[string]string{MemberLabel: "id"}
	for name, tt := range map[string]struct {
		happen func(*racing)
		asked  string
		gone   bool
		left   types.UID
	}{
		"nothing":               {nil, "[1 5]", true, ""},
		"it is replaced":        {func(r *racing) { r.live = version("2", "7", member) }, "[1 5]", true, "2"},
		"it is deleted":         {func(r *racing) { r.live = nil }, "[1 5]", true, ""},
		"it changes":            {func(r *racing) { r.live = version("1", "6", member) }, "[1 5 1 6]", true, ""},
		"it is taken out of it": {func(r *racing) { r.live = version("1", "6", nil) }, "[1 5]", false, "1"},
		"it is annotated as kept": {func(r *racing) {
			r.live = version("1", "6", member)
			r.live.SetAnnotations(map[string]string{PruneAnnotation: Keep})
		}, "[1 5]", false, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &racing{live: version("1", "5", member), happen: tt.happen}
			s := &Set{ID: "id", cluster: &cluster.Cluster{Dynamic: r}}
			fates, err := s.Prune(t.Context(), []Member{{Name: "a", UID: "1"}}, PruneOptions{Order: func(schema.GroupKind) int { return 0 }})
			var left types.UID
			if r.live != nil {
				left = r.live.GetUID()
			}
			if err != nil || fates[0].Gone != tt.gone || left != tt.left || fmt.Sprint(r.asked) != tt.asked {
				t.Errorf("%+v, %v; left is %q, asked for %v", fates, err, left, r.asked)
			}
		})
	}
}

// What is deleted and stays, because a finalizer holds it, is an error that says what holds it, when the wait is over.
func TestPruneIsStuck(t *testing.T) {
	live := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "a", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z",
		"labels": map[string]any{MemberLabel: "id"}, "finalizers": []any{"test.dev/hold"}}}}
	s := &Set{ID: "id", cluster: &cluster.Cluster{Dynamic: &racing{live: live}}}
	fates, err := s.Prune(t.Context(), []Member{{Kind: cluster.Kind{GroupVersionKind: schema.GroupVersionKind{Kind: "Thing"}}, Name: "a", UID: "1"}},
		PruneOptions{Order: func(schema.GroupKind) int { return 0 }, Wait: 50 * time.Millisecond})
	var stuck *StuckError
	if want := "Thing/a was deleted and is still there: its finalizers are test.dev/hold"; !errors.As(err, &stuck) || err.Error() != want || fates[0].Gone {
		t.Errorf("%v, want %s; %+v", err, want, fates)
	}
}

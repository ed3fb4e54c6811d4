package deployset

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/manifest"
)

// PruneAnnotation says of a member what becomes of it when it has left the manifests: Keep keeps it, Delete deletes it even if
// it is of a kind whose deletion takes data with it.
const (
	PruneAnnotation = "flakeship.dev/prune"
	Keep            = "keep"
	Delete          = "delete"
)

// precious are the kinds that are deleted only when their annotation says so.
var precious = map[schema.GroupKind]bool{
	{Kind: "Namespace"}:             true,
	{Kind: "PersistentVolumeClaim"}: true,
	{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}: true,
}

// Member is a member of the set that the manifests do not have.
type Member struct {
	Kind      cluster.Kind
	Namespace string
	Name      string
	UID       types.UID
	Kept      string // why it is not deleted; empty: it is to be
}

// ID is kind/namespace/name, or kind/name without a namespace.
func (m Member) ID() string {
	if m.Namespace == "" {
		return m.Kind.Kind + "/" + m.Name
	}
	return m.Kind.Kind + "/" + m.Namespace + "/" + m.Name
}

// NewMember is an object of the cluster as a member that is to go, unless its kind or its annotation is against it.
func NewMember(kind cluster.Kind, o metav1.Object) Member {
	return Member{kind, o.GetNamespace(), o.GetName(), o.GetUID(), keeps(kind.GroupKind(), o.GetAnnotations())}
}

// workers is how many requests are in flight.
const workers = 8

// Former finds the members that are not among objects, which have their namespaces: one LIST for each kind and namespace of the
// set. A kind that the server no longer knows has no members any more. fieldManager is who applies members: what only has
// the label, as Endpoints copy it from their Service, is none.
//
// They come in the order of their IDs. Errors are from the API server, see cluster.Diagnose.
func (s *Set) Former(ctx context.Context, kinds *cluster.Kinds, objects []manifest.Object, fieldManager string) ([]Member, error) {
	wanted := map[manifest.Key]bool{}
	for _, o := range objects {
		wanted[o.Key("")] = true
	}
	all := s.scope.union(scopeOf(objects, s.Namespace))
	namespaces := append(all.namespaces, s.Namespace)
	var mu sync.Mutex
	var former []Member
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for _, gk := range all.kinds {
		kind, err := kinds.Any(ctx, gk)
		if cluster.IsUnknownKind(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		places := namespaces
		if !kind.Namespaced {
			places = []string{""}
		}
		for _, ns := range places {
			group.Go(func() error {
				list, err := s.cluster.ListMetadata(inner, kind.GVR(), ns, MemberLabel+"="+s.ID)
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				for i := range list {
					o := &list[i]
					if !wanted[manifest.Key{GroupKind: gk, Namespace: o.Namespace, Name: o.Name}] && applied(o, fieldManager) {
						former = append(former, NewMember(kind, o))
					}
				}
				return nil
			})
		}
	}
	err := group.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	slices.SortFunc(former, func(a, b Member) int { return cmp.Compare(a.ID(), b.ID()) })
	return former, err
}

// applied says whether an object was applied by a field manager, and is not a controller's.
func applied(o *metav1.PartialObjectMetadata, fieldManager string) bool {
	return metav1.GetControllerOf(o) == nil && slices.ContainsFunc(o.ManagedFields, func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == fieldManager && e.Operation == metav1.ManagedFieldsOperationApply
	})
}

// keeps says why an object is not deleted; empty: it may be.
func keeps(gk schema.GroupKind, annotations map[string]string) string {
	switch {
	case annotations[PruneAnnotation] == Keep:
		return "its annotation " + PruneAnnotation + " says so"
	case precious[gk] && annotations[PruneAnnotation] != Delete:
		return fmt.Sprintf("a %s is deleted only when its annotation %s is %q", gk.Kind, PruneAnnotation, Delete)
	}
	return ""
}

// Fate is what became of a member.
type Fate struct {
	Member
	Gone    bool
	Message string // why it is still there
}

// StuckError are members that were deleted and are still there.
type StuckError struct{ Stuck []Fate }

func (e *StuckError) Error() string {
	s := e.Stuck[0].ID() + " " + e.Stuck[0].Message
	if more := len(e.Stuck) - 1; more > 0 {
		s += fmt.Sprintf(", and %d more", more)
	}
	return s
}

// PruneOptions are the settings of Prune.
type PruneOptions struct {
	Order  func(schema.GroupKind) int // the higher, the earlier it is deleted; those of one number go together
	Wait   time.Duration              // longest time until what was deleted is gone, since finalizers may hold it; 0: a minute
	Report func(Fate)                 // gets each member that is gone; calls do not overlap
}

// Prune deletes former members but for those that are kept. Each is looked at once more, and deleted only as what it was then:
// what somebody deleted, replaced, took out of the set or annotated meanwhile is left alone.
//
// The fates are those of all members, in their order. Errors: *StuckError; ctx.Err(); others from the API server.
func (s *Set) Prune(ctx context.Context, former []Member, o PruneOptions) ([]Fate, error) {
	if o.Wait == 0 {
		o.Wait = time.Minute
	}
	fates := make([]Fate, len(former))
	steps := map[int][]*Fate{}
	for i, m := range former {
		fates[i] = Fate{Member: m, Message: m.Kept}
		if m.Kept == "" {
			fates[i].Message = "it was not reached"
			steps[o.Order(m.Kind.GroupKind())] = append(steps[o.Order(m.Kind.GroupKind())], &fates[i])
		}
	}
	var order []int
	for step := range steps {
		order = append(order, step)
	}
	slices.Sort(order)
	var stuck []Fate
	var mu sync.Mutex
	for _, step := range slices.Backward(order) {
		group, inner := errgroup.WithContext(ctx)
		group.SetLimit(workers)
		for _, fate := range steps[step] {
			group.Go(func() error {
				err := s.remove(inner, fate, o.Wait)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case fate.Gone && o.Report != nil:
					o.Report(*fate)
				case err == nil && !fate.Gone && fate.Kept == "":
					stuck = append(stuck, *fate)
				}
				return err
			})
		}
		err := group.Wait()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			return fates, err
		}
	}
	if len(stuck) > 0 {
		return fates, &StuckError{stuck}
	}
	return fates, nil
}

// remove deletes one member and waits until it is gone.
func (s *Set) remove(ctx context.Context, fate *Fate, wait time.Duration) error {
	client := s.cluster.Dynamic.Resource(fate.Kind.GVR()).Namespace(fate.Namespace)
	propagation := metav1.DeletePropagationBackground
	deadline, deleted := time.Now().Add(wait), false
	for poll := 10 * time.Millisecond; ; poll = min(2*poll, time.Second) {
		live, err := client.Get(ctx, fate.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && live.GetUID() != fate.UID: // whatever took its name since is not ours
			fate.Gone, fate.Message = true, ""
			return nil
		case err != nil:
		case live.GetDeletionTimestamp() != nil:
			fate.Message = "was deleted and is still there: its finalizers are " + strings.Join(live.GetFinalizers(), ", ")
		case live.GetLabels()[MemberLabel] != s.ID:
			fate.Kept = "somebody took it out of the set"
		case keeps(fate.Kind.GroupKind(), live.GetAnnotations()) != "":
			fate.Kept = keeps(fate.Kind.GroupKind(), live.GetAnnotations())
		case !deleted:
			uid, version := live.GetUID(), live.GetResourceVersion()
			err = client.Delete(ctx, fate.Name, metav1.DeleteOptions{
				Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}, PropagationPolicy: &propagation})
			deleted = err == nil
			if apierrors.IsConflict(err) || apierrors.IsNotFound(err) { // changed since: look again
				err = nil
			}
		}
		if fate.Kept != "" {
			fate.Message = fate.Kept
			return nil
		}
		if err != nil && !cluster.Passing(err) {
			return err
		}
		if time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
}

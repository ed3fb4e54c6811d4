package apply

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"golang.org/x/sync/errgroup"

	"github.com/flakeship/flakeship/internal/cluster"
)

// pageSize is how many objects one LIST brings.
const pageSize = 500

// place is where objects of one kind, and of one set, live.
type place struct {
	schema.GroupVersionResource
	namespace string
	set       string // value of memberLabel; empty: of no set
}

// memberLabel is what makes an object a member of a set, in the form of an ApplySet (KEP-3659).
const memberLabel = "applyset.kubernetes.io/part-of"

// fewEnough is how many objects of one kind and namespace are asked for one by one when they are of no set. A LIST is one
// request for any number, but brings all others of the namespace too, and its Secrets can be many megabytes.
const fewEnough = 4

// look finds out what the cluster has of the items: one LIST for each kind and namespace, of the set's members where the items
// belong to a set. Whoever may not list or read at all can still apply, see dryRunOnce and item.outcome.
func (a *applier) look(ctx context.Context, items []*item) error {
	places := map[place][]*item{}
	for _, it := range items {
		p := place{it.kind.GVR(), it.object.GetNamespace(), it.object.GetLabels()[memberLabel]}
		places[p] = append(places[p], it)
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(a.options.Workers)
	for p, members := range places {
		if len(members) > fewEnough || p.set != "" && len(members) > 1 {
			group.Go(func() error { return list(inner, p.set, members) })
			continue
		}
		for _, it := range members {
			group.Go(func() error { return it.get(inner) })
		}
	}
	err := group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// list looks up items of one kind and namespace. One that is of a set and not found may still exist: outside of the set.
func list(ctx context.Context, set string, items []*item) error {
	byName := map[string]*item{}
	for _, it := range items {
		byName[it.object.GetName()] = it
	}
	first := metav1.ListOptions{Limit: pageSize}
	if set != "" {
		first.LabelSelector = memberLabel + "=" + set
	}
	client, options := items[0].client, first
	for found := 0; ; {
		page, err := listPage(ctx, client, options)
		if apierrors.IsResourceExpired(err) && options.Continue != "" { // the pages took too long: all at once, then
			found, options = 0, first
			options.Limit = 0
			continue
		}
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) { // a kind that was only just defined, or no right to list
			return nil
		}
		if err != nil {
			return err
		}
		for i := range page.Items {
			if it := byName[page.Items[i].GetName()]; it != nil {
				it.live, it.liveKnown = &page.Items[i], true
				found++
			}
		}
		if options.Continue = page.GetContinue(); options.Continue == "" || found == len(items) {
			break
		}
	}
	for _, it := range items {
		it.liveKnown = it.liveKnown || set == ""
	}
	return nil
}

func listPage(ctx context.Context, client dynamic.ResourceInterface, options metav1.ListOptions) (page *unstructured.UnstructuredList, err error) {
	err = cluster.Retry(ctx, func() error {
		page, err = client.List(ctx, options)
		return err
	})
	return page, err
}

// get looks up one item.
func (it *item) get(ctx context.Context) error {
	var live *unstructured.Unstructured
	err := cluster.Retry(ctx, func() (err error) {
		live, err = it.client.Get(ctx, it.object.GetName(), metav1.GetOptions{})
		return err
	})
	switch {
	case err == nil:
		it.live, it.liveKnown = live, true
	case apierrors.IsNotFound(err):
		it.live, it.liveKnown = nil, true
	case apierrors.IsForbidden(err):
		it.live, it.liveKnown = nil, false
	default:
		return err
	}
	return nil
}

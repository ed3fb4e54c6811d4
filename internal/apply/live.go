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

// place is where objects of one kind live.
type place struct {
	schema.GroupVersionResource
	namespace string
}

// fewEnough is how many objects of one kind and namespace are asked for one by one. A LIST is one request for any number, but
// brings all the others too: a namespace's Secrets can be many megabytes.
const fewEnough = 4

// look finds out what the cluster has of the items: one LIST for each kind and namespace, GETs where only a few objects are
// asked for. Whoever may not list is asked to get; whoever may not read at all can still apply, see item.outcome.
func (a *applier) look(ctx context.Context, items []*item) error {
	places := map[place][]*item{}
	for _, it := range items {
		p := place{it.kind.GVR(), it.object.GetNamespace()}
		places[p] = append(places[p], it)
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(a.options.Workers)
	for _, members := range places {
		if len(members) > fewEnough {
			group.Go(func() error {
				err := list(inner, members)
				if !apierrors.IsForbidden(err) {
					return err
				}
				for _, it := range members {
					if err := it.get(inner); err != nil {
						return err
					}
				}
				return nil
			})
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

// list looks up items of one kind and namespace.
func list(ctx context.Context, items []*item) error {
	byName := map[string]*item{}
	for _, it := range items {
		byName[it.object.GetName()] = it
	}
	client, options := items[0].client, metav1.ListOptions{Limit: pageSize}
	for found := 0; ; {
		page, err := listPage(ctx, client, options)
		if apierrors.IsResourceExpired(err) && options.Continue != "" { // the pages took too long: all at once, then
			found, options = 0, metav1.ListOptions{}
			continue
		}
		if apierrors.IsNotFound(err) { // a kind that was only just defined
			return nil
		}
		if err != nil {
			return err
		}
		for i := range page.Items {
			if it := byName[page.Items[i].GetName()]; it != nil {
				it.live = &page.Items[i]
				found++
			}
		}
		if options.Continue = page.GetContinue(); options.Continue == "" || found == len(items) {
			break
		}
	}
	for _, it := range items {
		it.liveKnown = true
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

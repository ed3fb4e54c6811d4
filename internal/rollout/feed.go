package rollout

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/flakeship/flakeship/internal/cluster"
)

// source is what one LIST and one WATCH bring: objects of a kind in a namespace.
type source struct {
	schema.GroupVersionResource
	namespace string
	fields    string // selector; empty: all
}

// news is what a feed tells.
type news struct {
	source  source
	all     bool                         // objects are all there are now
	objects []*unstructured.Unstructured // else: these changed
	gone    bool                         // else: these were deleted
	err     error                        // the feed has ended
}

// feed tells of every object of a source until ctx ends: all of them first, then each change. A watch that ends is taken
// up again where it ended, one the server no longer remembers starts over. What the server refuses ends the feed.
func feed(ctx context.Context, c *cluster.Cluster, s source, out chan<- news) {
	send := func(n news) {
		n.source = s
		select {
		case out <- n:
		case <-ctx.Done():
		}
	}
	client := c.Dynamic.Resource(s.GroupVersionResource).Namespace(s.namespace)
	for served := false; ctx.Err() == nil; served = true {
		options := metav1.ListOptions{Limit: 500, FieldSelector: s.fields}
		var all []*unstructured.Unstructured
		var page *unstructured.UnstructuredList
		for {
			err := patiently(ctx, served, func() (err error) {
				page, err = client.List(ctx, options)
				return err
			})
			if apierrors.IsResourceExpired(err) {
				all, options = nil, metav1.ListOptions{FieldSelector: s.fields}
				continue
			}
			if err != nil {
				send(news{err: err})
				return
			}
			for i := range page.Items {
				all = append(all, &page.Items[i])
			}
			if options.Continue = page.GetContinue(); options.Continue == "" {
				break
			}
		}
		send(news{all: true, objects: all})
		if err := follow(ctx, c, s, page.GetResourceVersion(), served, send); err != nil {
			send(news{err: err})
			return
		}
	}
}

// awayTime is how long the API server may be away while rollouts are awaited: nothing is lost by that.
const awayTime = time.Minute

// patiently asks again for as long as that may help. served says that the same was answered before: an API server that has only
// just started refuses it for a moment, until it has read its roles.
func patiently(ctx context.Context, served bool, do func() error) error {
	for begin := time.Now(); ; {
		err := cluster.Retry(ctx, do)
		if err == nil || time.Since(begin) > awayTime {
			return err
		}
		if passing := cluster.Passing(err) || served && apierrors.IsForbidden(err); !passing || pause(ctx) != nil {
			return err
		}
	}
}

// watchTime is how long one WATCH lasts: what gets lost without a trace, as by a proxy that forgets a connection, is found
// again after that.
const watchTime = int64(120)

// follow watches from version on. It returns nil when everything has to be listed again.
func follow(ctx context.Context, c *cluster.Cluster, s source, version string, served bool, send func(news)) error {
	client := c.Dynamic.Resource(s.GroupVersionResource).Namespace(s.namespace)
	seconds := watchTime
	for ; ctx.Err() == nil; served = true {
		var w watch.Interface
		err := patiently(ctx, served, func() (err error) {
			w, err = client.Watch(ctx, metav1.ListOptions{FieldSelector: s.fields, ResourceVersion: version, AllowWatchBookmarks: true, TimeoutSeconds: &seconds})
			return err
		})
		switch {
		case apierrors.IsResourceExpired(err) || apierrors.IsGone(err):
			return nil
		case err != nil:
			return err
		}
		for event := range w.ResultChan() {
			o, ok := event.Object.(*unstructured.Unstructured)
			if event.Type == watch.Error || !ok {
				w.Stop()
				return pause(ctx) // as a rule the version is too old; a server that says so at once must not be asked in a tight loop
			}
			version = o.GetResourceVersion()
			if event.Type != watch.Bookmark {
				send(news{objects: []*unstructured.Unstructured{o}, gone: event.Type == watch.Deleted})
			}
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(100 * time.Millisecond):
		return nil
	}
}

package cluster

import (
	"context"
	"net/http"
	"sync/atomic"
)

// fence keeps requests that write from being sent when check is against it.
type fence struct {
	next  http.RoundTripper
	check atomic.Pointer[func(context.Context) error]
}

// Fence has check asked before each request that is no mere look, from now on, but for Unfenced ones. Its error becomes the
// request's.
func (c *Cluster) Fence(check func(context.Context) error) { c.fence.check.Store(&check) }

type unfenced struct{}

// Unfenced is for requests that are sent whatever the fence says: those of the lock that it stands for.
func Unfenced(ctx context.Context) context.Context {
	return context.WithValue(ctx, unfenced{}, true)
}

func (f *fence) RoundTrip(r *http.Request) (*http.Response, error) {
	if check := f.check.Load(); check != nil && r.Method != http.MethodGet && r.Context().Value(unfenced{}) == nil {
		if err := (*check)(r.Context()); err != nil {
			if r.Body != nil {
				r.Body.Close()
			}
			return nil, err
		}
	}
	return f.next.RoundTrip(r)
}

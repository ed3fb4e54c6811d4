package cluster

import (
	"net/http"
	"sync/atomic"
)

// fence keeps requests that write from being sent when check is against it.
type fence struct {
	next  http.RoundTripper
	check atomic.Pointer[func() error]
}

// Fence has check asked before each request that is no mere look, from now on; its error becomes the request's. nil lifts it.
func (c *Cluster) Fence(check func() error) {
	if check == nil {
		c.fence.check.Store(nil)
		return
	}
	c.fence.check.Store(&check)
}

func (f *fence) RoundTrip(r *http.Request) (*http.Response, error) {
	if check := f.check.Load(); check != nil && r.Method != http.MethodGet {
		if err := (*check)(); err != nil {
			if r.Body != nil {
				r.Body.Close()
			}
			return nil, err
		}
	}
	return f.next.RoundTrip(r)
}

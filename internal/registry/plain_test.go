package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
)

// Without TLS, credentials go to registries that are named for that and to this very machine, and to no other: a private address is
// somebody else's as well.
func TestCredentialsInTheClear(t *testing.T) {
	noCredentials(t)
	inner := withManifest(t)
	var told atomic.Int64
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		told.Add(1)
		inner.ServeHTTP(w, r)
	}))
	network := http.DefaultTransport.(*http.Transport).Clone() // where every address leads to the server
	network.Proxy = nil
	network.DialContext = func(ctx context.Context, kind, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, kind, server)
	}
	for _, test := range []struct {
		host     string
		insecure []string
		want     bool
	}{
		{"127.0.0.1:5000", nil, true}, {"localhost:5000", nil, true}, {"registry.localhost:5000", nil, true}, {"[::1]:5000", nil, true},
		{"10.1.2.3:5000", nil, false}, {"192.168.1.2", nil, false}, {"172.16.0.1:5000", []string{"172.16.0.1"}, false}, {"registry.example.org:5000", nil, false},
		{"10.1.2.3:5000", []string{"10.1.2.3:5000"}, true}, {"registry.example.org:5000", []string{"other.example.org", "registry.example.org:5000"}, true},
	} {
		told.Store(0)
		c := Open(Options{Transport: network, Username: "ci", Password: "s3cret", Insecure: test.insecure})
		_, err := c.Head(t.Context(), test.host+"/team/api:v1")
		if got := err == nil && told.Load() > 0; got != test.want || !got && (!errors.Is(err, http.ErrSchemeMismatch) || told.Load() > 0) {
			t.Errorf("%s, insecure %v: %v, told %d times", test.host, test.insecure, err, told.Load())
		}
	}
}

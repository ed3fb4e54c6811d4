package push

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
	"github.com/flakeship/flakeship/internal/transport"
)

// A registry may keep uploads on another host, which the credentials are not for; whether they are a password or a token.
func TestOtherHostsGetNoCredentials(t *testing.T) {
	server := distribution.Start(t)
	image := Image{Name: "a", Path: archive(t, "amd64", layer(t, 1, 200_000))}
	for i, scheme := range []string{"Basic", "Bearer"} {
		var elsewhere, told atomic.Int64
		other := front(t, server, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			elsewhere.Add(1)
			if r.Header.Get("Authorization") != "" {
				t.Errorf("%s: the other host got %s %q", scheme, r.Method, r.Header.Get("Authorization"))
			}
			next.ServeHTTP(w, r)
		})
		host := front(t, server, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			user, password, _ := r.BasicAuth()
			known := user == "ci" && password == "s3cret"
			switch {
			case r.URL.Path == "/token" && known:
				fmt.Fprint(w, `{"token":"t0ken"}`)
				return
			case scheme == "Basic" && !known, scheme == "Bearer" && r.Header.Get("Authorization") != "Bearer t0ken":
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`%s realm="http://%s/token",service="s"`, scheme, r.Host))
				refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
				return
			}
			told.Add(1)
			r.Header.Del("Authorization") // the server behind this one wants none
			rec := &recorder{ResponseWriter: w, header: http.Header{}}
			next.ServeHTTP(rec, r)
			if at := rec.header.Get("Location"); isUpload(r) {
				rec.header.Set("Location", strings.Replace(at, r.Host, other, 1))
			}
			rec.flush()
		})
		image.Tag = nixHash(i)
		c := registry.Open(registry.Options{Transport: transport.New(transport.Options{RetryPost: true}), Push: true, Username: "ci", Password: "s3cret"})
		if _, err := Images(t.Context(), []Image{image}, Options{Client: c, Registry: host + "/" + strings.ToLower(scheme)}); err != nil {
			t.Errorf("%s: %v", scheme, err)
		}
		if elsewhere.Load() < 2 || told.Load() < 3 {
			t.Errorf("%s: %d requests to the other host, %d with credentials", scheme, elsewhere.Load(), told.Load())
		}
	}
	server.Check(t)
}

// A mount that is refused as if the credentials were wrong is nothing but a mount that is refused, and new tokens are not asked for
// without end.
func TestMountsRefusedWithATokenAtHand(t *testing.T) {
	server := distribution.Start(t)
	base := layer(t, 1, 50_000)
	images := []Image{{Name: "a", Tag: nixHash(1), Path: archive(t, "amd64", base)}, {Name: "b", Tag: nixHash(2), Path: archive(t, "amd64", base)}}
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		var tokens atomic.Int64
		host := front(t, server, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			switch {
			case r.URL.Path == "/token":
				fmt.Fprintf(w, `{"token":"t%d"}`, tokens.Add(1))
				return
			case !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer t"), isMount(r):
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s",scope="repository:x:pull"`, r.Host))
				if isMount(r) {
					refuse(w, status, "DENIED", "not from there")
					return
				}
				refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
				return
			}
			r.Header.Del("Authorization")
			next.ServeHTTP(w, r)
		})
		c := registry.Open(registry.Options{Transport: transport.New(transport.Options{RetryPost: true}), Push: true, Username: "ci", Password: "s3cret"})
		if _, err := Images(t.Context(), images, Options{Client: c, Registry: fmt.Sprintf("%s/mount-%d", host, status)}); err != nil {
			t.Errorf("%d: %v", status, err)
		}
		if tokens.Load() > 12 {
			t.Errorf("%d: %d tokens", status, tokens.Load())
		}
	}
	if n := server.Check(t); n != 4 {
		t.Errorf("%d manifests", n)
	}
}

package push

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
	"github.com/flakeship/flakeship/internal/transport"
)

// front puts a handler before a real registry. It answers a request itself, changes it, or lets it through by calling next.
func front(t testing.TB, server distribution.Registry, handle func(w http.ResponseWriter, r *http.Request, next http.Handler)) (host string) {
	t.Helper()
	forward := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		// The Host header stays, so that the addresses of uploads lead back here.
		p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", server.Host, p.In.Host
	}, ErrorLog: log.New(io.Discard, "", 0)}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r, forward) }))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// faultClient is a fresh runner with the waits that the product has.
func faultClient() *registry.Client {
	return registry.Open(registry.Options{Transport: transport.New(transport.Options{RetryPost: true}), Push: true})
}

// isUpload and the like say what a request is.
func isUpload(r *http.Request) bool   { return strings.Contains(r.URL.Path, "/blobs/uploads/") }
func isManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
func isMount(r *http.Request) bool    { return r.URL.Query().Has("mount") }
func repoOf(r *http.Request) string {
	repo, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/")
	return repo
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

// Whatever a registry is like, what it has in the end is right.
func TestRegistriesWithWaysOfTheirOwn(t *testing.T) {
	server := distribution.Start(t)
	base := layer(t, 1, 200_000)
	images := []Image{
		{Name: "a", Tag: nixHash(1), Path: archive(t, "amd64", base, layer(t, 2, 1000))},
		{Name: "b", Tag: nixHash(2), Path: archive(t, "amd64", base, layer(t, 3, 1000))},
	}
	type handler = func(w http.ResponseWriter, r *http.Request, next http.Handler)
	onMount := func(status int) func(*testing.T) handler {
		return func(*testing.T) handler {
			return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				switch {
				case isMount(r) && status == http.StatusAccepted:
					r.URL.RawQuery = "" // an upload like any other
				case isMount(r):
					refuse(w, status, "UNSUPPORTED", "no mounts here")
					return
				}
				next.ServeHTTP(w, r)
			}
		}
	}
	elsewhere := func(w http.ResponseWriter, r *http.Request, next http.Handler, change func(location string) string) {
		rec := &recorder{ResponseWriter: w, header: http.Header{}}
		next.ServeHTTP(rec, r)
		if l := rec.header.Get("Location"); l != "" && isUpload(r) {
			rec.header.Set("Location", change(l))
		}
		rec.flush()
	}
	path := func(location string) string {
		if _, rest, ok := strings.Cut(location, "://"); ok {
			return rest[strings.IndexByte(rest, '/'):]
		}
		return location
	}
	for name, make := range map[string]func(t *testing.T) handler{
		"mount 202": onMount(202), "mount 400": onMount(400), "mount 401": onMount(401), "mount 403": onMount(403),
		"mount 404": onMount(404), "mount 405": onMount(405), "mount 500": onMount(500),
		"429 with Retry-After": func(t *testing.T) handler {
			var turn atomic.Int64
			return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if turn.Add(1)%5 == 0 {
					w.Header().Set("Retry-After", "1")
					refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "slow down")
					return
				}
				next.ServeHTTP(w, r)
			}
		},
		"500 when two write at once": func(t *testing.T) handler {
			var writers atomic.Int64
			return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method == http.MethodPut {
					if n := writers.Add(1); n > 1 {
						writers.Add(-1)
						refuse(w, http.StatusInternalServerError, "UNKNOWN", "package version already exists")
						return
					}
					defer writers.Add(-1)
				}
				next.ServeHTTP(w, r)
			}
		},
		"relative Location": func(t *testing.T) handler {
			return func(w http.ResponseWriter, r *http.Request, next http.Handler) { elsewhere(w, r, next, path) }
		},
		"Location on another host": func(t *testing.T) handler {
			other := front(t, server, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Header.Get("Authorization") != "" {
					t.Error("the other host was told the credentials")
				}
				next.ServeHTTP(w, r)
			})
			return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				elsewhere(w, r, next, func(location string) string { return "http://" + other + path(location) })
			}
		},
		"no blob in a PUT, chunks of a length": func(t *testing.T) handler {
			return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				switch {
				case !isUpload(r):
				case r.Method == http.MethodPost:
					w.Header().Set("OCI-Chunk-Min-Length", "150000")
				case r.Method == http.MethodPut && r.ContentLength > 0:
					refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "send it in chunks")
					return
				}
				next.ServeHTTP(w, r)
			}
		},
		"no HEAD": func(t *testing.T) handler {
			return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method == http.MethodHead {
					w.WriteHeader(http.StatusMethodNotAllowed)
					return
				}
				next.ServeHTTP(w, r)
			}
		},
		"no list of tags": func(t *testing.T) handler {
			return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if strings.HasSuffix(r.URL.Path, "/tags/list") {
					refuse(w, http.StatusForbidden, "DENIED", "no lists")
					return
				}
				next.ServeHTTP(w, r)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := front(t, server, make(t))
			prefix := host + "/" + strings.ReplaceAll(strings.ToLower(strings.ReplaceAll(name, ",", "")), " ", "-")
			for _, state := range []handoff.PushState{handoff.PushUploaded, handoff.PushUnchanged} {
				pushed, err := Images(t.Context(), images, Options{Client: faultClient(), Registry: prefix, Tags: []string{"main"}})
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range pushed {
					if p.State != state {
						t.Errorf("%s is %s, want %s", p.Name, p.State, state)
					}
					p.Repository = strings.Replace(p.Repository, host, server.Host, 1)
					checkPulled(t, []handoff.PushedImage{p})
				}
			}
		})
	}
	t.Cleanup(func() { server.Check(t) })
}

// recorder holds a response's headers back until flush.
type recorder struct {
	http.ResponseWriter
	header http.Header
	status int
	body   strings.Builder
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
func (r *recorder) flush() {
	for k, v := range r.header {
		r.ResponseWriter.Header()[k] = v
	}
	if r.status != 0 {
		r.ResponseWriter.WriteHeader(r.status)
	}
	io.WriteString(r.ResponseWriter, r.body.String())
}

// A tag that must not move and is where it should be is well; else it is told, in whatever words the registry has.
func TestImmutableTags(t *testing.T) {
	server := distribution.Start(t)
	image := func(seed uint64) []Image {
		return []Image{{Name: "a", Tag: nixHash(int(seed)), Path: archive(t, "amd64", layer(t, seed, 1000))}}
	}
	if _, err := Images(t.Context(), image(1), Options{Client: faultClient(), Registry: server.Host, Tags: []string{"main"}}); err != nil {
		t.Fatal(err)
	}
	for name, refusal := range map[string]func(w http.ResponseWriter){
		"ECR": func(w http.ResponseWriter) {
			refuse(w, 400, "TAG_INVALID", "The image tag 'main' already exists in the 'a' repository and cannot be overwritten because the repository is immutable.")
		},
		"Harbor": func(w http.ResponseWriter) {
			refuse(w, 412, "PRECONDITION", "Failed to process request due to 'a:main' configured as immutable.")
		},
		"409": func(w http.ResponseWriter) { refuse(w, 409, "CONFLICT", "conflict") },
		"403": func(w http.ResponseWriter) { refuse(w, 403, "DENIED", "tag main cannot be overwritten") },
	} {
		host := front(t, server, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/main") {
				refusal(w)
				return
			}
			next.ServeHTTP(w, r)
		})
		// The digest at the tag is not known, so the tag is written, as it would be after another job's push at the same time.
		o := Options{Client: faultClient(), Registry: host, Tags: []string{"main"}}
		r := newRun(o)
		groups, err := r.plan(image(1))
		if err != nil {
			t.Fatal(err)
		}
		g := groups[0]
		m, err := g.repo.Manifest(t.Context(), nixHash(1))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.write(t.Context(), g.repo, "main", m); err != nil {
			t.Errorf("%s: to where it is: %v", name, err)
		}
		pushed, err := Images(t.Context(), image(2), o)
		kept := new(TagError)
		if !errors.As(err, &kept) || kept.At != m.Digest || pushed[0].State != handoff.PushFailed {
			t.Errorf("%s: to another image: %v", name, err)
		}
	}
}

// Each connection is lost once, before the registry has the request and after. Nobody notices, and the registry is right.
func TestEveryConnectionMayBeLost(t *testing.T) {
	server := distribution.Start(t)
	base := layer(t, 1, 20_000)
	images := []Image{
		{Name: "a", Tag: nixHash(1), Path: archive(t, "amd64", base, layer(t, 2, 1000))},
		{Name: "b", Tag: nixHash(2), Path: archive(t, "amd64", base)},
	}
	requests := func(at int64, answered bool) (n int64) {
		var count atomic.Int64
		host := front(t, server, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if count.Add(1) != at {
				next.ServeHTTP(w, r)
				return
			}
			if answered {
				next.ServeHTTP(httptest.NewRecorder(), r)
			} else {
				io.CopyN(io.Discard, r.Body, 500)
			}
			panic(http.ErrAbortHandler)
		})
		prefix := fmt.Sprintf("%s/lost-%d-%t", host, at, answered)
		pushed, err := Images(t.Context(), images, Options{Client: faultClient(), Registry: prefix, Tags: []string{"main"}})
		if err != nil {
			t.Errorf("request %d, answered %t: %v", at, answered, err)
		}
		checkPulled(t, pushed)
		return count.Load()
	}
	n := requests(0, false)
	if n < 20 {
		t.Fatalf("%d requests", n)
	}
	var wait sync.WaitGroup
	slots := make(chan struct{}, 24)
	for at := int64(1); at <= n; at++ {
		slots <- struct{}{}
		wait.Go(func() {
			requests(at, at%2 == 0)
			requests(at, at%2 != 0)
			<-slots
		})
	}
	wait.Wait()
	server.Check(t)
}

// A token that runs out while it is used is got anew.
func TestTokenRunsOut(t *testing.T) {
	server := distribution.Start(t)
	var issued, used atomic.Int64
	host := front(t, server, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == "/token" {
			used.Store(0)
			fmt.Fprintf(w, `{"token":"t%d"}`, issued.Add(1))
			return
		}
		if r.Header.Get("Authorization") != fmt.Sprintf("Bearer t%d", issued.Load()) || used.Add(1) > 9 {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s"`, r.Host))
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "token expired")
			return
		}
		next.ServeHTTP(w, r)
	})
	var layers [][]byte
	for i := range 12 {
		layers = append(layers, layer(t, uint64(i), 200_000))
	}
	images := []Image{{Name: "a", Tag: nixHash(1), Path: archive(t, "amd64", layers...)}}
	o := Options{Registry: host, Client: registry.Open(registry.Options{
		Transport: transport.New(transport.Options{RetryPost: true}), Push: true, Username: "ci", Password: "s3cret", Jobs: 1})}
	if _, err := Images(t.Context(), images, o); err != nil {
		t.Fatal(err)
	}
	if issued.Load() < 3 {
		t.Errorf("%d tokens", issued.Load())
	}
	server.Check(t)
}

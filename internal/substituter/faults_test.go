package substituter

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
)

// What goes wrong on a bad day, in front of a cache with every second one of 200 images. What a second try can mend changes no
// verdict; what it cannot is an error of the images behind it, and of no other. Nothing outlasts the deadline.
func TestFaults(t *testing.T) {
	const images = 200
	f := newFolder(t)
	var names []string
	for i := range images {
		names = append(names, fmt.Sprint("app", i))
		if i%2 == 0 {
			f.add(info(ours, names[i], fmt.Sprint("lib", i%20)))
		}
		if i < 20 {
			f.add(info(ours, fmt.Sprint("lib", i)))
		}
	}
	cache, err := binarycache.New(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	stalled := "/" + path("app4").Hash() + ".narinfo"
	cut := func(w http.ResponseWriter) net.Conn {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		return conn
	}
	tests := []struct {
		name string
		// fault answers request n, or says that it did not.
		fault func(w http.ResponseWriter, r *http.Request, n int64) bool
		// undecided is the image whose verdict is an error; "*": that of some; empty: of none.
		undecided string
	}{
		{name: "one in ten is answered 503", fault: func(w http.ResponseWriter, r *http.Request, n int64) bool {
			if n%10 != 0 {
				return false
			}
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(503)
			return true
		}},
		{name: "one stalls once", fault: func() func(w http.ResponseWriter, r *http.Request, n int64) bool {
			var before atomic.Bool
			return func(w http.ResponseWriter, r *http.Request, n int64) bool {
				if r.URL.Path != stalled || before.Swap(true) {
					return false
				}
				<-r.Context().Done()
				return true
			}
		}()},
		{name: "one stalls for ever", undecided: "app4", fault: func(w http.ResponseWriter, r *http.Request, n int64) bool {
			if r.URL.Path != stalled {
				return false
			}
			<-r.Context().Done()
			return true
		}},
		{name: "connections are reset", fault: func(w http.ResponseWriter, r *http.Request, n int64) bool {
			if n%10 != 0 {
				return false
			}
			conn := cut(w)
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
			return true
		}},
		{name: "answers are cut short", fault: func(w http.ResponseWriter, r *http.Request, n int64) bool {
			if n%10 != 0 {
				return false
			}
			conn := cut(w)
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nStorePath: /nix/store/")
			conn.Close()
			return true
		}},
		{name: "it dies half-way", undecided: "*", fault: func(w http.ResponseWriter, r *http.Request, n int64) bool {
			if n < images/2 {
				return false
			}
			cut(w).Close()
			return true
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/nix-cache-info" || !test.fault(w, r, n.Add(1)) {
					cache.ServeHTTP(w, r)
				}
			}))
			defer srv.Close()
			s := open(t, Options{Timeout: 2 * time.Second}, srv.URL)
			ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
			defer stop()
			var paths []storepath.Path
			for _, name := range names {
				paths = append(paths, path(name))
			}
			failed := 0
			for i, v := range s.Check(ctx, paths) {
				want := handoff.StateMissing
				if i%2 == 0 {
					want = handoff.StateCached
				}
				if v.State == handoff.StateError && (test.undecided == "*" || test.undecided == names[i]) {
					failed++
				} else if v.State != want {
					t.Errorf("%s is %s, %q, want %s", names[i], v.State, v.Reason, want)
				}
			}
			if (failed > 0) != (test.undecided != "") {
				t.Errorf("%d images not decided, want %q", failed, test.undecided)
			}
			if ctx.Err() != nil {
				t.Error("it took two minutes")
			}
		})
	}
}

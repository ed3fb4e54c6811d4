package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"strings"
	"sync/atomic"

	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

// server is a docker-registry behind a proxy that counts.
type server struct {
	host            string
	requests, bytes atomic.Int64
	stop            func()
}

func serve(dir string) (*server, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	registry, stop, err := distribution.Run(dir)
	if err != nil {
		return nil, err
	}
	s := &server{}
	forward := &httputil.ReverseProxy{
		// The Host header stays the proxy's, so that uploads come back to it.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", registry.Host, r.In.Host
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		r.Body = &counted{r.Body, &s.bytes}
		forward.ServeHTTP(w, r)
	}))
	s.host = strings.TrimPrefix(proxy.URL, "http://")
	s.stop = func() {
		proxy.Close()
		stop()
	}
	return s, nil
}

func (s *server) reset() {
	s.requests.Store(0)
	s.bytes.Store(0)
}

// counted adds what is read of a request's body.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

// server is a registry behind a proxy that counts, behind one that delays.
type server struct {
	host            string
	requests, bytes atomic.Int64
	stop            func()
}

// serve runs a registry on dir that is a round trip of rtt away.
func serve(dir string, rtt time.Duration) (*server, error) {
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
		Transport: &http.Transport{MaxIdleConnsPerHost: 100},
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		r.Body = &countedBody{r.Body, &s.bytes}
		forward.ServeHTTP(w, r)
	}))
	s.host = strings.TrimPrefix(proxy.URL, "http://")
	undelay := func() {}
	if rtt > 0 {
		if s.host, undelay, err = delay(s.host, rtt); err != nil {
			return nil, err
		}
	}
	s.stop = func() {
		undelay()
		proxy.CloseClientConnections()
		proxy.Close()
		stop()
	}
	return s, nil
}

func (s *server) reset() {
	s.requests.Store(0)
	s.bytes.Store(0)
}

// countedBody adds what is read of a request's body.
type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// delay puts a round trip of rtt between the returned address and host. A new connection costs one, as TCP's does; what is
// sent arrives half of one later, however much it is.
func delay(addr string, rtt time.Duration) (host string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return // stopped
			}
			go func() {
				time.Sleep(rtt)
				far, err := net.Dial("tcp", addr)
				if err != nil {
					near.Close()
					return
				}
				go late(far, near, rtt/2)
				late(near, far, rtt/2)
			}()
		}
	}()
	return listener.Addr().String(), func() { listener.Close() }, nil
}

// late copies from one connection to another, each piece a while after it came.
func late(to, from net.Conn, after time.Duration) {
	type piece struct {
		at    time.Time
		bytes []byte
	}
	pieces := make(chan piece, 256) // 16 MiB on their way are more than loopback fills
	go func() {
		defer close(pieces)
		for {
			b := make([]byte, 64<<10)
			n, err := from.Read(b)
			if n > 0 {
				pieces <- piece{time.Now().Add(after), b[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.at))
		if _, err := to.Write(p.bytes); err != nil {
			from.Close()
		}
	}
	to.(*net.TCPConn).CloseWrite()
}

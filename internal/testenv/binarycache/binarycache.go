// Package binarycache is a Nix binary cache over HTTP on a folder, for tests:
// what `nix copy --to http://…` writes to and `nix build` substitutes from. It
// can be told to fail in the ways real caches do.
package binarycache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault makes the cache fail.
type Fault struct {
	// Match selects the requests by URL path, `\.narinfo$` for example; nil is all of them.
	Match *regexp.Regexp
	// Methods selects by method; empty is all of them.
	Methods []string
	// Status is answered, with a short text. Zero lets the request through,
	// which is of use with Delay.
	Status int
	// Header is added to the answer: Retry-After, WWW-Authenticate.
	Header http.Header
	// Delay comes before the answer.
	Delay time.Duration
	// Hang never answers; the request ends when the client or the cache does.
	Hang bool
	// Times is how many requests fail before the cache is well again; zero is all.
	Times int
}

// Request is one request the cache was asked.
type Request struct {
	Method   string
	Path     string
	Status   int   // 0 when it hung
	Received int64 // bytes of the body
	Sent     int64 // bytes of the answer's body
}

// Cache is the folder and the handler that serves it. Its methods may be
// called from several goroutines.
type Cache struct {
	Dir string
	// User and Password, when set, are asked for (basic authentication).
	User, Password string

	mu       sync.Mutex
	fault    *Fault
	requests []Request
	hanging  int // requests in flight that are never answered
	closed   chan struct{}
}

// New makes a cache on dir, which is made when missing.
func New(dir string) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return &Cache{Dir: dir, closed: make(chan struct{})}, nil
}

// Server is a cache that listens on a free loopback port.
type Server struct {
	*Cache
	URL string // http://127.0.0.1:port

	server *http.Server
}

// Start serves dir until Close.
func Start(dir string) (*Server, error) {
	cache, err := New(dir)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{Cache: cache, URL: "http://" + listener.Addr().String(), server: &http.Server{Handler: cache}}
	go func() { _ = s.server.Serve(listener) }() // ends with Close
	return s, nil
}

// Close ends the server and every request in flight. Closing again does nothing.
func (s *Server) Close() {
	s.mu.Lock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	s.mu.Unlock()
	_ = s.server.Close() // of listeners and idle connections: nothing to do about it
}

// Fail makes the cache fail from now on; nil makes it well.
func (c *Cache) Fail(f *Fault) {
	if f != nil {
		copied := *f // Times is counted down
		f = &copied
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// Requests returns the requests since the last call, in order of their end.
func (c *Cache) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	requests := c.requests
	c.requests = nil
	return requests
}

// served are the paths Nix reads and writes. Nothing else exists, so no request
// gets out of the folder.
var served = regexp.MustCompile(`^(nix-cache-info|[0-9a-z]{32}\.(narinfo|ls)|(nar|log|debuginfo|realisations)/[0-9A-Za-z+\-._?=!:]+)$`)

const cacheInfo = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"

// ServeHTTP answers GET, HEAD and PUT.
func (c *Cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := &statusWriter{ResponseWriter: w}
	body := &countingReader{Reader: r.Body}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.requests = append(c.requests, Request{r.Method, r.URL.Path, out.status, body.bytes, out.bytes})
	}()
	if c.failed(out, r) {
		return
	}
	if user, password, _ := r.BasicAuth(); c.User != "" && (user != c.User || password != c.Password) {
		out.Header().Set("WWW-Authenticate", `Basic realm="binary cache"`)
		http.Error(out, "this cache wants a user and a password", http.StatusUnauthorized)
		return
	}
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	if !served.MatchString(name) {
		http.NotFound(out, r)
		return
	}
	file := filepath.Join(c.Dir, filepath.FromSlash(name))
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		c.get(out, r, name, file)
	case http.MethodPut:
		if err := put(file, body); err != nil {
			http.Error(out, err.Error(), http.StatusInternalServerError)
			return
		}
		out.WriteHeader(http.StatusCreated)
	default:
		out.Header().Set("Allow", "GET, HEAD, PUT")
		http.Error(out, "method not allowed", http.StatusMethodNotAllowed)
	}
}

// failed applies the fault, if there is one for this request, and tells
// whether the request is over.
func (c *Cache) failed(w http.ResponseWriter, r *http.Request) bool {
	f, ok := c.takeFault(r)
	if !ok {
		return false
	}
	if f.Hang {
		c.hang(1)
		defer c.hang(-1)
		select {
		case <-r.Context().Done():
		case <-c.closed:
		}
		panic(http.ErrAbortHandler) // no answer, not an empty one
	}
	select {
	case <-time.After(f.Delay):
	case <-r.Context().Done():
		return true
	}
	if f.Status == 0 {
		return false
	}
	for name, values := range f.Header {
		w.Header()[name] = values
	}
	http.Error(w, fmt.Sprintf("the cache was told to answer %d", f.Status), f.Status)
	return true
}

func (c *Cache) hang(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hanging += n
}

// Hanging returns how many requests wait for an answer that will not come.
func (c *Cache) Hanging() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hanging
}

func (c *Cache) takeFault(r *http.Request) (Fault, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.fault
	if f == nil || f.Match != nil && !f.Match.MatchString(r.URL.Path) {
		return Fault{}, false
	}
	if len(f.Methods) > 0 && !slices.Contains(f.Methods, r.Method) {
		return Fault{}, false
	}
	if f.Times > 0 {
		if f.Times--; f.Times == 0 {
			c.fault = nil
		}
	}
	return *f, true
}

func (c *Cache) get(w http.ResponseWriter, r *http.Request, name, file string) {
	text, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) && name == "nix-cache-info" {
		http.ServeContent(w, r, name, time.Time{}, strings.NewReader(cacheInfo))
		return
	}
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer text.Close()
	switch path.Ext(name) {
	case ".narinfo":
		w.Header().Set("Content-Type", "text/x-nix-narinfo")
	default:
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	http.ServeContent(w, r, "", time.Time{}, text)
}

// put writes the file under another name first: a broken upload leaves nothing
// that is served.
func put(file string, body io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".upload-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = io.Copy(f, body)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

type statusWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

type countingReader struct {
	io.Reader
	bytes int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.bytes += int64(n)
	return n, err
}

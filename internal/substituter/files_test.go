package substituter

import (
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
)

// A narinfo whose NAR is gone is believed unless the caller wants to know.
func TestVerifyNARs(t *testing.T) {
	nar := func(name string) string { return "nar/" + path(name).Hash() + ".nar" }
	for _, test := range []struct {
		name   string
		have   []string // NARs
		edit   string   // of app's narinfo, in place of its URL
		fault  *binarycache.Fault
		state  handoff.State
		reason string
	}{
		{name: "all there", have: []string{"app", "lib"}, state: handoff.StateCached},
		{name: "its own gone", have: []string{"lib"}, state: handoff.StateMissing, reason: "CACHE does not have it: its narinfo is there, but its NAR, " + nar("app") + ", is not"},
		{name: "a reference's gone", have: []string{"app"}, state: handoff.StatePartial, reason: path("lib").String() + ": CACHE does not have it: its narinfo is there, but"},
		{name: "no HEAD", have: []string{"app", "lib"}, fault: &binarycache.Fault{Status: 405, Methods: []string{"HEAD"}}, state: handoff.StateCached},
		{name: "no HEAD, gone", fault: &binarycache.Fault{Status: 405, Methods: []string{"HEAD"}}, state: handoff.StateMissing, reason: "is not"},
		{name: "503", have: []string{"app", "lib"}, fault: &binarycache.Fault{Status: 503, Methods: []string{"HEAD"}, Header: http.Header{"Retry-After": {"0"}}},
			state: handoff.StateError, reason: "HEAD CACHE/" + nar("app") + ": 503"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFolder(t).add(info(ours, "app", "lib"), info(ours, "lib"))
			if err := os.Mkdir(filepath.Join(f.dir, "nar"), 0o755); err != nil {
				t.Fatal(err)
			}
			for _, name := range test.have {
				f.write(nar(name), "a NAR")
			}
			srv := f.serve()
			srv.Fail(test.fault)
			expect(t, check(t, open(t, Options{}, srv.URL), "app")[0], handoff.StateCached, "", nil)
			urls := []string{srv.URL}
			if test.fault == nil {
				urls = append(urls, "file://"+f.dir)
			}
			for _, url := range urls {
				v := check(t, open(t, Options{VerifyNARs: true}, url), "app")[0]
				expect(t, v, test.state, strings.ReplaceAll(test.reason, "CACHE", url), nil)
			}
		})
	}
}

// A narinfo cannot send us to a file outside a folder.
func TestFolderIsNotLeft(t *testing.T) {
	n := info(none, "app")
	n.URL = "../secret"
	n.Sign(ours, storepath.DefaultDir)
	f := newFolder(t).add(n)
	if err := os.WriteFile(filepath.Join(filepath.Dir(f.dir), "secret"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, check(t, open(t, Options{VerifyNARs: true}, "file://"+f.dir), "app")[0], handoff.StateError, "leads out of the cache", nil)
}

// With HTTP/2 everything goes over one connection, which is opened for nix-cache-info already; the certificate is one that Nix
// was told to trust.
func TestTLS(t *testing.T) {
	f := newFolder(t)
	var names []string
	for i := range 300 {
		names = append(names, "app"+string(rune('a'+i%26))+strings.Repeat("x", i/26))
		f.add(info(ours, names[i]))
	}
	cache, err := binarycache.New(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	var connections, http1 atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			http1.Add(1)
		}
		cache.ServeHTTP(w, r)
	}))
	srv.EnableHTTP2 = true
	srv.Listener = &countingListener{srv.Listener, &connections}
	srv.StartTLS()
	defer srv.Close()

	expect(t, check(t, open(t, Options{}, srv.URL), "app")[0], handoff.StateError, "certificate", &RequestError{})
	file := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	connections.Store(0)
	for _, v := range check(t, open(t, Options{CertFile: file}, srv.URL), names...) {
		expect(t, v, handoff.StateCached, "", nil)
	}
	if http1.Load() > 0 || connections.Load() > 3 {
		t.Errorf("%d connections, %d requests of HTTP/1", connections.Load(), http1.Load())
	}
}

func TestBucketAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"s3://bucket": "https://bucket.s3.us-east-1.amazonaws.com/x",
		"s3://bucket/some/where?region=eu-west-1":          "https://bucket.s3.eu-west-1.amazonaws.com/some/where/x",
		"s3://cache.example.org?region=cn-north-1":         "https://s3.cn-north-1.amazonaws.com.cn/cache.example.org/x",
		"s3://bucket?endpoint=minio:9000&scheme=http":      "http://minio:9000/bucket/x",
		"s3://bucket?endpoint=https://minio.example.org/":  "https://minio.example.org/bucket/x",
		"s3://bucket?priority=3&endpoint=minio&profile=ci": "https://minio/bucket/x",
	} {
		c, err := parse(text, clients{}, Options{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := c.source.(*fileSource).url("x"); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
		u, err := url.Parse(c.name)
		if err != nil || u.Scheme != "s3" || u.Query().Has("priority") || strings.Contains(text, "profile") && u.Query().Get("profile") != "ci" {
			t.Errorf("%s is called %s", text, c.name)
		}
	}
}

type countingListener struct {
	net.Listener
	accepted *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	l.accepted.Add(1)
	return c, err
}

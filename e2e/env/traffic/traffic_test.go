package traffic_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/e2e/env/traffic"
)

func TestRecordAndRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.log")
	log, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	server := httptest.NewServer(traffic.Record(log, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "four")
	})))
	defer server.Close()
	if _, err := http.Post(server.URL+"/some/path?a=b", "text/plain", strings.NewReader("eleven char")); err != nil {
		t.Fatal(err)
	}
	requests, offset, err := traffic.Read(file, 0)
	if err != nil || len(requests) != 1 {
		t.Fatalf("Read = %+v, %v, want one request", requests, err)
	}
	got := requests[0]
	if got.Method != "POST" || got.Path != "/some/path" || got.Query != "a=b" || got.Status != 202 || got.Received != 11 || got.Sent != 4 {
		t.Errorf("recorded %+v", got)
	}

	// A line that is being written is left for the next time.
	if _, err := log.WriteString(`{"method":"GET","path"`); err != nil {
		t.Fatal(err)
	}
	if more, again, err := traffic.Read(file, offset); err != nil || len(more) != 0 || again != offset {
		t.Errorf("Read of half a line = %+v, %d, %v", more, again, err)
	}
	if _, err := log.WriteString(":\"/late\"}\n"); err != nil {
		t.Fatal(err)
	}
	if more, _, err := traffic.Read(file, offset); err != nil || len(more) != 1 || more[0].Path != "/late" {
		t.Errorf("Read of the whole line = %+v, %v", more, err)
	}
}

func TestReadSaysWhichFileIsBroken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(file, []byte("not JSON\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := traffic.Read(file, 0); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("error %v does not name %s", err, file)
	}
}

func TestSum(t *testing.T) {
	got := traffic.Sum([]traffic.Request{
		{Method: "HEAD", Path: "/v2/a/b/blobs/sha256:1", Status: 404, Sent: 10},
		{Method: "POST", Path: "/v2/a/b/blobs/uploads/", Query: "mount=sha256:1&from=c", Status: 201},
		{Method: "POST", Path: "/v2/a/b/blobs/uploads/", Status: 202},
		{Method: "PATCH", Path: "/v2/a/b/blobs/uploads/1", Status: 202, Received: 100},
		{Method: "PUT", Path: "/v2/a/b/blobs/uploads/1", Status: 201},
		{Method: "PATCH", Path: "/v2/a/b/blobs/uploads/2", Status: 0, Received: 30}, // broken off
		{Method: "PUT", Path: "/v2/a/b/manifests/latest", Status: 201, Received: 7},
		{Method: "PUT", Path: "/v2/a/b/manifests/bad", Status: 400, Received: 1},
	})
	want := traffic.Summary{
		Requests: 8, Blobs: 1, BlobBytes: 130, Mounts: 1, Manifests: 1, BytesIn: 138, BytesOut: 10, FailedCalls: 1,
	}
	if got != want {
		t.Errorf("Sum = %+v, want %+v", got, want)
	}
}

func TestRecordCountsWhatABrokenClientSent(t *testing.T) {
	var log bytes.Buffer
	handler := traffic.Record(&log, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	broken := io.MultiReader(strings.NewReader("123"), errReader{})
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("PATCH", "/", broken))
	if !strings.Contains(log.String(), `"received":3`) {
		t.Errorf("recorded %s", log.String())
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

package binarycache_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/testenv/binarycache"
)

const hash = "0c5wd4sn1wr2bqlxhg9d4ihvm2nfq2wl"

func start(t *testing.T) *binarycache.Server {
	t.Helper()
	s, err := binarycache.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// do returns the status and the text of the answer.
func do(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func TestPutThenGet(t *testing.T) {
	s := start(t)
	for _, name := range []string{
		"/" + hash + ".narinfo", "/" + hash + ".ls", "/nar/1b8m.nar.xz", "/log/" + hash + "-x.drv", "/realisations/sha256:ab!out.doi",
		"/nix-cache-info",
	} {
		if status, text := do(t, "HEAD", s.URL+name, ""); status != 404 && name != "/nix-cache-info" {
			t.Errorf("HEAD %s before PUT = %d %q, want 404", name, status, text)
		}
		if status, text := do(t, "PUT", s.URL+name, "text of "+name); status != 201 {
			t.Errorf("PUT %s = %d %q", name, status, text)
		}
		if status, text := do(t, "GET", s.URL+name, ""); status != 200 || text != "text of "+name {
			t.Errorf("GET %s = %d %q", name, status, text)
		}
		if status, text := do(t, "HEAD", s.URL+name, ""); status != 200 || text != "" {
			t.Errorf("HEAD %s = %d %q", name, status, text)
		}
	}
}

func TestNixCacheInfoIsThereFromTheStart(t *testing.T) {
	s := start(t)
	if status, text := do(t, "GET", s.URL+"/nix-cache-info", ""); status != 200 || text != "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n" {
		t.Errorf("GET nix-cache-info = %d %q", status, text)
	}
}

func TestNothingOutsideTheFolder(t *testing.T) {
	s := start(t)
	if err := os.WriteFile(filepath.Join(filepath.Dir(s.Dir), "secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/../secret", "/nar/../../secret", "/%2e%2e/secret", "/nar/%2e%2e%2f%2e%2e%2fsecret", "/", "/nar/", "/other/file"} {
		if status, text := do(t, "GET", s.URL+path, ""); status != 404 {
			t.Errorf("GET %s = %d %q, want 404", path, status, text)
		}
		if status, _ := do(t, "PUT", s.URL+path, "mine"); status != 404 {
			t.Errorf("PUT %s = %d, want 404", path, status)
		}
	}
	if status, _ := do(t, "DELETE", s.URL+"/nix-cache-info", ""); status != 405 {
		t.Errorf("DELETE = %d, want 405", status)
	}
}

func TestBrokenUploadLeavesNothing(t *testing.T) {
	s := start(t)
	body, writer := io.Pipe()
	go func() {
		_, _ = io.WriteString(writer, "half of a NAR")
		writer.CloseWithError(errors.New("the client died"))
	}()
	request, err := http.NewRequestWithContext(t.Context(), "PUT", s.URL+"/nar/1b8m.nar", body)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := http.DefaultClient.Do(request); err == nil {
		t.Errorf("a broken upload was answered %s", response.Status)
	}
	// The cache notices a little after the client; its list holds requests that are over.
	for deadline := time.Now().Add(5 * time.Second); len(s.Requests()) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the request does not end")
		}
	}
	files, err := os.ReadDir(filepath.Join(s.Dir, "nar"))
	if err != nil || len(files) > 0 {
		t.Errorf("left %v, %v", files, err)
	}
}

func TestFaults(t *testing.T) {
	s := start(t)
	narinfo := s.URL + "/" + hash + ".narinfo"
	do(t, "PUT", narinfo, "x")

	s.Fail(&binarycache.Fault{Status: 503, Header: http.Header{"Retry-After": {"1"}}, Match: regexp.MustCompile(`\.narinfo$`), Methods: []string{"GET"}, Times: 2})
	var got []int
	for _, ask := range [][2]string{{"HEAD", narinfo}, {"GET", s.URL + "/nix-cache-info"}, {"GET", narinfo}, {"GET", narinfo}, {"GET", narinfo}} {
		status, _ := do(t, ask[0], ask[1], "")
		got = append(got, status)
	}
	if diff := cmp.Diff([]int{200, 200, 503, 503, 200}, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}

	s.Fail(&binarycache.Fault{Status: 401})
	if status, _ := do(t, "GET", narinfo, ""); status != 401 {
		t.Errorf("GET = %d, want 401", status)
	}
	s.Fail(nil)
	if status, _ := do(t, "GET", narinfo, ""); status != 200 {
		t.Errorf("GET when well again = %d", status)
	}
}

func TestHang(t *testing.T) {
	s := start(t)
	s.Fail(&binarycache.Fault{Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/nix-cache-info", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := http.DefaultClient.Do(request); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("GET of a cache that hangs: %v, want the deadline", err)
	}
}

func TestCredentials(t *testing.T) {
	s := start(t)
	s.User, s.Password = "ci", "right"
	for userinfo, want := range map[string]int{"": 401, "ci:wrong@": 401, "ci:right@": 200} {
		url := strings.Replace(s.URL, "://", "://"+userinfo, 1) + "/nix-cache-info"
		if status, _ := do(t, "GET", url, ""); status != want {
			t.Errorf("GET %s = %d, want %d", url, status, want)
		}
	}
}

func TestRequests(t *testing.T) {
	s := start(t)
	do(t, "PUT", s.URL+"/nar/1b8m.nar", "12345")
	do(t, "GET", s.URL+"/"+hash+".narinfo", "")
	want := []binarycache.Request{
		{Method: "PUT", Path: "/nar/1b8m.nar", Status: 201, Received: 5},
		{Method: "GET", Path: "/" + hash + ".narinfo", Status: 404, Sent: int64(len("404 page not found\n"))},
	}
	if diff := cmp.Diff(want, s.Requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if more := s.Requests(); len(more) > 0 {
		t.Errorf("requests were given twice: %v", more)
	}
}

package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

// buildBinary makes a process that is only that, for tests that kill it or give it a terminal.
func buildBinary(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "push-images")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// The binary is killed at every tenth request it makes, and again at an earlier one when it is run again. No manifest in the
// registry ever names a blob that is not there, no file stays in the temporary folder, and the push that is let run to its
// end gets everything in: one more has nothing to do.
func TestKilledPush(t *testing.T) {
	dir := t.TempDir()
	binary := buildBinary(t)
	server := distribution.Start(t)
	temp := filepath.Join(dir, "temp")
	if err := os.Mkdir(temp, 0o755); err != nil {
		t.Fatal(err)
	}
	random := noise(4 << 20) // layers that do not shrink, so that sending them takes a while
	var list []string
	for i := range 8 {
		file := filepath.Join(dir, fmt.Sprintf("%d.tar", i))
		own := random[i<<17 : (i+1)<<17]
		if err := os.WriteFile(file, archive("amd64", random, own, own[:100]), 0o644); err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("svc%d:v1=%s", i, file))
	}

	// push is killed at a request: while the registry works on it or after it has, before the answer is back.
	push := func(prefix string, killAt int64) (requests int64, out string, err error) {
		var n atomic.Int64
		var cmd *exec.Cmd
		forward := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", server.Host, p.In.Host
		}, ErrorLog: log.New(io.Discard, "", 0)}
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) != killAt {
				forward.ServeHTTP(w, r)
				return
			}
			if killAt%20 == 0 {
				forward.ServeHTTP(httptest.NewRecorder(), r)
			}
			cmd.Process.Kill()
			panic(http.ErrAbortHandler)
		}))
		defer proxy.Close()
		cmd = exec.Command(binary, "--registry", strings.TrimPrefix(proxy.URL, "http://")+"/"+prefix, "--tags", "main",
			"--image", strings.Join(list, "\n"), "--out", filepath.Join(dir, "push.json"))
		cmd.Env = append(os.Environ(), "RUNNER_TEMP="+temp, "HOME="+dir, "DOCKER_CONFIG="+dir, "GITHUB_OUTPUT=")
		text, err := cmd.CombinedOutput()
		server.Check(t)
		if left, _ := os.ReadDir(temp); len(left) > 0 {
			t.Errorf("killed at request %d: the temporary folder has %v", killAt, left)
		}
		return n.Load(), string(text), err
	}

	killed := 0
	for at := int64(10); ; at += 10 {
		prefix := fmt.Sprintf("killed-at-%d", at)
		_, out, err := push(prefix, at)
		if err == nil {
			break // it has no such request
		}
		if !strings.Contains(err.Error(), "killed") {
			t.Fatalf("at request %d: %v\n%s", at, err, out)
		}
		killed++
		push(prefix, at/2) // may have fewer requests than that by now
		if _, out, err := push(prefix, 0); err != nil {
			t.Errorf("killed at request %d, run again: %v\n%s", at, err, out)
		}
		if _, out, err := push(prefix, 0); err != nil || !strings.Contains(out, "8 unchanged; 0 B sent") {
			t.Errorf("killed at request %d, pushed, and pushed once more: %v\n%s", at, err, out)
		}
	}
	if killed < 8 {
		t.Errorf("killed %d times only", killed)
	}
}

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
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

// Each answer with a body once ends in the middle of it. What was to be read is asked for again, and nobody notices.
func TestAnswersThatBreakOff(t *testing.T) {
	dir := t.TempDir()
	binary := buildBinary(t)
	server := distribution.Start(t)
	base := noise(1 << 17)
	var list []string
	write := func(name, own string) {
		t.Helper()
		file := filepath.Join(dir, name+own+".tar")
		if err := os.WriteFile(file, archive("amd64", base, own), 0o644); err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%s:%s=%s", name, own, file))
	}
	push := func(dry bool, breakAt int64) (answers int64, out string, err error) {
		var n atomic.Int64
		forward := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", server.Host, p.In.Host
		}, ErrorLog: log.New(io.Discard, "", 0)}
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			whole := httptest.NewRecorder()
			forward.ServeHTTP(whole, r)
			body := whole.Body.Bytes()
			for name, values := range whole.Header() {
				w.Header()[name] = values
			}
			if r.Method != http.MethodHead {
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			}
			w.WriteHeader(whole.Code)
			if len(body) > 0 && r.Method != http.MethodHead && n.Add(1) == breakAt {
				w.Write(body[:len(body)/2])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
			w.Write(body)
		}))
		defer proxy.Close()
		args := []string{"--registry", strings.TrimPrefix(proxy.URL, "http://") + "/team", "--tags", "main", "--image", strings.Join(list, "\n"), "--out", filepath.Join(dir, "push.json")}
		if dry {
			args = append(args, "--dry-run")
		}
		cmd := exec.Command(binary, args...)
		cmd.Env = append(os.Environ(), "RUNNER_TEMP="+dir, "HOME="+dir, "DOCKER_CONFIG="+dir, "GITHUB_OUTPUT=")
		text, err := cmd.CombinedOutput()
		return n.Load(), string(text), err
	}
	write("api", "v1")
	write("web", "v1")
	if _, out, err := push(false, 0); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	list = nil
	write("api", "v1") // which is there, and learned from
	write("web", "v2") // which is not
	answers, want, err := push(true, 0)
	if err != nil || !strings.Contains(want, "1 to upload, 1 unchanged") {
		t.Fatalf("%v\n%s", err, want)
	}
	if answers < 4 {
		t.Fatalf("%d answers with a body", answers)
	}
	for at := int64(1); at <= answers; at++ {
		if _, out, err := push(true, at); err != nil || !strings.Contains(out, "1 to upload, 1 unchanged") {
			t.Errorf("answer %d broke off: %v\n%s", at, err, out)
		}
	}
}

// A total every ten seconds, and none when it is over.
func TestATotalEveryTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []time.Duration
		start := time.Now()
		stop := every(interval, func() { told = append(told, time.Since(start)) })
		time.Sleep(35 * time.Second)
		stop()
		time.Sleep(time.Minute)
		if fmt.Sprint(told) != "[10s 20s 30s]" {
			t.Errorf("told after %v", told)
		}
	})
}

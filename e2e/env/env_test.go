package env_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/flakeship/flakeship/e2e/build"
	"github.com/flakeship/flakeship/e2e/env"
	"github.com/flakeship/flakeship/e2e/env/traffic"
)

// shared is an environment for all tests that do not stop theirs. TestMain
// stops it and looks whether anything is left.
var shared = sync.OnceValues(func() (*env.Env, error) {
	return env.Start(context.Background(), env.Options{Dir: sharedDir, Audit: true, Progress: os.Stderr})
})

var sharedDir string

func TestMain(m *testing.M) {
	if dir := os.Getenv("FLAKESHIP_START_AND_WAIT"); dir != "" {
		startAndWait(dir)
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	var err error
	if sharedDir, err = os.MkdirTemp("", "flakeship-env-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(sharedDir)
	code := m.Run()
	e, err := shared() // as a test got it, or now
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if code == 0 && len(processesOf(sharedDir)) < 6 {
		fmt.Fprintln(os.Stderr, "not all processes of the environment are found: ", processesOf(sharedDir))
		code = 1
	}
	e.Stop()
	e.Stop()
	if left := processesOf(sharedDir); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "left running after Stop:\n%s\n", strings.Join(left, "\n"))
		code = 1
	}
	return code
}

func start(t *testing.T) *env.Env {
	t.Helper()
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestRegistryTakesAPushAndCountsIt(t *testing.T) {
	e := start(t)
	image, err := random.Image(64<<10, 3)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var want int64
	for _, layer := range layers {
		size, err := layer.Size()
		if err != nil {
			t.Fatal(err)
		}
		want += size
	}
	config, err := image.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want += int64(len(config))

	push := func(repository string, options ...remote.Option) traffic.Summary {
		t.Helper()
		ref, err := name.ParseReference(e.Registry.Host+"/"+repository, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, image, options...); err != nil {
			t.Fatal(err)
		}
		requests, err := e.Registry.Traffic()
		if err != nil {
			t.Fatal(err)
		}
		return traffic.Sum(requests)
	}
	if got := push("team/api:1"); got.Blobs != 4 || got.BlobBytes != want || got.Manifests != 1 {
		t.Errorf("first push: %+v, want 4 blobs of %d bytes and a manifest", got, want)
	}
	if got := push("team/api:2"); got.Blobs != 0 || got.BlobBytes != 0 || got.Manifests != 1 {
		t.Errorf("second push: %+v, want a manifest and no blobs", got)
	}
	pulled, err := remote.Image(mustTag(t, e.Registry.Host+"/team/api:2"))
	if err != nil {
		t.Fatal(err)
	}
	gotDigest, _ := pulled.Digest()
	if wantDigest, _ := image.Digest(); gotDigest != wantDigest {
		t.Errorf("pulled %s, want %s", gotDigest, wantDigest)
	}
	image = pulled // knows where its layers are
	if got := push("team/web:1"); got.Mounts != 4 || got.Blobs != 0 || got.BlobBytes != 0 {
		t.Errorf("push to a second repository: %+v, want 4 mounts and no blobs", got)
	}
}

func TestRegistryAsksForCredentials(t *testing.T) {
	r, err := env.StartRegistry(t.Context(), env.Options{Dir: t.TempDir(), RegistryUser: "ci", RegistryPassword: "right"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	image, err := random.Image(1<<10, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref := mustTag(t, r.Host+"/api:1")
	for password, wantErr := range map[string]bool{"right": false, "wrong": true} {
		auth := remote.WithAuth(&authn.Basic{Username: "ci", Password: password})
		if err := remote.Write(ref, image, auth); (err != nil) != wantErr {
			t.Errorf("push with password %q: %v, want an error: %t", password, err, wantErr)
		}
	}
}

func mustTag(t *testing.T, ref string) name.Tag {
	t.Helper()
	tag, err := name.NewTag(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

func TestCacheAnswers(t *testing.T) {
	e := start(t)
	response, err := http.Get(e.Cache.URL + "/nix-cache-info")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(text), "StoreDir: /nix/store") {
		t.Errorf("nix-cache-info is %q, %v", text, err)
	}
}

func TestNothingOutlivesAKilledParent(t *testing.T) {
	dir := t.TempDir()
	services, err := build.Services(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FLAKESHIP_START_AND_WAIT="+dir, "FLAKESHIP_SERVICES="+services)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("up"))); err != nil {
		t.Fatalf("%v; %s", err, log.String())
	}
	if len(processesOf(dir)) < 6 {
		t.Fatalf("not all processes are found: %v", processesOf(dir))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	deadline := time.Now().Add(5 * time.Second)
	for len(processesOf(dir)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("left running:\n%s", strings.Join(processesOf(dir), "\n"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func startAndWait(dir string) {
	if _, err := env.Start(context.Background(), env.Options{Dir: dir, Services: os.Getenv("FLAKESHIP_SERVICES")}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print("up")
	select {}
}

// processesOf lists the command lines that name dir, of processes that are not
// dead and only waited for.
func processesOf(dir string) []string {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well-formed
	var found []string
	for _, file := range files {
		text, err := os.ReadFile(file) // empty for the dead
		if err == nil && strings.Contains(string(text), dir) {
			found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}

func TestFailedStartShowsTheLog(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "services")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho \"$1: disk is on fire\"; exit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := env.Start(t.Context(), env.Options{Dir: dir, Services: broken})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"registry: exit status 3", "registry: disk is on fire", "start cluster: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not contain %q", err, want)
		}
	}
	// Whichever of the cluster's processes is seen first to have ended.
	if !strings.Contains(err.Error(), "etcd: disk is on fire") && !strings.Contains(err.Error(), "kube-apiserver: disk is on fire") {
		t.Errorf("error %q shows the log of no process of the cluster", err)
	}
}

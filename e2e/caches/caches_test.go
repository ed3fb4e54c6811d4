// Package caches_test asks caches that are no web servers or folders: a real S3 server, and a machine behind a real sshd.
package caches_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flakeship/flakeship/e2e/build"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

var checkPath, buildPath, gatewayPath string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "flakeship-caches-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if gatewayPath, err = build.S3(context.Background(), os.Stderr); err != nil {
		log.Fatal(err)
	}
	root, err := build.Root()
	if err != nil {
		log.Fatal(err)
	}
	checkPath, buildPath = filepath.Join(dir, "nix-cache-check"), filepath.Join(dir, "nix-build-images")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", dir, "./cmd/nix-cache-check", "./cmd/nix-build-images")
	cmd.Dir = filepath.Dir(root)
	if out, err := cmd.CombinedOutput(); err != nil {
		log.Fatalf("build the actions: %v\n%s", err, out)
	}
	return m.Run()
}

// world is a flake with two images, of which a builder made one, and a runner with an empty store.
type world struct {
	t       *testing.T
	dir     string
	flake   string
	builder *nixstore.Store // has api, and what it refers to, signed
	runner  *nixstore.Store
	secret  string // file of the signing key
	key     string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir()}
	w.secret = filepath.Join(w.dir, "secret")
	if out, err := exec.Command("nix-store", "--generate-binary-cache-key", "ours-1", w.secret, w.dir+"/public").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(w.dir + "/public")
	if err != nil {
		t.Fatal(err)
	}
	w.key = strings.TrimSpace(string(public))
	w.builder = nixstore.New(t, "secret-key-files = "+w.secret)
	w.runner = nixstore.New(t)
	w.flake = nixstore.Flake(t, filepath.Join(w.dir, "repo"), map[string]string{
		"lib": `mk "lib" "echo lib > $out" { }`,
		"api": `image "api" "echo '{\"version\": 1, \"layers\": [], \"arch\": \"amd64\", \"image-config\": {\"Cmd\": [\"${self.packages.${system}.lib}\"]}}' > $out" { }`,
		"web": `image "web" "echo '{\"version\": 1, \"layers\": [], \"arch\": \"amd64\"}' > $out" { }`,
	})
	w.builder.Nix(t, "build", "--no-link", w.flake+"#api")
	return w
}

// check runs nix-cache-check against a cache, with variables added to the environment, and returns its exit code and log.
func (w *world) check(cache string, env ...string) (code int, said string) {
	w.t.Helper()
	return w.run(env, checkPath, "--flake", w.flake, "--substituters", cache, "--trusted-public-keys", w.key, "--out", w.plan())
}

func (w *world) plan() string { return filepath.Join(w.dir, "plan.json") }

// run runs an action on the runner.
func (w *world) run(env []string, path string, args ...string) (code int, said string) {
	w.t.Helper()
	ctx, stop := context.WithTimeout(w.t.Context(), 5*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = slices.DeleteFunc(append(w.runner.Env, "GITHUB_OUTPUT=", "GITHUB_STEP_SUMMARY=", "RUNNER_TEMP="+w.dir, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1",
		"AWS_EC2_METADATA_DISABLED=true"),
		func(kv string) bool {
			return strings.HasPrefix(kv, "AWS_ACCESS") || strings.HasPrefix(kv, "AWS_SECRET") || strings.HasPrefix(kv, "AWS_PROFILE")
		})
	cmd.Env = append(cmd.Env, env...)
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

// expect compares an exit code, and looks for each of patterns in a log.
func (w *world) expect(what string, code int, said string, want int, patterns ...string) {
	w.t.Helper()
	if code != want {
		w.t.Errorf("%s: exit code %d, want %d\n%s", what, code, want, said)
	}
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(said) {
			w.t.Errorf("%s: nothing fits %s in\n%s", what, p, said)
		}
	}
}

// freePort is one that nobody listens on at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// start runs a server until the test ends, and waits until it takes connections.
func start(t *testing.T, port string, cmd *exec.Cmd) {
	t.Helper()
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", cmd.Path, said.String())
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen", cmd.Path)
		}
	}
}

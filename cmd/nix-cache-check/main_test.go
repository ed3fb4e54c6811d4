package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flakeship/flakeship/internal/testenv/binarycache"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"nix-cache-check": main}) }

// TestStories runs testdata/*.txtar: each with a Nix store of its own, the installed nix, and caches and registries that listen
// on loopback.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Setup:               setup,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"commit":   commit,
			"keys":     keys,
			"cache":    startCache,
			"fault":    fault,
			"private":  private,
			"asked":    asked,
			"forget":   forget,
			"registry": startRegistry,
			"push":     push,
			"replace":  replace,
		},
	})
}

func setup(env *testscript.Env) error {
	store, err := nixstore.Make(filepath.Join(env.WorkDir, ".nix"))
	if err != nil {
		return err
	}
	env.Defer(func() { store.Remove() })
	for _, kv := range store.Env {
		name, value, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "NIX_") || strings.HasPrefix(name, "GIT_") || name == "XDG_CACHE_HOME" || name == "HOME" {
			env.Setenv(name, value)
		}
	}
	env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, ".docker"))
	env.Setenv("RUNNER_TEMP", filepath.Join(env.WorkDir, "runner-temp"))
	env.Values[servers{}] = map[string]*binarycache.Server{}
	return nil
}

// servers is the key of a script's caches, by name.
type servers struct{}

func cacheOf(ts *testscript.TestScript, name string) *binarycache.Server {
	srv := ts.Value(servers{}).(map[string]*binarycache.Server)[name]
	if srv == nil {
		ts.Fatalf("there is no cache %q", name)
	}
	return srv
}

// commit DIR: everything in DIR becomes a commit.
func commit(ts *testscript.TestScript, _ bool, args []string) {
	for _, line := range []string{"init -q -b main", "add -A", "-c user.name=test -c user.email=test@example.org commit -q --allow-empty -m change"} {
		cmd := exec.Command("git", append([]string{"-C", ts.MkAbs(args[0])}, strings.Fields(line)...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			ts.Fatalf("git %s: %v\n%s", line, err, out)
		}
	}
}

// keys NAME: a pair of signing keys, the secret one in $WORK/NAME.secret, the public one in the variable NAME_KEY.
func keys(ts *testscript.TestScript, _ bool, args []string) {
	public := ts.MkAbs(args[0] + ".public")
	ts.Check(ts.Exec("nix-store", "--generate-binary-cache-key", args[0]+"-1", ts.MkAbs(args[0]+".secret"), public))
	ts.Setenv(args[0]+"_KEY", strings.TrimSpace(ts.ReadFile(public)))
}

// cache NAME: serves the folder $WORK/NAME; its URL is in the variable NAME. "! cache NAME" stops it.
func startCache(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		cacheOf(ts, args[0]).Close()
		return
	}
	srv, err := binarycache.Start(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(srv.Close)
	ts.Value(servers{}).(map[string]*binarycache.Server)[args[0]] = srv
	ts.Setenv(args[0], srv.URL)
}

// fault NAME STATUS [PATTERN]: the cache answers STATUS, or hangs, where the URL's path fits PATTERN. "! fault NAME" makes it well.
func fault(ts *testscript.TestScript, neg bool, args []string) {
	srv := cacheOf(ts, args[0])
	if neg {
		srv.Fail(nil)
		return
	}
	f := &binarycache.Fault{Hang: args[1] == "hang"}
	if !f.Hang {
		var err error
		f.Status, err = strconv.Atoi(args[1])
		ts.Check(err)
	}
	if len(args) > 2 {
		f.Match = regexp.MustCompile(args[2])
	}
	srv.Fail(f)
}

// private NAME USER PASSWORD: the cache wants them.
func private(ts *testscript.TestScript, _ bool, args []string) {
	srv := cacheOf(ts, args[0])
	srv.User, srv.Password = args[1], args[2]
}

// asked NAME N: since the last time, the cache got N requests, all of them GET, none twice.
func asked(ts *testscript.TestScript, _ bool, args []string) {
	var paths []string
	for _, r := range cacheOf(ts, args[0]).Requests() {
		if r.Method != http.MethodGet || slices.Contains(paths, r.Path) {
			ts.Fatalf("%s %s, after %q", r.Method, r.Path, paths)
		}
		paths = append(paths, r.Path)
	}
	if strconv.Itoa(len(paths)) != args[1] {
		ts.Fatalf("%d requests instead of %s: %q", len(paths), args[1], paths)
	}
}

// forget NAME: "asked" counts from here.
func forget(ts *testscript.TestScript, _ bool, args []string) { cacheOf(ts, args[0]).Requests() }

// registry NAME [STATUS]: an empty container registry, its host and port in the variable NAME. With STATUS it answers that to everything.
func startRegistry(ts *testscript.TestScript, _ bool, args []string) {
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if len(args) > 1 {
		status, err := strconv.Atoi(args[1])
		ts.Check(err)
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			}
			http.Error(w, "the registry was told to", status)
		})
	}
	srv := httptest.NewServer(handler)
	ts.Defer(srv.Close)
	ts.Setenv(args[0], strings.TrimPrefix(srv.URL, "http://"))
}

// push REPOSITORY FILE: the registry gets an image; its tag is the hash of the store path that FILE holds.
func push(ts *testscript.TestScript, _ bool, args []string) {
	hash, _, _ := strings.Cut(filepath.Base(ts.ReadFile(args[1])), "-")
	ref, err := name.ParseReference(args[0] + ":" + hash)
	ts.Check(err)
	ts.Check(remote.Write(ref, empty.Image))
}

// replace FILE PATTERN TEXT: in the only file that fits the glob FILE.
func replace(ts *testscript.TestScript, _ bool, args []string) {
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) != 1 {
		ts.Fatalf("%d files fit %s", len(files), args[0])
	}
	old := ts.ReadFile(files[0])
	text := regexp.MustCompile(args[1]).ReplaceAllString(old, args[2])
	if text == old {
		ts.Fatalf("nothing in %s fits %s", args[0], args[1])
	}
	ts.Check(os.WriteFile(files[0], []byte(text), 0o644))
}

package main

import (
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flakeship/flakeship/internal/testenv/binarycache"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"nix-build-images": main}) }

// TestStories runs testdata/*.txtar: plans made by the real nix-cache-check, carried out with the installed nix in a store of
// the story's own, with caches and registries that listen on loopback.
func TestStories(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "../nix-cache-check").CombinedOutput(); err != nil {
		t.Fatalf("build nix-cache-check: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("RUNNER_TEMP", filepath.Join(env.WorkDir, "runner-temp"))
			env.Setenv("TMPDIR", filepath.Join(env.WorkDir, "tmp"))
			env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, ".docker"))
			env.Values[servers{}] = map[string]*binarycache.Server{}
			for _, dir := range []string{"runner-temp", "tmp"} {
				if err := os.Mkdir(filepath.Join(env.WorkDir, dir), 0o755); err != nil {
					return err
				}
			}
			return useStore(env.WorkDir, ".nix", env.Setenv, env.Defer)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"machine":    machine,
			"commit":     commit,
			"keys":       keys,
			"cache":      startCache,
			"fault":      fault,
			"private":    private,
			"requests":   requests,
			"registry":   startRegistry,
			"push":       push,
			"replace":    replace,
			"builders":   builders,
			"terminated": send(syscall.SIGTERM),
			"killed":     send(syscall.SIGKILL),
			"empty":      emptyFolder,
		},
	})
}

// useStore makes a Nix store in a folder and points the environment to it.
func useStore(work, dir string, setenv func(name, value string), after func(func())) error {
	store, err := nixstore.Make(filepath.Join(work, dir))
	if err != nil {
		return err
	}
	after(func() { store.Remove() })
	for _, kv := range store.Env {
		name, value, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "NIX_") || strings.HasPrefix(name, "GIT_") || name == "XDG_CACHE_HOME" || name == "HOME" {
			setenv(name, value)
		}
	}
	setenv("STORE", store.Root)
	return nil
}

// machine NAME: from here on everything runs on another machine, with a Nix store in which there is nothing yet. $STORE is
// where its files are.
func machine(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(useStore(ts.Getenv("WORK"), ".nix-"+args[0], ts.Setenv, ts.Defer))
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

// fault NAME STATUS [METHOD]: the cache answers STATUS, or hangs, to METHOD or to everything. "! fault NAME" makes it well.
func fault(ts *testscript.TestScript, neg bool, args []string) {
	srv := cacheOf(ts, args[0])
	if neg {
		srv.Fail(nil)
		return
	}
	f := &binarycache.Fault{Hang: args[1] == "hang", Methods: args[2:]}
	if !f.Hang {
		var err error
		f.Status, err = strconv.Atoi(args[1])
		ts.Check(err)
	}
	srv.Fail(f)
}

// private NAME USER PASSWORD: the cache wants them.
func private(ts *testscript.TestScript, _ bool, args []string) {
	srv := cacheOf(ts, args[0])
	srv.User, srv.Password = args[1], args[2]
}

// requests NAME METHOD PATTERN N: since the last time, so many requests came to the cache.
func requests(ts *testscript.TestScript, _ bool, args []string) {
	var fit []string
	pattern := regexp.MustCompile(args[2])
	for _, r := range cacheOf(ts, args[0]).Requests() {
		if r.Method == args[1] && pattern.MatchString(r.Path) {
			fit = append(fit, r.Path)
		}
	}
	if strconv.Itoa(len(fit)) != args[3] {
		ts.Fatalf("%d requests instead of %s: %q", len(fit), args[3], fit)
	}
}

// registry NAME: an empty container registry, its host and port in the variable NAME.
func startRegistry(ts *testscript.TestScript, _ bool, args []string) {
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	ts.Defer(srv.Close)
	ts.Setenv(args[0], strings.TrimPrefix(srv.URL, "http://"))
}

// push REPOSITORY FILE PATTERN: the registry gets an image at the tag that the pattern's first group finds in FILE.
func push(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile(args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if found == nil {
		ts.Fatalf("nothing in %s fits %s", args[1], args[2])
	}
	ref, err := name.ParseReference(args[0] + ":" + found[1])
	ts.Check(err)
	ts.Check(remote.Write(ref, empty.Image))
}

// replace FILE PATTERN TEXT: in each file that fits the glob FILE.
func replace(ts *testscript.TestScript, _ bool, args []string) {
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	for _, file := range files {
		old := ts.ReadFile(file)
		text := regexp.MustCompile("(?m)"+args[1]).ReplaceAllString(old, args[2])
		if text == old {
			ts.Fatalf("nothing in %s fits %s", file, args[1])
		}
		ts.Check(os.WriteFile(file, []byte(text), 0o644))
	}
	if len(files) == 0 {
		ts.Fatalf("no file fits %s", args[0])
	}
}

// send gives the signal to nix-build-images in the background.
func send(s syscall.Signal) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, _ []string) {
		for _, cmd := range ts.BackgroundCmds() {
			ts.Check(cmd.Process.Signal(s))
		}
	}
}

// builders COMMAND: waits until a builder in this machine's store runs COMMAND. "! builders": none is there any more, and no nix.
func builders(ts *testscript.TestScript, neg bool, args []string) {
	root := ts.Getenv("STORE")
	var seen []string
	for range 300 {
		seen = nil
		procs, _ := filepath.Glob("/proc/[0-9]*")
		for _, proc := range procs {
			line, _ := os.ReadFile(proc + "/cmdline")
			mounts, _ := os.ReadFile(proc + "/mountinfo")
			environ, _ := os.ReadFile(proc + "/environ")
			if len(line) > 0 && (strings.Contains(string(mounts), root) || strings.Contains(string(environ), "STORE="+root+"\x00")) {
				seen = append(seen, strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " ")))
			}
		}
		if neg && len(seen) == 0 || !neg && slices.ContainsFunc(seen, func(line string) bool { return strings.Contains(line, args[0]) }) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("after 15 s these run: %q", seen)
}

// empty DIR...: there is no file in them.
func emptyFolder(ts *testscript.TestScript, _ bool, args []string) {
	for _, dir := range args {
		err := filepath.WalkDir(ts.MkAbs(dir), func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				return fmt.Errorf("%s is there", path)
			}
			return err
		})
		ts.Check(err)
	}
}

// Package stories is what the testscript stories of several commands have in common: a Nix store of each story's own, caches and
// registries that listen on loopback, and flakes in git. Only tests import it.
package stories

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flakeship/flakeship/internal/testenv/binarycache"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

// Setup gives a story a Nix store in $WORK/.nix, with $STORE the physical root of it, and no registry credentials. It names the
// runner's temporary folder, $WORK/runner-temp, and does not make it.
func Setup(env *testscript.Env) error {
	env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, ".docker"))
	env.Setenv("RUNNER_TEMP", filepath.Join(env.WorkDir, "runner-temp"))
	env.Values[servers{}] = map[string]*binarycache.Server{}
	return useStore(filepath.Join(env.WorkDir, ".nix"), env.Setenv, env.Defer)
}

// Commands are the commands of stories that Setup began, by name, in a map of the caller's own: add more to it.
func Commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"cache":    startCache,
		"commit":   commit,
		"fault":    fault,
		"hanging":  hanging,
		"keys":     keys,
		"machine":  machine,
		"private":  private,
		"push":     push,
		"registry": startRegistry,
		"replace":  Replace,
	}
}

// useStore makes a Nix store in dir and points the environment to it.
func useStore(dir string, setenv func(name, value string), after func(func())) error {
	store, err := nixstore.Make(dir)
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
	ts.Check(useStore(filepath.Join(ts.Getenv("WORK"), ".nix-"+args[0]), ts.Setenv, ts.Defer))
}

// servers is the key of a story's caches, by name.
type servers struct{}

// Cache is the cache that the story started under this name; that there is none ends the story.
func Cache(ts *testscript.TestScript, name string) *binarycache.Server {
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
		Cache(ts, args[0]).Close()
		return
	}
	srv, err := binarycache.Start(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(srv.Close)
	ts.Value(servers{}).(map[string]*binarycache.Server)[args[0]] = srv
	ts.Setenv(args[0], srv.URL)
}

var method = regexp.MustCompile(`^[A-Z]+$`)

// fault NAME STATUS [METHOD] [PATTERN]: the cache answers STATUS, or hangs for the status "hang", to requests of this method
// whose URL path fits PATTERN; left out, to all. An argument of upper-case letters is a method. "! fault NAME" makes it well.
func fault(ts *testscript.TestScript, neg bool, args []string) {
	srv := Cache(ts, args[0])
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
	for _, arg := range args[2:] {
		if method.MatchString(arg) {
			f.Methods = append(f.Methods, arg)
		} else {
			f.Match = regexp.MustCompile(arg)
		}
	}
	srv.Fail(f)
}

// hanging NAME: waits until somebody waits for an answer of the cache.
func hanging(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(time.Minute); Cache(ts, args[0]).Hanging() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("nobody asks %s anything that it does not answer", args[0])
		}
	}
}

// private NAME USER PASSWORD: the cache wants them.
func private(ts *testscript.TestScript, _ bool, args []string) {
	srv := Cache(ts, args[0])
	srv.User, srv.Password = args[1], args[2]
}

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

// Replace is the command replace FILE PATTERN TEXT: in each file that fits the glob FILE. It needs no Setup.
func Replace(ts *testscript.TestScript, _ bool, args []string) {
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

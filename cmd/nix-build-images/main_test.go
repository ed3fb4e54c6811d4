package main

import (
	"fmt"
	"maps"
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
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
	"github.com/flakeship/flakeship/internal/testenv/sshserver"
	"github.com/flakeship/flakeship/internal/testenv/stories"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"nix-build-images": main}) }

// TestStories runs testdata/*.txtar: plans made by the real nix-cache-check, carried out with the installed nix in a store of
// the story's own, with caches and registries that listen on loopback.
func TestStories(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "../nix-cache-check", "../push-images", "../../internal/testenv/imagetool").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	commands := stories.Commands()
	maps.Copy(commands, map[string]func(*testscript.TestScript, bool, []string){
		"requests":     requests,
		"builders":     builders,
		"terminated":   send(syscall.SIGTERM),
		"killed":       send(syscall.SIGKILL),
		"empty":        emptyFolder,
		"distribution": startDistribution,
		"libraries":    libraries,
		"layers":       layers,
		"pulls":        pulls,
		"sent":         sent,
		"sshd":         startSSH,
		"cut":          cutSSH,
	})
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("BIN", bin)
			env.Setenv("SOURCE", source)
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("TMPDIR", filepath.Join(env.WorkDir, "tmp"))
			for _, dir := range []string{"runner-temp", "tmp"} {
				if err := os.Mkdir(filepath.Join(env.WorkDir, dir), 0o755); err != nil {
					return err
				}
			}
			env.Values[sshServer{}] = new(*sshserver.Server)
			return stories.Setup(env)
		},
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: commands,
	})
}

// requests NAME METHOD PATTERN N: since the last time, so many requests came to the cache.
func requests(ts *testscript.TestScript, _ bool, args []string) {
	var fit []string
	pattern := regexp.MustCompile(args[2])
	for _, r := range stories.Cache(ts, args[0]).Requests() {
		if r.Method == args[1] && pattern.MatchString(r.Path) {
			fit = append(fit, r.Path)
		}
	}
	if strconv.Itoa(len(fit)) != args[3] {
		ts.Fatalf("%d requests instead of %s: %q", len(fit), args[3], fit)
	}
}

// sent NAME N: since it was asked for requests last, the cache has sent fewer than N bytes.
func sent(ts *testscript.TestScript, _ bool, args []string) {
	most, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	var all int64
	for _, r := range stories.Cache(ts, args[0]).Requests() {
		all += r.Sent
	}
	ts.Logf("%d bytes", all)
	if all >= most {
		ts.Fatalf("%d bytes were sent", all)
	}
}

// distribution NAME: an empty registry, the real one; its host and port are in the variable NAME.
func startDistribution(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(".registry")
	ts.Check(os.MkdirAll(dir, 0o755))
	r, stop, err := distribution.Run(dir)
	ts.Check(err)
	ts.Defer(stop)
	ts.Setenv(args[0], r.Host)
}

// libraries DIR: the flake in DIR gets lib, which stands for nixpkgs, and the tools that it builds with.
func libraries(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.CopyFS(filepath.Join(dir, "lib"), os.DirFS(filepath.Join(ts.Getenv("SOURCE"), "e2e/testdata/monorepo/lib"))))
	ts.Check(os.Mkdir(filepath.Join(dir, "tools"), 0o755))
	for _, name := range []string{"imagetool", "busybox"} {
		program, err := exec.LookPath(name)
		if name == "imagetool" {
			program, err = filepath.Join(ts.Getenv("BIN"), name), nil
		}
		ts.Check(err)
		text, err := os.ReadFile(program)
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(dir, "tools", name), text, 0o755))
	}
}

// pushedImages are those of a PushResult, by name.
func pushedImages(ts *testscript.TestScript, file string) map[string]handoff.PushedImage {
	var result handoff.PushResult
	ts.Check(handoff.Load(ts.MkAbs(file), &result))
	images := map[string]handoff.PushedImage{}
	for _, i := range result.Images {
		images[i.Name] = i
	}
	return images
}

// layers RESULT 'IMAGE uploaded N'...: so many layers of the image were sent, and there were others.
func layers(ts *testscript.TestScript, _ bool, args []string) {
	images := pushedImages(ts, args[0])
	for _, want := range args[1:] {
		i := images[strings.Fields(want)[0]]
		if got := fmt.Sprintf("%s uploaded %d", i.Name, i.Layers.Uploaded); got != want || i.Layers.Reused == 0 {
			ts.Fatalf("%s, layers are %+v", want, i.Layers)
		}
	}
}

// pulls RESULT IMAGE VARIABLE: the image is whole in the registry, and has the variable in its environment.
func pulls(ts *testscript.TestScript, _ bool, args []string) {
	i := pushedImages(ts, args[0])[args[1]]
	ref, err := name.ParseReference(i.Repository + "@" + i.Digest)
	ts.Check(err)
	img, err := remote.Image(ref)
	ts.Check(err)
	ts.Check(validate.Image(img))
	config, err := img.ConfigFile()
	ts.Check(err)
	if !slices.Contains(config.Config.Env, args[2]) {
		ts.Fatalf("its environment is %q", config.Config.Env)
	}
}

// sshServer is the key of a story's other machine.
type sshServer struct{}

// sshd: the machine on which the story runs now can be reached by ssh from the others, as ssh-ng://$HOST.
func startSSH(ts *testscript.TestScript, _ bool, _ []string) {
	var env []string
	for _, name := range []string{"NIX_CONF_DIR", "NIX_USER_CONF_FILES", "XDG_CACHE_HOME", "HOME", "PATH", "STORE"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	server, err := sshserver.Start(filepath.Join(ts.Getenv("WORK"), ".ssh"), env)
	ts.Check(err)
	ts.Defer(server.Close)
	ts.Setenv("HOST", server.Host)
	ts.Setenv("NIX_SSHOPTS", server.Opts)
	*ts.Value(sshServer{}).(**sshserver.Server) = server
}

// cut: all lines to the machine with sshd end. "cut next": the next one does, as soon as it is made.
func cutSSH(ts *testscript.TestScript, _ bool, args []string) {
	server := *ts.Value(sshServer{}).(**sshserver.Server)
	if len(args) > 0 {
		server.Refuse(1)
	} else {
		server.Cut()
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

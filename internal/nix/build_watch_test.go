package nix

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/testenv/binarycache"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

// A target is told of, and the end of its builder, while another is still being built: that one waits for a sign that both were.
func TestWhatIsDoneIsToldAtOnce(t *testing.T) {
	signal := t.TempDir()
	n, store := open(t, "max-jobs = 2", "extra-sandbox-paths = /signal="+signal)
	dir := flake(t, store, map[string]string{
		"quick": `image "quick" "echo > $out" { inherit (self.packages.${system}) lib; }`,
		"lib":   `mk "lib" "echo > $out" { }`,
		"needs": `image "needs" "echo > $out" { bad = mk "bad" "cat $lib; exit 1" { inherit (self.packages.${system}) lib; }; }`,
		"slow":  `image "slow" "i=0; until test -e /signal/go; do i=$((i+1)); test $i -lt 600 || exit 9; busybox sleep 0.1; done; echo > $out" { }`,
	})
	flake, targets := plan(t, n, dir)
	var done []string
	stopped := map[string]string{}
	open := map[string]bool{"quick": true, "lib": true, "bad": true} // what slow waits for
	told := func(what string) {
		if delete(open, what); len(open) == 0 {
			writeFile(t, filepath.Join(signal, "go"), "")
		}
	}
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true,
		Done: func(target Target, fetched bool) { done = append(done, fmt.Sprint(target.Name, " ", fetched)) },
		Event: func(e Event) {
			if e.Kind == Stopped {
				name := strings.TrimPrefix(drvName(e.Path), "image-")
				stopped[name] = fmt.Sprint(e.Err, e.For)
				told(name)
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"quick": "built", "slow": "built", "needs": "failed bad: builder failed with exit code 1"}
	if diff := cmp.Diff(want, states(built)); diff != "" {
		t.Errorf("Build (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"quick false", "slow false"}, done); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}
	want = map[string]string{"lib": "false [needs quick]", "quick": "false [quick]", "bad": "true [needs]", "slow": "false [slow]"}
	if diff := cmp.Diff(want, stopped); diff != "" {
		t.Errorf("stopped (-want +got):\n%s", diff)
	}

	done = nil
	if _, err := n.Build(t.Context(), targets[1:2], BuildOptions{Flake: flake, Done: func(target Target, fetched bool) {
		done = append(done, fmt.Sprint(target.Name, " ", fetched))
	}}); err != nil || !slices.Equal(done, []string{"quick false"}) {
		t.Errorf("once more: %q, %v", done, err)
	}
}

// A store that could not answer is asked again, though nothing else comes to its end meanwhile.
func TestWhatIsDoneIsAskedForAgain(t *testing.T) {
	real, err := exec.LookPath("nix")
	if err != nil {
		t.Fatal(err)
	}
	programs, signal := t.TempDir(), t.TempDir()
	refused := filepath.Join(signal, "refused")
	for program, before := range map[string]string{"nix": "", "nix-store": fmt.Sprintf(
		`case "$*" in *--check-validity*) if test -e %[1]s/begun -a ! -e %[2]s; then : > %[2]s; echo "error: database is locked" >&2; exit 1; fi;; esac`, signal, refused)} {
		writeFile(t, filepath.Join(programs, program), fmt.Sprintf("#!/bin/sh\n%s\nexec %s \"$@\"\n", before, filepath.Join(filepath.Dir(real), program)))
		if err := os.Chmod(filepath.Join(programs, program), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	store := nixstore.New(t, "max-jobs = 2", "extra-sandbox-paths = /signal="+signal)
	n, err := Open(t.Context(), Options{Path: filepath.Join(programs, "nix"), Env: store.Env, Dir: store.Dir})
	if err != nil {
		t.Fatal(err)
	}
	const until = "i=0; until test -e /signal/%s; do i=$((i+1)); test $i -lt 600 || exit 9; busybox sleep 0.1; done; echo > $out"
	flake, targets := plan(t, n, flake(t, store, map[string]string{
		"quick": fmt.Sprintf(`image "quick" "`+until+`" { }`, "begun"),
		"slow":  fmt.Sprintf(`image "slow" "`+until+`" { }`, "told"),
	}))
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true, Done: func(target Target, _ bool) {
		if target.Name == "quick" {
			writeFile(t, filepath.Join(signal, "told"), "")
		}
	}, Event: func(e Event) {
		if e.Kind == Building && drvName(e.Path) == "image-slow" {
			writeFile(t, filepath.Join(signal, "begun"), "")
		}
	}})
	if diff := cmp.Diff(map[string]string{"quick": "built", "slow": "built"}, states(built)); diff != "" || err != nil {
		t.Errorf("Build (-want +got):\n%s, %v", diff, err)
	}
	if _, err := os.Stat(refused); err != nil {
		t.Errorf("the store refused nothing: %v", err)
	}
}

// Two thousand derivations do not fit the 128 KiB of arguments that every system has.
func TestMoreImagesThanFitACommandLine(t *testing.T) {
	var before syscall.Rlimit
	const stack = 3 // RLIMIT_STACK
	if err := syscall.Getrlimit(stack, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(stack, &syscall.Rlimit{Cur: 512 << 10, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(stack, &before)
	n, store := open(t, "max-jobs = 0")
	const many = 2000
	text := `{ outputs = _: { packages.x86_64-linux = builtins.listToAttrs (builtins.genList (i: {
	  name = "i${toString i}";
	  value = derivation { name = "image-with-a-name-that-takes-some-room-${toString i}"; system = "x86_64-linux"; builder = "/none"; } // { imageName = "i${toString i}"; };
	}) ` + fmt.Sprint(many) + `); }; }`
	flake, targets := plan(t, n, writeFlake(t, store, text))
	if len(targets) != many {
		t.Fatalf("%d images", len(targets))
	}
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true})
	if err != nil && strings.Contains(err.Error(), "too long") { // else: older versions have a word of their own for max-jobs = 0
		t.Fatal(err)
	}
	for _, b := range built {
		if b.Failure == nil || strings.Contains(b.Failure.Reason, "too long") {
			t.Fatalf("%s: %v", b.Name, b.Failure)
		}
	}
	parts := 0
	for range n.parts(drvPaths(targets)) {
		parts++
	}
	if parts < 2 {
		t.Errorf("%d parts: the test proves nothing", parts)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func drvPaths(targets []Target) []string {
	var drvs []string
	for _, t := range targets {
		drvs = append(drvs, t.DrvPath)
	}
	return drvs
}

// A dependency is in a cache that has a bad moment: the image is tried again, and is built. What cannot be cured is not
// tried again; and while a cache is broken, Nix does not build what it is to have.
func TestCacheWithABadMoment(t *testing.T) {
	defer func(was []time.Duration) { retries = was }(retries)
	retries = []time.Duration{10 * time.Millisecond, 10 * time.Millisecond}
	packages := map[string]string{
		"app": `image "app" "cat $lib > $out" { lib = mk "lib" "echo lib > $out" {}; }`,
		"bad": `image "bad" "echo HTTP error 503; exit 1" {}`,
		"own": `image "own" "echo own > $out" {}`,
	}
	from, source := open(t)
	flake, targets := plan(t, from, nixstore.Flake(t, filepath.Join(t.TempDir(), "flake"), packages))
	if _, err := from.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true}); err != nil {
		t.Fatal(err)
	}
	cache, err := binarycache.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	graph, err := from.graph(t.Context(), map[string][]string{targets[0].DrvPath: {"app"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, drv := range graph.requisites(targets[0].DrvPath) {
		if drvName(drv) == "lib" {
			source.Nix(t, append([]string{"copy", "--to", "file://" + cache.Dir}, from.outputs(drv)...)...)
		}
	}
	source.Nix(t, "copy", "--to", "file://"+cache.Dir, targets[2].OutPath)

	for _, times := range []int{2, 0} {
		n, _ := open(t, "require-sigs = false", "download-attempts = 1")
		targets[2].Fetch = true
		cache.Fail(&binarycache.Fault{Match: regexp.MustCompile(`^/nar/`), Status: 503, Times: times})
		var again, building []string
		built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true, Substituters: []string{cache.URL}, LogLines: 1, Event: func(e Event) {
			if e.Kind == Message && strings.Contains(e.Text, "tried again") {
				again = append(again, e.Text)
			}
			if e.Kind == Building {
				building = append(building, drvName(e.Path))
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		got := states(built)
		if got["bad"] != "failed image-bad: builder failed with exit code 1" || strings.Count(strings.Join(building, " "), "image-bad") != 1 {
			t.Errorf("bad: %s, built %q", got["bad"], building)
		}
		if times > 0 && (got["app"] != "built" || got["own"] != "substituted" || len(again) == 0) {
			t.Errorf("Build = %v, tried again: %q", got, again)
		}
		if times == 0 && (!strings.HasPrefix(got["app"], "failed lib: ") || !strings.HasPrefix(got["own"], "failed ") || len(again) != 2) {
			t.Errorf("Build = %v, tried again: %q", got, again)
		}
	}
}

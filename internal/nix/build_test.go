package nix

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
	"github.com/google/go-cmp/cmp"
)

// plan evaluates a flake and makes a target of each image.
func plan(t *testing.T, n *Nix, dir string) (handoff.Flake, []Target) {
	t.Helper()
	e, err := n.Images(t.Context(), Query{Flake: dir})
	if err != nil {
		t.Fatal(err)
	}
	var targets []Target
	for _, img := range e.Images {
		targets = append(targets, Target{Image: img})
	}
	return e.Flake, targets
}

// states is what became of each image, with the failed derivation's name and the reason.
func states(built []Built) map[string]string {
	m := map[string]string{}
	for _, b := range built {
		m[b.Name] = string(b.State)
		if b.Failure != nil {
			m[b.Name] += " " + drvName(b.Failure.Derivation) + ": " + b.Failure.Reason
		}
	}
	return m
}

// copyTo copies what a target gives, with closure, to a cache in a folder, and returns its URL.
func copyTo(t *testing.T, store *nixstore.Store, targets ...Target) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	paths := []string{"copy", "--to", "file://" + dir}
	for _, target := range targets {
		paths = append(paths, target.OutPath)
	}
	store.Nix(t, paths...)
	return "file://" + dir
}

func TestBuildKeepsWhatSucceeds(t *testing.T) {
	n, store := open(t, "max-jobs = 2")
	dir := flake(t, store, map[string]string{
		"lib":  `mk "lib" "echo making lib; echo no such header; exit 7" {}`,
		"api":  `image "api" "echo building api; echo api > $out" {}`,
		"web":  `image "web" "cat $api > $out; echo web >> $out" { inherit (self.packages.${system}) api; isExe = true; }`,
		"bad":  `image "bad" "i=0; while test $i -lt 60; do i=$((i+1)); echo line $i; done; exit 3" {}`,
		"uses": `image "uses" "echo never > $out" { dep = mk "between" "echo > $out" { inherit (self.packages.${system}) lib; }; }`,
	})
	flake, targets := plan(t, n, dir)
	var lines []string
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true, LogLines: 3,
		Event: func(e Event) {
			if e.Kind == Line {
				lines = append(lines, e.Text)
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"api":  "built",
		"web":  "built",
		"bad":  "failed image-bad: builder failed with exit code 3",
		"uses": "failed lib: builder failed with exit code 7",
	}
	if diff := cmp.Diff(want, states(built)); diff != "" {
		t.Errorf("Build (-want +got):\n%s", diff)
	}
	for _, b := range built {
		switch b.Name {
		case "bad":
			if diff := cmp.Diff([]string{"line 58", "line 59", "line 60"}, b.Failure.Log); diff != "" {
				t.Errorf("last lines of bad (-want +got):\n%s", diff)
			}
		case "uses":
			if diff := cmp.Diff([]string{"making lib", "no such header"}, b.Failure.Log); diff != "" {
				t.Errorf("last lines of lib (-want +got):\n%s", diff)
			}
		case "api", "web":
			if text := readFile(t, store.Physical(b.OutPath)); !strings.Contains(string(text), b.Name) {
				t.Errorf("%s is %q", b.OutPath, text)
			}
			if b.Seconds <= 0 {
				t.Errorf("%s took %v seconds", b.Name, b.Seconds)
			}
		}
	}
	if !slices.Contains(lines, "building api") {
		t.Errorf("lines are %q, want those of api among them", lines)
	}

	// What succeeded survives the garbage collector as long as the roots are there.
	if err := n.AddRoots(t.Context(), filepath.Join(store.Dir, "roots"), []string{built[0].OutPath}); err != nil {
		t.Fatal(err)
	}
	store.Command(t, "nix-store", "--gc")
	if !n.Exists(built[0].OutPath) {
		t.Errorf("%s is gone after a garbage collection", built[0].OutPath)
	}
	if err := os.RemoveAll(filepath.Join(store.Dir, "roots")); err != nil {
		t.Fatal(err)
	}
	store.Command(t, "nix-store", "--gc")
	if n.Exists(built[0].OutPath) {
		t.Errorf("%s is there although its root is gone", built[0].OutPath)
	}
}

func TestBuildNothing(t *testing.T) {
	n, _ := open(t)
	built, err := n.Build(t.Context(), nil, BuildOptions{})
	if err != nil || len(built) != 0 {
		t.Errorf("Build of nothing = %v, %v", built, err)
	}
}

func TestBuildOnceMoreHasNothingToDo(t *testing.T) {
	n, store := open(t)
	flake, targets := plan(t, n, flake(t, store, map[string]string{"api": `image "api" "echo > $out" {}`}))
	for range 2 {
		var kinds []EventKind
		built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, Event: func(e Event) { kinds = append(kinds, e.Kind) }})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"api": "built"}, states(built)); diff != "" {
			t.Errorf("Build (-want +got):\n%s", diff)
		}
		if built[0].Seconds == 0 != !slices.Contains(kinds, Building) {
			t.Errorf("took %v seconds, events %v", built[0].Seconds, kinds)
		}
	}
}

func TestFetchInsteadOfBuild(t *testing.T) {
	from, source := open(t)
	packages := map[string]string{
		"plain": `image "plain" "echo plain > $out" {}`,
		// As nix2container makes them. Nix itself would build this one although the cache has it.
		"local": `image "local" "echo local > $out" { allowSubstitutes = false; preferLocalBuild = true; dep = mk "layer" "echo > $out" {}; }`,
	}
	flake, targets := plan(t, from, nixstore.Flake(t, filepath.Join(t.TempDir(), "flake"), packages))
	if _, err := from.Build(t.Context(), targets, BuildOptions{Flake: flake}); err != nil {
		t.Fatal(err)
	}
	cache := copyTo(t, source, targets...)

	n, _ := open(t, "require-sigs = false")
	for i := range targets {
		targets[i].Fetch = true
	}
	var building []string
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, Substituters: []string{cache}, KeepGoing: true, Event: func(e Event) {
		if e.Kind == Building {
			building = append(building, e.Path)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"plain": "substituted", "local": "substituted"}, states(built)); diff != "" {
		t.Errorf("Build (-want +got):\n%s", diff)
	}
	if len(building) > 0 {
		t.Errorf("built %q, want everything from the cache", building)
	}
	for _, b := range built {
		if !n.Exists(b.OutPath) || b.Seconds <= 0 {
			t.Errorf("%s: %s after %v seconds", b.Name, b.OutPath, b.Seconds)
		}
	}
}

// The cache has the narinfo and not the NAR behind it; another image is not there at all any more. Both are built.
func TestCacheThatDoesNotKeepItsWord(t *testing.T) {
	from, source := open(t)
	packages := map[string]string{"a": `image "a" "echo a > $out" {}`, "b": `image "b" "echo b > $out" {}`, "c": `image "c" "exit 1" {}`}
	dir := nixstore.Flake(t, filepath.Join(t.TempDir(), "flake"), packages)
	flake, targets := plan(t, from, dir)
	if _, err := from.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true}); err != nil {
		t.Fatal(err)
	}
	cache := copyTo(t, source, targets[0])
	if err := os.RemoveAll(filepath.Join(strings.TrimPrefix(cache, "file://"), "nar")); err != nil {
		t.Fatal(err)
	}
	n, _ := open(t, "require-sigs = false")
	targets[0].Fetch, targets[1].Fetch = true, true
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, Substituters: []string{cache}, KeepGoing: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range built {
		if b.NotFetched != b.Fetch {
			t.Errorf("%s: NotFetched = %v", b.Name, b.NotFetched)
		}
	}
	want := map[string]string{"a": "built", "b": "built", "c": "failed image-c: builder failed with exit code 1"}
	if diff := cmp.Diff(want, states(built)); diff != "" {
		t.Errorf("Build (-want +got):\n%s", diff)
	}
}

func TestContentAddressedImagesAreBuilt(t *testing.T) {
	n, store := open(t, "extra-experimental-features = ca-derivations")
	const ca = `{ __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }`
	dir := flake(t, store, map[string]string{
		"ca":  `image "ca" "echo content > $out" ` + ca,
		"bad": `image "bad" "exit 5" ` + ca,
	})
	flake, targets := plan(t, n, dir)
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"ca": "built", "bad": "failed image-bad: builder failed with exit code 5"}
	if diff := cmp.Diff(want, states(built)); diff != "" {
		t.Errorf("Build (-want +got):\n%s", diff)
	}
	for _, b := range built {
		if b.Name == "ca" && (string(readFile(t, n.Physical(b.OutPath))) != "content\n" || len(b.Tag) != 32) {
			t.Errorf("output %q, tag %q", b.OutPath, b.Tag)
		}
	}
}

func TestCancelledBuildTellsTheTruth(t *testing.T) {
	n, store := open(t, "max-jobs = 4")
	dir := flake(t, store, map[string]string{
		"done":  `image "done" "echo done > $out" {}`,
		"going": `image "going" "echo started; busybox sleep 300; echo > $out" {}`,
		"later": `image "later" "echo > $out" { dep = self.packages.${system}.going; }`,
	})
	flake, targets := plan(t, n, dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	running := make(chan struct{})
	go func() { // cancel when one is done and one is being built
		<-running
		defer cancel()
		for range 500 {
			if valid, err := n.valid(t.Context(), []string{targets[0].OutPath}); err != nil || len(valid) == 1 {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	start := time.Now()
	built, err := n.Build(ctx, targets, BuildOptions{Flake: flake, KeepGoing: true, Event: func(e Event) {
		if e.Kind == Line && e.Text == "started" {
			close(running)
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Build = %v, want context.Canceled", err)
	}
	want := map[string]string{"done": "built", "going": "failed image-going: cancelled before it was built", "later": "failed image-later: cancelled before it was built"}
	if diff := cmp.Diff(want, states(built)); diff != "" {
		t.Errorf("Build (-want +got):\n%s", diff)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %s to stop", took)
	}
	if left := processesIn(t, store.Root); len(left) > 0 {
		t.Errorf("left running: %q", left)
	}
}

// processesIn are the command lines of processes whose root or open files are below dir: builders of its sandboxes.
func processesIn(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	for range 50 {
		found = nil
		procs, _ := filepath.Glob("/proc/[0-9]*")
		for _, p := range procs {
			mounts, err := os.ReadFile(p + "/mountinfo")
			line, _ := os.ReadFile(p + "/cmdline")
			if err == nil && len(line) > 0 && strings.Contains(string(mounts), dir) {
				found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
			}
		}
		if len(found) == 0 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return found
}

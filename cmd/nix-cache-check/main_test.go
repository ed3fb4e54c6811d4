package main

import (
	"net/http"
	"slices"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flakeship/flakeship/internal/testenv/stories"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"nix-cache-check": main}) }

// TestStories runs testdata/*.txtar: each with a Nix store of its own, the installed nix, and caches and registries that listen
// on loopback.
func TestStories(t *testing.T) {
	commands := stories.Commands()
	commands["asked"] = asked
	commands["forget"] = forget
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Setup:               stories.Setup,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Cmds:                commands,
	})
}

// asked NAME N: since the last time, the cache got N requests, all of them GET, none twice.
func asked(ts *testscript.TestScript, _ bool, args []string) {
	var paths []string
	for _, r := range stories.Cache(ts, args[0]).Requests() {
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
func forget(ts *testscript.TestScript, _ bool, args []string) { stories.Cache(ts, args[0]).Requests() }

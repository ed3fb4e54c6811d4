package main

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
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
	commands["layer"] = layer
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

// layer REFERENCE NAME: the registry gets an image of one layer at REFERENCE; its diff ID is in the variable NAME.
func layer(ts *testscript.TestScript, _ bool, args []string) {
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("not quite a tar: " + args[1])), nil
	})
	ts.Check(err)
	diffID, err := l.DiffID()
	ts.Check(err)
	ts.Setenv(args[1], diffID.String())
	img, err := mutate.AppendLayers(empty.Image, l)
	ts.Check(err)
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	ts.Check(remote.Write(ref, img))
}

package main

import (
	"context"
	"os"
	"slices"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/derivation"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/nix"
	"github.com/flakeship/flakeship/internal/shard"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/substituter"
)

// divide gives each image with work a shard. What an image has to build is found in its graph of derivations, from the image down to
// what a cache serves: two images that need the same uncached derivation are built by the same machine.
func divide(ctx context.Context, env *action.Env, n *nix.Nix, set *substituter.Set, dir storepath.Dir, found *nix.Evaluation, rows []*row, shards int) {
	images := map[string]nix.Image{}
	for _, img := range found.Images {
		images[img.Attr] = img
	}
	var build []nix.Image
	var roots []string
	for _, r := range rows {
		if r.Build {
			build, roots = append(build, images[r.Attr]), append(roots, r.DrvPath)
		}
	}
	graph := derivations(n)
	var missing map[string]bool
	err := n.Instantiate(ctx, found.Flake, build)
	if err == nil {
		missing, err = uncached(ctx, graph, set, dir, roots)
	}
	if err != nil && ctx.Err() == nil {
		env.Warnf("shards: what images share is not known, so some of it may be built twice: %v", err)
	}
	var working []*row
	var needs [][]string
	for _, r := range rows {
		if !r.Build && !r.Push {
			continue
		}
		var drvs []string
		if r.Build {
			drvs = []string{r.DrvPath}
		}
		if r.Build && missing != nil {
			drvs = nil
			graph.Closure([]string{r.DrvPath}, func(path string, _ *derivation.Derivation) bool { // all of it was read
				if missing[path] {
					drvs = append(drvs, path)
				}
				return missing[path]
			})
		}
		working, needs = append(working, r), append(needs, drvs)
	}
	for i, part := range shard.Divide(needs, shards) {
		working[i].Shard = part
	}
}

// derivations is the graph of the derivations in the store.
func derivations(n *nix.Nix) *derivation.Graph {
	return derivation.NewGraph(func(path string) ([]byte, error) { return os.ReadFile(n.Physical(path)) })
}

// uncached are the derivations that have to be built for those given, and they themselves. Each level of the graph is asked for at
// once, and what a cache serves is not looked into.
func uncached(ctx context.Context, graph *derivation.Graph, set *substituter.Set, dir storepath.Dir, roots []string) (map[string]bool, error) {
	missing := map[string]bool{}
	asked := map[storepath.Path]bool{}
	level := roots
	for len(level) > 0 {
		var paths []storepath.Path
		of := map[storepath.Path]string{} // the derivation that has this output
		var next []string
		need := func(drv string) {
			if !missing[drv] {
				missing[drv] = true
				next = append(next, drv)
			}
		}
		for _, drv := range level {
			missing[drv] = true
		}
		for _, drv := range level {
			d, err := graph.Get(drv)
			if err != nil {
				return nil, err
			}
			for input, outputs := range d.InputDrvs {
				in, err := graph.Get(input)
				if err != nil {
					return nil, err
				}
				for _, name := range outputs {
					path, err := dir.Parse(in.Outputs[name].Path)
					if err != nil { // content-addressed: not known before the build
						need(input)
					} else if !asked[path] {
						asked[path], of[path] = true, input
						paths = append(paths, path)
					}
				}
			}
		}
		for i, verdict := range set.Check(ctx, paths) {
			if verdict.State != handoff.StateCached {
				need(of[paths[i]])
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		slices.Sort(next)
		level = next
	}
	return missing, nil
}

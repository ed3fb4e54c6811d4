package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/derivation"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/nix"
)

// writeClosures writes down what the images are made of, when push-images is to attest it: there may be no Nix where that runs.
func writeClosures(ctx context.Context, env *action.Env, n *nix.Nix, result *handoff.BuildResult) error {
	if !slices.Contains(env.List("attest"), "sbom") {
		return nil
	}
	graph := derivation.NewGraph(func(path string) ([]byte, error) { return os.ReadFile(n.Physical(path)) })
	var outs, drvs, merged []string
	for i, img := range result.Images {
		if img.State != handoff.BuildBuilt && img.State != handoff.BuildSubstituted || img.File != "" {
			continue // also of a file that was fetched alone: its closure is in no store here
		}
		outs = append(outs, img.OutPath)
		if img.State != handoff.BuildBuilt || img.Family == handoff.Nix2Container {
			continue
		}
		made, copied, err := archives(graph, img.DrvPath)
		if err != nil {
			env.Debugf("the closure of %s may not be whole: %v", img.Name, err)
		}
		if img.Family == handoff.DockerArchive && !slices.Contains(made, img.DrvPath) {
			made = append(made, img.DrvPath)
		}
		drvs = append(drvs, made...)
		merged = append(merged, copied...)
		result.Images[i].Merged = copied
	}
	paths, err := n.Closures(ctx, outs, drvs, merged)
	if err != nil {
		return explain(err)
	}
	name := fmt.Sprintf("closures-%.12s-%d.json", strings.TrimPrefix(result.Previous[0], "sha256:"), result.Shard)
	result.Closures = filepath.Join(tempDir(env), "flakeship", name)
	if err := os.MkdirAll(filepath.Dir(result.Closures), 0o755); err != nil {
		return err
	}
	return handoff.WriteClosures(result.Closures, paths)
}

// How nixpkgs calls what makes an archive, or its layers, and what leads to it: a script's conf.json leads to its base image.
var (
	archiveName = regexp.MustCompile(`^docker-(image|layer)-|\.tar(\.gz|\.zst)?$`)
	leadingName = regexp.MustCompile(`^stream-|-conf\.json$`)
)

// archives finds the derivations of the archives an image is made from: itself, its layers, its base images. None of these refers to
// what is inside. Nor does an archive name a store path whose files were copied into its root, unless something else in it needs
// that path: an application without dependencies would go unmentioned. But the derivation says it, as copyToRoot or contents.
func archives(g *derivation.Graph, image string) (drvs, merged []string, err error) {
	err = g.Closure([]string{image}, func(path string, d *derivation.Derivation) bool {
		name := derivation.Name(path)
		if !archiveName.MatchString(name) {
			return path == image || leadingName.MatchString(name)
		}
		drvs = append(drvs, path)
		merged = append(merged, copiedToRoot(d)...)
		return true
	})
	slices.Sort(merged)
	return drvs, slices.Compact(merged), err
}

// copiedToRoot is what dockerTools.buildImage was given to copy: a list in words, or in JSON where there are structured attributes.
func copiedToRoot(d *derivation.Derivation) []string {
	var structured map[string]any
	json.Unmarshal([]byte(d.Env["__json"]), &structured) // Nix wrote it, if it is there
	var all []string
	for _, name := range []string{"copyToRoot", "contents"} {
		all = append(all, strings.Fields(d.Env[name])...)
		switch v := structured[name].(type) {
		case string:
			all = append(all, strings.Fields(v)...)
		case []any:
			for _, one := range v {
				all = append(all, fmt.Sprint(one))
			}
		}
	}
	// Neither a file in a store path, nor what stands for one that only the build will know.
	return slices.DeleteFunc(all, func(p string) bool { return !storePath.MatchString(p) })
}

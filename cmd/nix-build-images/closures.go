package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/nix"
)

// writeClosures writes down what the images are made of, when push-images is to attest it: there may be no Nix where that runs.
func writeClosures(ctx context.Context, env *action.Env, n *nix.Nix, result *handoff.BuildResult) error {
	if !slices.Contains(env.List("attest"), "sbom") {
		return nil
	}
	var outs, drvs []string
	for _, img := range result.Images {
		if img.State != handoff.BuildBuilt && img.State != handoff.BuildSubstituted || img.File != "" {
			continue // also of a file that was fetched alone: its closure is in no store here
		}
		outs = append(outs, img.OutPath)
		if img.Family == handoff.DockerArchive && img.State == handoff.BuildBuilt {
			drvs = append(drvs, img.DrvPath)
		}
	}
	paths, err := n.Closures(ctx, outs, drvs)
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

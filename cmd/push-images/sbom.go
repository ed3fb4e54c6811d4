package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/attest"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/push"
)

// readClosures reads what nix-build-images wrote down of the images' closures, and what it found to be merged into them.
func readClosures(results []*handoff.BuildResult) (closures map[string]handoff.StorePath, merged map[string][]string, err error) {
	closures, merged = map[string]handoff.StorePath{}, map[string][]string{}
	for _, r := range results {
		if r.Closures == "" {
			if slices.ContainsFunc(r.Images, func(b handoff.BuiltImage) bool { return b.State != handoff.BuildSkipped }) {
				return nil, nil, errors.New("input attest: the BuildResult lists no closures for the SBOM: give nix-build-images the input attest as well")
			}
			continue
		}
		paths, err := handoff.ReadClosures(r.Closures)
		if err != nil {
			return nil, nil, fmt.Errorf("input attest: %w", err)
		}
		for _, p := range paths {
			closures[p.Path] = p
		}
		for _, b := range r.Images {
			merged[buildKey(b.Name, b.System)] = b.Merged
		}
	}
	return closures, merged, nil
}

// contents is what an image's SBOM lists: the store paths with what is known of them, sorted, and sentences on what is left out.
func (a *attester) contents(s push.Subject) (packages []attest.StorePath, gaps []string, err error) {
	c, err := s.Content.Contents()
	if err != nil {
		return nil, nil, err
	}
	merged := a.merged[buildKey(s.Image.Name, s.Image.System)]
	all := append(slices.Clone(merged), c.StorePaths...)
	slices.Sort(all)
	unknown := 0
	for _, p := range slices.Compact(all) {
		known := a.closures[p]
		if known.NarHash == "" {
			unknown++
		}
		packages = append(packages, attest.StorePath{
			Path: p, NarHash: known.NarHash, References: known.References, Merged: slices.Contains(merged, p) || slices.Contains(c.Merged, p),
		})
	}
	merged = append(slices.Clone(merged), c.Merged...)
	for _, l := range c.Loose {
		files := slices.DeleteFunc(l.Files, func(file string) bool {
			return slices.ContainsFunc(merged, func(p string) bool {
				info, err := os.Stat(filepath.Join(s.Image.Store.Root, p, file))
				return err == nil && info.Mode().IsRegular()
			})
		})
		if len(files) > 0 {
			gaps = append(gaps, fmt.Sprintf("Not described: %s outside of the Nix store in layer %d of %d (%s), of no store path that is known here.",
				action.Count(len(files), "file"), l.Layer, len(s.Content.Layers), l.DiffID))
		}
	}
	if unknown > 0 {
		gaps = append(gaps, fmt.Sprintf("Neither hash nor references are known of %d of %s: they were not in the store where the image was built or fetched.",
			unknown, action.Count(len(packages), "store path")))
	}
	return packages, gaps, nil
}

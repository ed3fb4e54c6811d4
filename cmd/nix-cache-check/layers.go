package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/substituter"
)

// maxImageJSON is how long a nix2container image's JSON may be to be read from a cache: a hundred layers of a hundred paths fit.
const maxImageJSON = 4 << 20

// maxTags is how many tags of a repository are looked at. push-images looks at as many, in the same order.
const maxTags = 8

// lookForLayers finds the cached nix2container images whose layers are all in their repository already, under other tags: the
// image's own file is all that a push of it needs. It lists the layers; its closure, which holds them, need not be fetched.
//
// Nothing depends on it but the amount that is fetched, so whatever fails leaves the image as it is.
func lookForLayers(ctx context.Context, in inputs, set *substituter.Set, rows []*row, debugf func(string, ...any)) {
	if in.prefix == "" {
		return
	}
	var wg sync.WaitGroup
	for _, r := range rows {
		if r.State != handoff.StateCached || r.Family != handoff.Nix2Container || r.NarSize > maxImageJSON {
			continue
		}
		wg.Go(func() {
			tags, err := layersElsewhere(ctx, in, set, r)
			if err != nil {
				debugf("%s: whether its layers are in the registry is not known: %v", r.Name, err)
			}
			if len(tags) > 0 {
				r.Fetch, r.LayerTags = handoff.FetchFile, tags
				r.Reason += "; its layers are in the registry"
			}
		})
	}
	wg.Wait()
}

// layersElsewhere returns tags of the image's repository that together have all of its layers; none when a layer is missing.
func layersElsewhere(ctx context.Context, in inputs, set *substituter.Set, r *row) ([]string, error) {
	repo, err := in.registry.Repository(in.prefix + "/" + r.Name)
	if err != nil {
		return nil, err
	}
	candidates, err := tagsOf(ctx, repo, r.ImageTag)
	if err != nil || len(candidates) == 0 {
		return nil, err
	}
	wanted, err := layersOf(ctx, in, set, r.OutPath)
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, tag := range candidates {
		if len(wanted) == 0 {
			break
		}
		has, err := repo.DiffIDs(ctx, tag)
		if err != nil {
			return nil, err
		}
		before := len(wanted)
		wanted = slices.DeleteFunc(wanted, func(layer string) bool { return slices.Contains(has, layer) })
		if len(wanted) < before {
			tags = append(tags, tag)
		}
	}
	if len(wanted) > 0 {
		return nil, nil
	}
	return tags, nil
}

// tagsOf are the tags that are likely to have something in common with an image: the one written in the flake, then named ones, then
// Nix hashes.
func tagsOf(ctx context.Context, repo *registry.Repository, imageTag string) ([]string, error) {
	tags, err := repo.Tags(ctx, 1000)
	if err != nil {
		return nil, err
	}
	tags = slices.DeleteFunc(tags, func(tag string) bool { return strings.HasPrefix(tag, "sha256-") }) // signatures and the like
	rank := func(tag string) int {
		switch {
		case tag == imageTag:
			return 0
		case len(tag) == storepath.HashLen:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(tags, func(a, b string) int { return rank(a) - rank(b) })
	return tags[:min(len(tags), maxTags)], nil
}

// layersOf reads the diff IDs of an image's layers from its JSON in a cache.
func layersOf(ctx context.Context, in inputs, set *substituter.Set, outPath string) ([]string, error) {
	p, err := in.caches.StoreDir.Parse(outPath)
	if err != nil {
		return nil, err
	}
	text, err := set.File(ctx, p, maxImageJSON)
	if err != nil {
		return nil, err
	}
	var image struct {
		Layers []struct {
			DiffID string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(text, &image); err != nil {
		return nil, err
	}
	var layers []string
	for _, l := range image.Layers {
		layers = append(layers, l.DiffID)
	}
	slices.Sort(layers)
	return slices.Compact(layers), nil
}

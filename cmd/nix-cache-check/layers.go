package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/streamconf"
	"github.com/flakeship/flakeship/internal/substituter"
)

// maxFile is how long a file that describes an image may be to be read from a cache: a hundred layers of a hundred paths fit.
const maxFile = 4 << 20

// maxTags is how many tags of a repository are looked at. push-images looks at as many, in the same order.
const maxTags = 8

// lookForLayers finds the cached images whose layers are all in their repository already, under other tags: one small file that
// describes the image is all that a push of it needs. It is the output itself of nix2container, and the conf.json of a stream image. It
// lists the layers; the closure, which holds them, need not be fetched.
//
// Nothing depends on it but the amount that is fetched, so whatever fails leaves the image as it is.
func lookForLayers(ctx context.Context, in inputs, set *substituter.Set, rows []*row, debugf func(string, ...any)) {
	if in.prefix == "" {
		return
	}
	var wg sync.WaitGroup
	for _, r := range rows {
		d := describe(in, set, r)
		if d == nil {
			continue
		}
		wg.Go(func() {
			tags, err := layersElsewhere(ctx, in, set, r, d)
			if err != nil {
				debugf("%s: whether its layers are in the registry is not known: %v", r.Name, err)
			}
			if len(tags) > 0 {
				r.Fetch, r.LayerTags = handoff.FetchFile, tags
				if path := in.caches.StoreDir.Join(d.file); path != r.OutPath {
					r.File = path
				}
				r.Reason += "; its layers are in the registry"
			}
		})
	}
	wg.Wait()
}

// description is the file that says what an image's layers are, and how.
type description struct {
	file storepath.Path
	read func(text []byte) (layers []string, err error)
	name func(registry.Layer) string // a layer of the registry in the file's words; empty: it has no such name
}

// describe returns what describes a cached image; nil: nothing that is small.
func describe(in inputs, set *substituter.Set, r *row) *description {
	out, err := in.caches.StoreDir.Parse(r.OutPath)
	if err != nil || r.State != handoff.StateCached || r.NarSize > maxFile {
		return nil
	}
	switch r.Family {
	case handoff.Nix2Container:
		return &description{out, nix2containerLayers, func(l registry.Layer) string { return l.DiffID }}
	case handoff.Stream:
		// The script is called with its conf.json, and refers to nothing else of that name.
		refs := slices.DeleteFunc(set.References(out), func(p storepath.Path) bool { return !strings.HasSuffix(p.Name(), "conf.json") })
		if len(refs) == 1 {
			read := func(text []byte) ([]string, error) { return streamLayers(text, in.caches.StoreDir) }
			return &description{refs[0], read, func(l registry.Layer) string { return l.Annotations[streamconf.KeyAnnotation] }}
		}
	}
	return nil
}

// layersElsewhere returns tags of the image's repository that together have all of its layers; none when a layer is missing.
func layersElsewhere(ctx context.Context, in inputs, set *substituter.Set, r *row, d *description) ([]string, error) {
	repo, err := in.registry.Repository(in.prefix + "/" + r.Name)
	if err != nil {
		return nil, err
	}
	candidates, err := tagsOf(ctx, repo, r.ImageTag)
	if err != nil || len(candidates) == 0 {
		return nil, err
	}
	text, err := set.File(ctx, d.file, maxFile)
	if err != nil {
		return nil, err
	}
	wanted, err := d.read(text)
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, tag := range candidates {
		if len(wanted) == 0 {
			break
		}
		has, err := repo.Layers(ctx, tag)
		if err != nil {
			return nil, err
		}
		before := len(wanted)
		for _, l := range has {
			name := d.name(l)
			wanted = slices.DeleteFunc(wanted, func(layer string) bool { return name != "" && layer == name })
		}
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

// nix2containerLayers are the diff IDs in an image's JSON.
func nix2containerLayers(text []byte) ([]string, error) {
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
	return layers, nil
}

// streamLayers are the keys of the layers in a conf.json. Those of a base image have none: it has to be opened.
func streamLayers(text []byte, dir storepath.Dir) ([]string, error) {
	conf, err := streamconf.Parse(text, time.Now())
	switch {
	case err != nil:
		return nil, err
	case conf.StoreDir != string(dir):
		return nil, fmt.Errorf("its conf.json is for the store %.100q", conf.StoreDir)
	case conf.FromImage != nil:
		return nil, errors.New("it has a base image")
	}
	return conf.Keys(), nil
}

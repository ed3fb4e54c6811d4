package main

import (
	"fmt"
	"slices"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/push"
)

// pushedImages lists what earlier jobs pushed below the prefix: it is in the registry, and only its index is to be made.
func pushedImages(results []*handoff.PushResult, prefix string) ([]push.Image, error) {
	var images []push.Image
	for _, r := range results {
		if r.Registry != prefix || r.DryRun {
			return nil, fmt.Errorf("input push-result: %.19s… is of registry %q, and %q is given; or nothing was pushed", r.Digest, r.Registry, prefix)
		}
		for _, p := range r.Images {
			i := push.Image{Name: p.Name, Tag: p.Tag, Present: true, Digest: p.Digest, Pinned: true}
			if p.State == handoff.PushFailed {
				i.Missing = "it was not pushed: " + p.Error
			}
			if len(p.Systems) != 1 {
				return nil, fmt.Errorf("input push-result: image %s is there for %v; what is joined is of one system each", p.Name, p.Systems)
			}
			i.System = p.Systems[0]
			images = append(images, i)
		}
	}
	return images, nil
}

// whole says whether nothing was left out of what is joined.
func whole(results []*handoff.PushResult) bool {
	return !slices.ContainsFunc(results, func(r *handoff.PushResult) bool { return !r.Complete })
}

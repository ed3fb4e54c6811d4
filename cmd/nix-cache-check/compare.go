package main

import (
	"context"
	"errors"
	"strings"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/changes"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/nix"
)

// compare finds out which images are others than at the base, and why. What is known comes back with an error too; failed are the
// attributes that do not evaluate now, of which nothing is known.
func compare(ctx context.Context, n *nix.Nix, in inputs, found *nix.Evaluation, failed map[string]bool) (*handoff.Changes, error) {
	query := in.query
	query.Flake = in.base.Flake
	before, err := n.Images(ctx, query)
	if before == nil {
		return nil, err
	}
	c := &handoff.Changes{Base: in.base.Commit, Added: []handoff.ImageName{}, Removed: []handoff.ImageName{}, Changed: []handoff.ChangedImage{}}
	was := map[handoff.ImageName]nix.Image{}
	for _, img := range before.Images {
		was[handoff.ImageName{Name: img.Name, System: img.System}] = img
	}
	var oldImages, newImages []nix.Image
	is := map[handoff.ImageName]bool{}
	for _, img := range found.Images {
		id := handoff.ImageName{Name: img.Name, System: img.System}
		is[id] = true
		old, known := was[id]
		switch {
		case !known:
			c.Added = append(c.Added, id)
		case old.DrvPath != img.DrvPath:
			c.Changed = append(c.Changed, handoff.ChangedImage{ImageName: id, Causes: []handoff.Cause{}})
			oldImages, newImages = append(oldImages, old), append(newImages, img)
		}
	}
	for _, img := range before.Images {
		if id := (handoff.ImageName{Name: img.Name, System: img.System}); !is[id] && !failed[img.Attr] {
			c.Removed = append(c.Removed, id)
		}
	}
	if err = errors.Join(err, n.Instantiate(ctx, before.Flake, oldImages), n.Instantiate(ctx, found.Flake, newImages)); err != nil {
		return c, err
	}
	explain := changes.Explainer{Graph: derivations(n), Files: in.base.Files, Physical: n.Physical}
	for i := range c.Changed {
		causes, err := explain.Explain(oldImages[i].DrvPath, newImages[i].DrvPath)
		if err != nil {
			return c, err
		}
		c.Changed[i].Causes = append(c.Changed[i].Causes, causes...)
	}
	return c, nil
}

// printChanges writes the changes as a tree, if they were asked for.
func printChanges(env *action.Env, c *handoff.Changes) {
	if c == nil {
		return
	}
	env.Infof("since %.12s: %d added, %d removed, %d changed", c.Base, len(c.Added), len(c.Removed), len(c.Changed))
	for _, id := range c.Added {
		env.Infof("  + %s", id.Name)
	}
	for _, id := range c.Removed {
		env.Infof("  - %s", id.Name)
	}
	for _, img := range c.Changed {
		env.Infof("  ~ %s", img.Name)
		for i, cause := range img.Causes {
			branch := "├─"
			if i == len(img.Causes)-1 {
				branch = "└─"
			}
			env.Infof("    %s %s%s", branch, cause.String(), via(cause, ", by "))
		}
	}
}

// via names the derivations in between, with what is before them.
func via(c handoff.Cause, before string) string {
	if len(c.Via) == 0 {
		return ""
	}
	return before + strings.Join(c.Via, " → ")
}

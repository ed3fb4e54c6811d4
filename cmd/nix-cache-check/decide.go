package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/nix"
	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/substituter"
)

// row is one image on its way to a verdict.
type row struct {
	handoff.PlannedImage
	cacheErr    error // a cache's failure that keeps the state from being known
	failedCache string
	registryErr error
	evalErr     *nix.EvalError
}

// newRows makes a row of each image, and of each attribute that does not evaluate, sorted by name and system.
func newRows(found *nix.Evaluation, err error) []*row {
	var rows []*row
	for _, img := range found.Images {
		rows = append(rows, &row{PlannedImage: handoff.PlannedImage{
			Name: img.Name, Tag: img.Tag, ImageTag: img.ImageTag, Attr: img.Attr, System: img.System,
			Family: img.Family, DrvPath: img.DrvPath, OutPath: img.OutPath,
		}})
	}
	for _, one := range action.Split(err) {
		var failed *nix.EvalError
		if !errors.As(one, &failed) || failed.Attr == "" {
			continue
		}
		system, name := attribute(failed.Attr)
		if slices.ContainsFunc(rows, func(r *row) bool { return r.Name == name && r.System == system }) {
			name = failed.Attr // the image's own name is not known
		}
		rows = append(rows, &row{evalErr: failed, PlannedImage: handoff.PlannedImage{Name: name, Attr: failed.Attr, System: system}})
	}
	slices.SortStableFunc(rows, func(a, b *row) int {
		return strings.Compare(a.Name+"\x00"+a.System, b.Name+"\x00"+b.System)
	})
	return rows
}

// attribute takes packages.<system>.<name> apart.
func attribute(path string) (system, name string) {
	rest := strings.TrimPrefix(path, "packages.")
	system, name, _ = strings.Cut(rest, ".")
	return system, strings.Trim(name, `"`)
}

// askRegistry looks up each image's tag, so that what is already there is neither built nor looked for in caches.
func askRegistry(ctx context.Context, client *registry.Client, prefix string, rows []*row) {
	if prefix == "" {
		return
	}
	var wg sync.WaitGroup
	for _, r := range rows {
		if r.Tag == "" || r.evalErr != nil {
			continue
		}
		wg.Go(func() { // the client keeps the number of requests in flight small
			digest, err := client.Head(ctx, prefix+"/"+r.Name+":"+r.Tag)
			switch {
			case err == nil:
				r.State, r.Digest = handoff.StatePushed, digest
				r.Reason = prefix + "/" + r.Name + " has tag " + r.Tag
			case !errors.Is(err, registry.ErrAbsent):
				r.registryErr = err
			}
		})
	}
	wg.Wait()
}

// leaveOutRegistry takes a registry that refuses who has no right to read it for one that was not asked. In a pull request from a fork
// that is no failure: its images are looked for in the caches.
func leaveOutRegistry(env *action.Env, prefix string, rows []*row) {
	said := false
	for _, r := range rows {
		if denied := new(registry.DeniedError); errors.As(r.registryErr, &denied) {
			if r.registryErr = nil; !said {
				said = true
				env.LeaveOut("asking %s what it has: %v", prefix, denied)
			}
		}
	}
}

// askCaches looks for the output of each image that the registry lacks.
func askCaches(ctx context.Context, set *substituter.Set, dir storepath.Dir, rows []*row) {
	var asked []*row
	var paths []storepath.Path
	for _, r := range rows {
		if r.State != "" || r.registryErr != nil || r.evalErr != nil {
			continue
		}
		if r.OutPath == "" {
			r.State, r.Reason = handoff.StateUnknown, "content-addressed: its output path is known after the build only"
			continue
		}
		p, err := dir.Parse(r.OutPath)
		if err != nil {
			r.cacheErr = err
			continue
		}
		asked, paths = append(asked, r), append(paths, p)
	}
	for i, v := range set.Check(ctx, paths) {
		r := asked[i]
		r.State, r.Reason, r.Cache, r.Caches = v.State, v.Reason, v.Cache, v.Answers
		r.NarSize, r.Download = v.NarSize, v.Download
		r.cacheErr, r.failedCache = v.Err, v.Failed
	}
}

// decide fills in what the state means for the next steps. buildOnError is the policy for images behind a failed cache; a registry
// that failed has none: what it has would be pushed again, or what it lacks would be deployed.
func (r *row) decide(buildOnError bool) {
	switch {
	case r.evalErr != nil:
		r.State, r.Reason = handoff.StateError, r.evalErr.Error()
	case r.registryErr != nil:
		r.State, r.Reason = handoff.StateError, r.registryErr.Error()
	case r.cacheErr != nil:
		r.State = handoff.StateError
		if r.Reason == "" {
			r.Reason = r.cacheErr.Error()
		}
		r.Build, r.Push = buildOnError, buildOnError
	default:
		r.Build = r.State.NeedsBuild()
		r.Push = r.Build || r.State == handoff.StateCached
	}
}

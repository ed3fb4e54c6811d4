package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/nix"
)

func run(ctx context.Context, env *action.Env) error {
	start := time.Now()
	in, err := readInputs(env)
	if err != nil {
		return err
	}
	if names := in.undecided(); len(names) > 0 {
		return action.Fail(action.Failed, fmt.Errorf("the plan has no answer for %s: %s", action.Count(len(names), "image"), action.Names(names)),
			"mend what nix-cache-check reports and run it again, or let it plan to build them with on-cache-error: build")
	}
	result := &handoff.BuildResult{
		Header: handoff.Header{Commit: in.plan.Commit, Previous: []string{in.plan.Digest}},
		Flake:  &in.plan.Flake,
		Store:  handoff.Store{Dir: in.storeDir()},
		Shard:  in.shard,
	}
	if in.shard > 0 {
		result.Shards = in.plan.Shards
	}
	if len(in.targets(nil)) == 0 {
		result.Images = merge(in.plan.Images, nil, nil)
		return report(env, result, nil, time.Since(start))
	}
	n, err := nix.Open(ctx, nix.Options{Netrc: in.netrc})
	if err != nil {
		return explain(err)
	}
	result.Store = handoff.Store{Dir: n.Settings.StoreDir, Root: n.Settings.StoreRoot}
	if head := n.Head(ctx, in.plan.Flake); head != "" && in.plan.Commit != "" && head != in.plan.Commit {
		return action.Fail(action.Conflict, fmt.Errorf("the plan is of commit %.12s, and %.12s is checked out", in.plan.Commit, head),
			"run nix-cache-check again, or check out the plan's commit")
	}
	files := fetchFiles(ctx, env, n, in)
	if len(files) > 0 {
		env.Infof("%s fetched without the layers, which the registry has", action.Count(len(files), "image"))
	}
	built, copied, err := withCopy(ctx, env, n, in, func(done func(out string)) ([]nix.Built, error) {
		checks := newChecks(result.Store, done)
		in.options.Done = checks.begin
		built, err := build(ctx, env, n, in, in.targets(files))
		checks.settle(built)
		return built, err
	})
	result.Images = merge(in.plan.Images, built, files)
	if err == nil {
		err = writeClosures(ctx, env, n, result)
	}
	err = errors.Join(err, copied.settle(ctx, env, result))
	return errors.Join(err, report(env, result, built, time.Since(start)))
}

// build has Nix make the targets, and returns what is wrong with the run as a whole. What is wrong with single images is theirs.
func build(ctx context.Context, env *action.Env, n *nix.Nix, in *inputs, targets []nix.Target) ([]nix.Built, error) {
	fetch := 0
	for _, t := range targets {
		if t.Fetch {
			fetch++
		}
	}
	env.Infof("%d to build, %d to fetch", len(targets)-fetch, fetch)

	log, stop := startLog(env)
	in.options.Flake, in.options.Roots = in.plan.Flake, roots(env, in)
	in.options.Substituters, in.options.TrustedKeys = in.plan.Substituters, in.plan.TrustedPublicKeys
	in.options.Event = log.event
	built, err := n.Build(ctx, targets, in.options)
	stop()
	for _, b := range built {
		if b.NotFetched && b.State == handoff.BuildBuilt {
			env.Warnf("%s could not be fetched, although the plan says that a cache serves it: built instead", b.Name)
		}
	}
	if ctx.Err() != nil {
		done := 0
		for _, b := range built {
			if b.State != handoff.BuildFailed {
				done++
			}
		}
		return built, fmt.Errorf("%d of %s built or fetched: %w", done, action.Count(len(built), "image"), ctx.Err())
	}
	return built, explain(err)
}

func debug(env *action.Env) bool {
	return env.Text("log-level") == "debug" || env.Getenv("RUNNER_DEBUG") == "1"
}

// roots is the folder of what keeps the images from the garbage collector until they are pushed, as long as the runner keeps its
// temporary folder.
func roots(env *action.Env, in *inputs) string {
	return filepath.Join(tempDir(env), "flakeship", fmt.Sprintf("roots-%.12s", strings.TrimPrefix(in.plan.Digest, "sha256:")))
}

// merge makes the BuildResult's images of the plan's, in their order: those that were worked on, and those that were left alone.
func merge(planned []handoff.PlannedImage, built []nix.Built, files map[string]string) []handoff.BuiltImage {
	images := make([]handoff.BuiltImage, 0, len(planned))
	for _, p := range planned {
		img := handoff.BuiltImage{Name: p.Name, Tag: p.Tag, ImageTag: p.ImageTag, Attr: p.Attr, System: p.System, Family: p.Family,
			DrvPath: p.DrvPath, OutPath: p.OutPath, State: handoff.BuildSkipped, Digest: p.Digest}
		switch file := files[p.OutPath]; {
		case file != "":
			img.State, img.Digest, img.File, img.LayerTags = handoff.BuildSubstituted, "", file, p.LayerTags
		case p.Build || p.Push:
			b := built[0]
			built = built[1:] // targets are in the order of the plan
			img.Tag, img.OutPath, img.State, img.Digest, img.Failure = b.Tag, b.OutPath, b.State, "", b.Failure
			img.Seconds = math.Round(b.Seconds*1000) / 1000
		}
		images = append(images, img)
	}
	return images
}

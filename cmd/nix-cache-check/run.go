package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/nix"
	"github.com/flakeship/flakeship/internal/substituter"
)

func run(ctx context.Context, env *action.Env) error {
	start := time.Now()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	log := nixLog(env)
	defer log.Close()
	ahead := env.Text("flake")
	if env.Text("plan-cache") != "" {
		ahead = "" // Nix may not have to look at it at all
	}
	n, err := nix.Open(ctx, nix.Options{Log: log, Flake: ahead})
	if err != nil {
		return explain(err)
	}
	in, err := readInputs(ctx, env, n)
	if err != nil {
		return err
	}
	evaluation, stopEvaluation := context.WithCancel(ctx)
	defer stopEvaluation()
	caches := open(ctx, in, stopEvaluation) // their answers arrive while Nix evaluates

	found, err := n.Images(evaluation, in.query)
	log.Close()
	set, cacheErr := caches()
	if cacheErr != nil {
		return explainAll(cacheErr)
	}
	if err := evaluated(env, found, err); err != nil {
		return err
	}
	settled := settle(ctx, env, n, in, found, err)

	plan := &handoff.Plan{
		Header:            handoff.Header{Commit: found.Commit},
		Flake:             found.Flake,
		NixVersion:        n.Version.String(),
		Substituters:      set.Caches(),
		TrustedPublicKeys: publicKeys(in.caches.Keys),
		Registry:          in.prefix,
	}
	rows := newRows(found, err)
	askRegistry(ctx, in.registry, in.prefix, rows)
	if in.fork {
		leaveOutRegistry(env, in.prefix, rows)
	}
	askCaches(ctx, set, in.caches.StoreDir, rows)
	lookForLayers(ctx, in, set, rows, env.Debugf)
	for _, r := range rows {
		r.decide(in.buildOnError && ctx.Err() == nil)
	}
	if in.shards > 1 && ctx.Err() == nil {
		plan.Shards = in.shards
		divide(ctx, env, n, set, in.caches.StoreDir, found, rows, in.shards)
	}
	for _, r := range rows {
		plan.Images = append(plan.Images, r.PlannedImage)
	}
	plan.Changes = settled()
	return errors.Join(append(failures(env, rows), write(env, plan, time.Since(start)))...)
}

// publicKeys are keys as text: what a verdict rests on, the build has to trust as well.
func publicKeys(keys []narinfo.PublicKey) []string {
	var texts []string
	for _, key := range keys {
		texts = append(texts, key.String())
	}
	return texts
}

// nixLog is where Nix's own output goes: nowhere, unless it was asked for. What matters of it comes back in errors and warnings.
func nixLog(env *action.Env) io.WriteCloser {
	if env.Text("log-level") == "debug" || env.Getenv("RUNNER_DEBUG") == "1" {
		return env.Foreign("nix: ")
	}
	return nopCloser{io.Discard}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// open opens the caches in the background; the function it returns waits for them. A cache that is of no use here ends the step,
// and failed is called before that is asked for.
func open(ctx context.Context, in inputs, failed func()) func() (*substituter.Set, error) {
	var set *substituter.Set
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		if set, err = substituter.Open(ctx, in.substituters, in.caches); err != nil {
			failed()
		}
	}()
	return func() (*substituter.Set, error) {
		<-done
		return set, err
	}
}

// settle finds out in the background, while caches and registry are asked, what no cache will ever have, and what is another than at
// the base; the function it returns waits for it and says so.
func settle(ctx context.Context, env *action.Env, n *nix.Nix, in inputs, found *nix.Evaluation, evalErr error) func() *handoff.Changes {
	var attrs []string
	var changes *handoff.Changes
	var err, changesErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		if in.base.Commit != "" {
			failed := map[string]bool{}
			for _, one := range action.Split(evalErr) {
				if eval := new(nix.EvalError); errors.As(one, &eval) {
					failed[eval.Attr] = true
				}
			}
			changes, changesErr = compare(ctx, n, in, found, failed)
		}
		attrs, err = n.Settle(ctx, found)
	}()
	return func() *handoff.Changes {
		<-done
		if changesErr != nil && ctx.Err() == nil {
			env.Warnf("what changed since %.12s is not all known: %v", in.base.Commit, changesErr)
		}
		if err != nil && ctx.Err() == nil {
			env.Warnf("%v", err)
		}
		if len(attrs) > 0 {
			env.Warnf("the commit, its time or its number is in %s (%s): built anew for each commit, although nothing else changed. "+
				"Leave self.rev and the like out, or put them into what is deployed instead", action.Count(len(attrs), "image"), action.Names(attrs))
		}
		return changes
	}
}

// evaluated judges what n.Images returned: nil when there are images to go on with.
func evaluated(env *action.Env, found *nix.Evaluation, err error) error {
	if found == nil {
		return explainAll(err)
	}
	if found.Reused {
		env.Infof("evaluation: of the same tree, from plan-cache")
	}
	for _, warning := range found.Warnings {
		env.Warnf("%s", warning)
	}
	var duplicate *nix.DuplicateError
	if errors.As(err, &duplicate) || err != nil && len(found.Images) == 0 {
		return explainAll(err)
	}
	var problems []error
	for _, glob := range found.UnmatchedAttributes {
		problems = append(problems, action.Fail(action.BadInput, fmt.Errorf("input attributes: %q fits no package of the flake", glob),
			"nix flake show lists the packages; a glob stands for a name under packages.<system>, such as api or *-image"))
	}
	if len(found.Images) > 0 {
		for _, system := range found.UnmatchedSystems {
			env.Warnf("the flake has no packages for %s", system)
		}
		return errors.Join(problems...)
	}
	if len(problems) == 0 {
		problems = append(problems, noImages(found))
	}
	return errors.Join(problems...)
}

// noImages is the failure of a flake in which there is nothing to ship.
func noImages(found *nix.Evaluation) error {
	if len(found.UnmatchedSystems) > 0 {
		return action.Fail(action.BadInput, fmt.Errorf("flake %s has no packages for %s", found.Flake.Ref, action.Names(found.UnmatchedSystems)),
			"give the systems the flake has images for in the input systems; nix flake show --all-systems lists them")
	}
	return action.Fail(action.BadInput, fmt.Errorf("flake %s has no container images", found.Flake.Ref),
		"an image is a derivation under packages.<system> with an imageName, as dockerTools and nix2container make it; "+
			"check the inputs flake, attributes and systems against nix flake show")
}

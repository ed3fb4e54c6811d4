package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/apply"
	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/deployset"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/manifest"
)

// recover undoes a deploy that failed with err, unless it is to be left. It returns err, and with it whether the rollback failed
// too.
func (d *deploy) recover(ctx context.Context, err error) error {
	var f *action.Failure
	if d.env.Text("on-failure") == "leave" || d.result.History > 0 { // which says that it runs: what failed came after
		return err
	}
	ctx, stop := context.WithTimeout(ctx, d.env.Duration("rollback-timeout"))
	defer stop()
	begin := time.Now()
	rollback := &handoff.Rollback{}
	d.result.Rollback = rollback
	failed := d.rollBack(ctx, rollback)
	rollback.Seconds = time.Since(begin).Seconds()
	what := "to what was there before the first deploy"
	if rollback.History > 0 {
		what = "to " + d.set.Deployed().String()
	}
	if failed == nil {
		rollback.Done = true
		d.env.Infof("rolled back %s, in %.1f s", what, rollback.Seconds)
		return err
	}
	rollback.Message = failed.Error()
	d.env.Warnf("the rollback %s failed: %v", what, failed)
	if errors.As(err, &f) {
		f.Err = fmt.Errorf("%w; the rollback failed too: %w", f.Err, failed)
	}
	return err
}

// rollBack applies the last version that ran, deletes what this run created, and waits until all of it runs again.
func (d *deploy) rollBack(ctx context.Context, r *handoff.Rollback) error {
	last := d.set.Deployed()
	var good []manifest.Object
	if last != nil && last.Version > 0 {
		d.env.Infof("rolling back to %s", last)
		r.History, r.Commit = last.Version, last.Commit
		var err error
		if good, err = d.set.Load(ctx, *last); err != nil {
			return err
		}
	}
	// A Job ran when it was deployed, and is not run again.
	again := slices.DeleteFunc(slices.Clone(good), func(o manifest.Object) bool {
		return o.GroupVersionKind().GroupKind() == schema.GroupKind{Group: "batch", Kind: "Job"}
	})
	changes, err := apply.Objects(ctx, d.cluster, again, apply.Options{
		Conflicts: apply.Policy(d.env.Text("conflicts")),
		Mask:      d.rollouts.mask,
		Report: func(c apply.Change) {
			logChange(d.env, c)
			if isChange(c.Action) {
				r.Objects = append(r.Objects, c.Object.ID())
			}
		},
	})
	if err != nil {
		return err
	}
	fates, err := d.set.Prune(ctx, d.created(good), deployset.PruneOptions{Order: apply.Order, Report: func(f deployset.Fate) {
		d.env.Infof("%-10s  %s", "deleted", f.ID())
		r.Objects = append(r.Objects, f.ID())
	}})
	for _, f := range fates {
		if !f.Gone {
			d.env.Infof("%-10s  %s: %s", handoff.ActionKept, f.ID(), f.Message)
		}
	}
	if err != nil {
		return err
	}
	if err := newRollouts(d.env, d.cluster, d.rollouts.mask).wait(ctx, changes); err != nil {
		return err
	}
	return d.set.Revert(ctx)
}

// created are the objects that this run created and that are not of the good version.
func (d *deploy) created(good []manifest.Object) (all []deployset.Member) {
	old := map[manifest.Key]bool{}
	for _, o := range good {
		old[o.Key("")] = true
	}
	for _, c := range d.changes {
		if c.Action != handoff.ActionCreated || old[c.Object.Key("")] {
			continue
		}
		all = append(all, deployset.NewMember(cluster.Kind{GroupVersionKind: c.Object.GroupVersionKind(), Resource: c.Resource.Resource,
			Namespaced: c.Object.GetNamespace() != ""}, c.Live))
	}
	return all
}

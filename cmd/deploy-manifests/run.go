package main

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/apply"
	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/rollout"
)

func run(ctx context.Context, env *action.Env) error {
	start := time.Now()
	in, err := readInputs(ctx, env)
	if err != nil {
		return err
	}
	result := &handoff.DeployResult{Server: in.cluster.Server, Objects: []handoff.DeployedObject{}, Images: in.pinned}
	if in.push != nil {
		result.Commit, result.Previous = in.push.Commit, []string{in.push.Digest}
	}
	rollouts := &rollouts{env: env, cluster: in.cluster, done: map[types.UID]rollout.Result{}}
	changes, err := apply.Objects(ctx, in.cluster, in.objects, apply.Options{
		Conflicts: apply.Policy(env.Text("conflicts")),
		Report:    func(c apply.Change) { logChange(env, c) },
		Await:     rollouts.wait,
	})
	if err == nil && env.Bool("wait") {
		err = rollouts.wait(ctx, changes)
	}
	for _, c := range changes {
		result.Objects = append(result.Objects, rollouts.deployed(c))
		result.Changed = result.Changed || isChange(c.Action)
	}
	err = explainRun(err, in.cluster.Server)
	return errors.Join(err, write(env, result, time.Since(start), err == nil))
}

// rollouts waits for what was applied, for each object once, and keeps how far it got.
type rollouts struct {
	env     *action.Env
	cluster *cluster.Cluster
	done    map[types.UID]rollout.Result
}

func (r *rollouts) wait(ctx context.Context, changes []apply.Change) error {
	var targets []rollout.Target
	for _, c := range changes {
		if c.Live == nil || !rollout.Follows(c.Live.GroupVersionKind().GroupKind()) {
			continue
		}
		if _, done := r.done[c.Live.GetUID()]; !done {
			targets = append(targets, rollout.Target{Live: c.Live, At: c.At})
		}
	}
	results, err := rollout.Wait(ctx, r.cluster, targets, rollout.Options{
		Report: func(t rollout.Target, result rollout.Result) { logRollout(r.env, t, result) },
		Warn:   func(text string) { r.env.Warnf("%s", text) },
	})
	for i, result := range results {
		r.done[targets[i].Live.GetUID()] = result
	}
	if err != nil {
		return &rolloutError{err}
	}
	return nil
}

// rolloutError is what rollout.Wait returned.
type rolloutError struct{ error }

func (e *rolloutError) Unwrap() error { return e.error }

// deployed is what the result tells of an object.
func (r *rollouts) deployed(c apply.Change) handoff.DeployedObject {
	o := c.Object
	d := handoff.DeployedObject{
		APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName(),
		Source: o.Source.String(), Action: c.Action, Rollout: handoff.RolloutNone, Message: c.Message,
	}
	if c.Live == nil {
		return d
	}
	if result, ok := r.done[c.Live.GetUID()]; ok {
		d.Rollout, d.Seconds = result.Rollout, result.Seconds
		if result.Rollout != handoff.RolloutReady {
			d.Message = result.Message
		}
	}
	return d
}

func isChange(a handoff.Action) bool {
	return a == handoff.ActionCreated || a == handoff.ActionConfigured || a == handoff.ActionRecreated
}

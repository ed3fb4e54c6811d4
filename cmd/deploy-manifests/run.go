package main

import (
	"context"
	"errors"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/apply"
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
	changes, err := apply.Objects(ctx, in.cluster, in.objects, apply.Options{
		Conflicts: apply.Policy(env.Text("conflicts")),
		Report:    func(c apply.Change) { logChange(env, c) },
	})
	for _, c := range changes {
		result.Objects = append(result.Objects, deployed(c))
		result.Changed = result.Changed || isChange(c.Action)
	}
	err = explainApply(err, in.cluster.Server)
	if err == nil && env.Bool("wait") {
		err = explainRollout(wait(ctx, env, in, changes, result), in.cluster.Server)
	}
	return errors.Join(err, write(env, result, time.Since(start), err == nil))
}

// wait waits for what was applied and notes in result how far it got.
func wait(ctx context.Context, env *action.Env, in inputs, changes []apply.Change, result *handoff.DeployResult) error {
	var targets []rollout.Target
	var indexes []int
	for i, c := range changes {
		if c.Live != nil && rollout.Follows(c.Live.GroupVersionKind().GroupKind()) {
			targets = append(targets, rollout.Target{Live: c.Live, At: c.At})
			indexes = append(indexes, i)
		}
	}
	results, err := rollout.Wait(ctx, in.cluster, targets, rollout.Options{
		Report: func(t rollout.Target, r rollout.Result) { logRollout(env, t, r) },
		Warn:   func(text string) { env.Warnf("%s", text) },
	})
	for i, r := range results {
		o := &result.Objects[indexes[i]]
		o.Rollout, o.Seconds = r.Rollout, r.Seconds
		if r.Rollout != handoff.RolloutReady {
			o.Message = r.Message
		}
	}
	return err
}

func deployed(c apply.Change) handoff.DeployedObject {
	o := c.Object
	return handoff.DeployedObject{
		APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName(),
		Source: o.Source.String(), Action: c.Action, Rollout: handoff.RolloutNone, Message: c.Message,
	}
}

func isChange(a handoff.Action) bool {
	return a == handoff.ActionCreated || a == handoff.ActionConfigured
}

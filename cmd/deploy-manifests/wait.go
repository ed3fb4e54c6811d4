package main

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/apply"
	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/rollout"
)

// rollouts waits for what was applied, for each object once, and keeps how far it got.
type rollouts struct {
	env     *action.Env
	cluster *cluster.Cluster
	mask    func(string) string
	done    map[types.UID]rollout.Result
}

func newRollouts(env *action.Env, c *cluster.Cluster, mask func(string) string) *rollouts {
	return &rollouts{env: env, cluster: c, mask: mask, done: map[types.UID]rollout.Result{}}
}

func (r *rollouts) wait(ctx context.Context, changes []apply.Change) error {
	var targets []rollout.Target
	for _, c := range changes {
		if c.Live == nil {
			continue
		}
		if _, done := r.done[c.Live.GetUID()]; !done {
			targets = append(targets, rollout.Target{Live: c.Live, At: c.At, Resource: c.Resource})
		}
	}
	results, err := rollout.Wait(ctx, r.cluster, targets, rollout.Options{
		Report: func(t rollout.Target, result rollout.Result) { logRollout(r.env, t, result) },
		Warn:   func(text string) { r.env.Warnf("%s", text) },
		Slow:   func(all []rollout.Outcome) { logSlow(r.env, all) },
		Mask:   r.mask,
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

// deployed is what the result tells of each object.
func (r *rollouts) deployed(changes []apply.Change) []handoff.DeployedObject {
	all := []handoff.DeployedObject{}
	for _, c := range changes {
		o := c.Object
		d := handoff.DeployedObject{
			APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName(),
			Source: o.Source.String(), Action: c.Action, Rollout: handoff.RolloutNone, Message: c.Message,
		}
		if c.Live != nil {
			if result, ok := r.done[c.Live.GetUID()]; ok {
				d.Rollout, d.Seconds = result.Rollout, result.Seconds
				if result.Rollout != handoff.RolloutReady {
					d.Message = result.Message
				}
			}
		}
		all = append(all, d)
	}
	return all
}

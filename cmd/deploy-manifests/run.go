package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/apply"
	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/deployset"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/manifest"
)

func run(ctx context.Context, env *action.Env) error {
	start := time.Now()
	in, err := readInputs(ctx, env)
	if err != nil {
		return err
	}
	result := &handoff.DeployResult{Objects: []handoff.DeployedObject{}, Images: in.pinned}
	if in.push != nil {
		result.Commit, result.Previous = in.push.Commit, []string{in.push.Digest}
	}
	switch in.mode {
	case "":
		return leaveOut(env, in, result, start)
	case "render":
		return render(env, in, result, start)
	}
	result.Server, result.Set, result.Namespace = in.cluster.Server, in.name, in.cluster.Namespace
	if in.mode == "diff" {
		return showDiff(ctx, env, in, result, start)
	}
	d := &deploy{env: env, inputs: in, result: result, set: deployset.New(in.cluster, in.name), record: record(ctx, env, in), rollouts: newRollouts(env, in.cluster, masker(in.objects, os.Environ()))}
	for _, o := range in.objects {
		d.changes = append(d.changes, apply.Change{Object: o, Action: handoff.ActionSkipped})
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		commitStatus(ctx, env, in, d.record.Commit, "pending", "being deployed")
	}()
	err = d.run(ctx)
	result.Objects = append(d.rollouts.deployed(d.changes), result.Objects...)
	in.noteImages(result.Objects)
	result.URLs = urls(d.changes)
	written := write(env, result, time.Since(start), err == nil) // first: a job that is cancelled has little time left
	<-told
	state, text := "success", tally(result)
	if err != nil {
		state, text = "failure", d.rollouts.mask(action.Split(err)[0].Error())
	}
	commitStatus(ctx, env, in, d.record.Commit, state, text)
	return errors.Join(err, written)
}

// deploy is one run against a cluster. Its steps note in result how far they got.
type deploy struct {
	env *action.Env
	inputs
	result *handoff.DeployResult

	set    *deployset.Set
	record deployset.Record // of this run
	lock   *deployset.Lock  // nil: not taken yet
	lost   context.CancelCauseFunc

	kinds    *cluster.Kinds
	changes  []apply.Change
	rollouts *rollouts
	former   []deployset.Member // what has left the manifests
	looked   bool               // for former
}

// run deploys, in a context that also ends when the lock is lost.
func (d *deploy) run(ctx context.Context) error {
	base, lost := context.WithCancelCause(action.Untimed(ctx))
	defer lost(nil)
	d.lost = lost
	timed := base
	if deadline, ok := ctx.Deadline(); ok {
		var stop context.CancelFunc
		timed, stop = context.WithDeadline(base, deadline)
		defer stop()
	}
	defer d.release(ctx)
	err := d.deploy(timed)
	if err != nil && d.written() && base.Err() == nil {
		err = d.recover(base, err)
	}
	if cause := context.Cause(base); errors.Is(cause, deployset.ErrLost) {
		return explainSet(cause, d.cluster.Server)
	}
	return err
}

func (d *deploy) deploy(ctx context.Context) (err error) {
	if d.kinds, err = d.cluster.Discover(ctx); err != nil {
		return explainRequest(err, d.cluster.Server)
	}
	if err := d.begin(ctx); err != nil {
		return err
	}
	d.set.Mark(d.objects)
	changes, err := apply.Objects(ctx, d.cluster, d.objects, apply.Options{
		Conflicts: apply.Policy(d.env.Text("conflicts")),
		Report:    func(c apply.Change) { logChange(d.env, c) },
		Kinds:     d.kinds,
		Refuse:    d.set.Refuse,
		Mask:      d.rollouts.mask,
		Watched:   d.env.Bool("wait"),
		Begin:     d.beforeWriting,
		Await:     d.rollouts.wait,
	})
	d.changes = changes
	d.rollouts.mask = masker(withFormer(d.objects, changes), os.Environ())
	for _, c := range changes {
		d.result.Changed = d.result.Changed || isChange(c.Action)
	}
	if refused := new(apply.Error); errors.As(err, &refused) && refused.Written {
		d.result.Changed = true // an object may be deleted, and then not be created again
	}
	if err != nil {
		return explainRun(err, d.cluster.Server)
	}
	if err := d.look(ctx); err != nil {
		return err
	}
	if d.env.Bool("wait") {
		if err := d.rollouts.wait(ctx, changes); err != nil {
			return explainRun(err, d.cluster.Server)
		}
	}
	return d.settle(ctx)
}

// written says whether the cluster is not what it was before.
func (d *deploy) written() bool { return d.result.Changed }

func isChange(a handoff.Action) bool {
	return a == handoff.ActionCreated || a == handoff.ActionConfigured || a == handoff.ActionRecreated
}

// applied are the objects as they were sent, in the order of the stages.
func applied(changes []apply.Change) (objects []manifest.Object) {
	for _, c := range changes {
		objects = append(objects, c.Object)
	}
	return objects
}

package apply

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/handoff"
)

// write writes what the plan says of one stage. When an object fails, the others of its stage are finished: they were
// found to be right.
func (a *applier) write(ctx context.Context, s stage) error {
	wanted := func(it *item) bool { return it.stage == s && (it.plan == write || it.plan == recreate) }
	if err := a.each(ctx, wanted, a.writeOne); err != nil {
		return err
	}
	return a.failed()
}

// settle is how much longer a write may take that was begun when the run is cancelled: what it did has to be known, or the result
// calls an object skipped that was written. It is less than what is left of the lock when the lock's loss ends the run.
const settle = 2 * time.Second

func (a *applier) writeOne(ctx context.Context, it *item) error {
	begun := ctx
	ctx, cancel := context.WithCancel(context.WithoutCancel(begun))
	defer cancel()
	defer context.AfterFunc(begun, func() { time.AfterFunc(settle, cancel) })()
	if it.plan == recreate {
		if err := a.remove(ctx, it); err != nil {
			return a.fail(it, err, "")
		}
	}
	if len(it.predecessors) > 0 && it.plan == write {
		if err := a.migrate(ctx, it); err != nil {
			return a.fail(it, err, "")
		}
	}
	live, err := a.patch(ctx, it)
	if err != nil && a.mend(it, cluster.Diagnose(err)) { // scaled since the dry run
		live, err = a.patch(ctx, it)
	}
	for tries := 0; goneVersion(err) != "" && tries < mostVersions; tries++ {
		if err = a.renew(ctx, it, goneVersion(err)); err == nil {
			live, err = a.patch(ctx, it)
		}
	}
	if err != nil {
		return a.fail(it, err, hint(cluster.Diagnose(err)))
	}
	it.change.Live, it.change.At, it.change.Action = live, time.Now(), it.outcome(live)
	a.mu.Lock()
	defer a.mu.Unlock()
	if it.change.Action != handoff.ActionUnchanged {
		a.written = true
	}
	if a.options.Report != nil {
		a.options.Report(it.change)
	}
	return nil
}

// outcome says what a write was. An apply that changes nothing leaves the resourceVersion as it is.
func (it *item) outcome(live *unstructured.Unstructured) handoff.Action {
	before := it.live
	if !it.liveKnown { // no right to read: the dry run shows whether the object was there
		before = it.checked
	}
	switch {
	case it.plan == recreate:
		return handoff.ActionRecreated
	case before == nil || before.GetResourceVersion() == "":
		return handoff.ActionCreated
	case before.GetResourceVersion() == live.GetResourceVersion():
		return handoff.ActionUnchanged
	}
	return handoff.ActionConfigured
}

package apply

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

func (a *applier) writeOne(ctx context.Context, it *item) error {
	if it.plan == recreate {
		if err := a.remove(ctx, it); err != nil {
			return a.fail(it, err, "")
		}
		it.change.Message = "deleted and created again: its pod template changed"
	}
	live, err := a.patch(ctx, it)
	if err != nil && a.mend(it, cluster.Diagnose(err)) { // scaled since the dry run
		live, err = a.patch(ctx, it)
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
		return handoff.ActionConfigured
	case before == nil || before.GetResourceVersion() == "":
		return handoff.ActionCreated
	case before.GetResourceVersion() == live.GetResourceVersion():
		return handoff.ActionUnchanged
	}
	return handoff.ActionConfigured
}

// planRecreate plans to delete the live object and to create it again.
func (a *applier) planRecreate(ctx context.Context, it *item) error {
	if it.live == nil {
		if err := it.get(ctx); err != nil {
			return a.fail(it, err, "")
		}
	}
	if it.live == nil {
		a.refuse(it, cluster.Diagnosis{Class: cluster.Denied, Text: "it is to be deleted and created again, but may not be read"}, "")
		return nil
	}
	it.plan = recreate
	return nil
}

// removeTimeout bounds the wait for an object that is being deleted; finalizers may hold it for ever.
const removeTimeout = time.Minute

// remove deletes the object that was looked up, and no other that took its name since, and waits until it is gone.
func (a *applier) remove(ctx context.Context, it *item) error {
	uid, name := it.live.GetUID(), it.object.GetName()
	propagation := metav1.DeletePropagationBackground
	err := cluster.Retry(ctx, func() error {
		return it.client.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &propagation})
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	deadline := time.Now().Add(removeTimeout)
	for poll := pollFirst; err == nil; poll = min(2*poll, pollMost) {
		var live *unstructured.Unstructured
		live, err = it.client.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && live.GetUID() != uid:
			return nil
		case err == nil && time.Now().After(deadline):
			return fmt.Errorf("is still there %s after it was deleted: its finalizers are %v", removeTimeout, live.GetFinalizers())
		case err == nil:
			err = sleep(ctx, poll)
		}
	}
	return err
}

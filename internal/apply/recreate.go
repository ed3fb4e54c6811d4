package apply

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flakeship/flakeship/internal/cluster"
)

// RecreateAnnotation, with the value "true", allows an object to be deleted and created again when it changed in a field that
// cannot be changed. What is lost by that is for its author to say.
const RecreateAnnotation = "flakeship.dev/recreate"

// recreatable are the kinds that may be deleted and created again, and what becomes of what belongs to the object then. Kinds
// that hold others, or data, are not among them: namespaces, definitions, volumes and their claims, custom resources.
var recreatable = map[schema.GroupKind]metav1.DeletionPropagation{
	{Kind: "Pod"}:       metav1.DeletePropagationBackground,
	{Kind: "Service"}:   metav1.DeletePropagationBackground,
	{Kind: "ConfigMap"}: metav1.DeletePropagationBackground,
	{Kind: "Secret"}:    metav1.DeletePropagationBackground,

	{Group: "batch", Kind: "Job"}:        metav1.DeletePropagationBackground,
	{Group: "apps", Kind: "Deployment"}:  metav1.DeletePropagationBackground,
	{Group: "apps", Kind: "ReplicaSet"}:  metav1.DeletePropagationBackground,
	{Group: "apps", Kind: "DaemonSet"}:   metav1.DeletePropagationBackground,
	{Group: "apps", Kind: "StatefulSet"}: metav1.DeletePropagationOrphan, // the new one takes over the pods that run

	{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"}:        metav1.DeletePropagationBackground,
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"}: metav1.DeletePropagationBackground,
	{Group: "storage.k8s.io", Kind: "StorageClass"}:                  metav1.DeletePropagationBackground,
}

// immutable plans what becomes of an object that cannot be changed as its manifest wants it.
func (a *applier) immutable(ctx context.Context, it *item, reason cluster.Diagnosis) error {
	kind := it.kind.Kind
	_, can := recreatable[it.kind.GroupKind()]
	switch {
	case !can:
		a.refuse(it, reason, fmt.Sprintf("a %s is never deleted to be created again: leave that field as it is, or delete the %s yourself", kind, kind))
		return nil
	case it.hook == "" && it.object.GetAnnotations()[RecreateAnnotation] != "true":
		a.refuse(it, reason, fmt.Sprintf("annotate the %s with %s: \"true\" to have it deleted and created again, or give it a new name", kind, RecreateAnnotation))
		return nil
	}
	if it.live == nil {
		if err := it.get(ctx); err != nil {
			return a.fail(it, err, "")
		}
	}
	if it.live == nil {
		a.refuse(it, cluster.Diagnosis{Class: cluster.Denied, Text: "it is to be deleted and created again, but may not be read"}, "")
		return nil
	}
	it.recreate(reason.Text)
	return nil
}

// recreate plans to delete the live object and to create it again.
func (it *item) recreate(why string) {
	it.plan = recreate
	it.change.Message = "deleted and created again: " + why
}

// removeTimeout bounds the wait for an object that is being deleted; finalizers may hold it for ever.
const removeTimeout = time.Minute

// remove deletes the object that was looked up, and no other that took its name since, and waits until it is gone.
func (a *applier) remove(ctx context.Context, it *item) error {
	uid, name := it.live.GetUID(), it.object.GetName()
	propagation := recreatable[it.kind.GroupKind()]
	err := cluster.Retry(ctx, func() error {
		return it.client.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &propagation})
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		a.mu.Lock()
		a.written = true // whatever becomes of the rest
		a.mu.Unlock()
	}
	deadline := time.Now().Add(removeTimeout)
	for poll := pollFirst; err == nil; poll = min(2*poll, pollMost) {
		var live *unstructured.Unstructured
		err = cluster.Retry(ctx, func() error {
			var err error
			live, err = it.client.Get(ctx, name, metav1.GetOptions{})
			return err
		})
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

package deployset

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/flakeship/flakeship/internal/cluster"
)

// How long a run that died keeps others waiting, how often one that lives says so, and how often one that waits looks. The
// Lease is lost when it could not be renewed for as long as it lasts, which is time for an API server to restart.
const (
	leaseTime  = 30 * time.Second
	renewEvery = 8 * time.Second
	lookEvery  = time.Second
)

// ErrLost is a lock that was taken over by another run, because it could not be renewed in time.
var ErrLost = errors.New("the set's lock was lost to another run")

// HeldError is a lock that another run did not let go of in time.
type HeldError struct {
	Name   string // of the set
	Holder string
	Since  time.Time // zero: not known
}

func (e *HeldError) Error() string {
	s := fmt.Sprintf("another run deploys the set %s: %s", e.Name, e.Holder)
	if !e.Since.IsZero() {
		s += ", since " + e.Since.UTC().Format(time.RFC3339)
	}
	return s
}

// Lock is the right to change a set, as a Lease that is renewed until Release.
type Lock struct {
	client   dynamic.ResourceInterface
	name     string
	identity string
	lease    *unstructured.Unstructured
	stop     context.CancelFunc
	done     chan struct{} // closed when it is no longer renewed
}

// LockOptions are the settings of Acquire.
type LockOptions struct {
	Holder   string           // who is at work, for people: the run's URL as a rule
	Patience time.Duration    // how long to wait for another run
	Waiting  func(*HeldError) // gets each other holder once, when it has to be waited for
	Lost     func(error)      // is called with an ErrLost when the lock is lost; nothing may be written after that
}

// Acquire takes the lock of a set, in the cluster's default namespace. A holder that shows no sign of life for as long as its
// Lease lasts has died: clocks are not compared.
//
// Errors: *HeldError; ErrNoNamespace; ctx.Err(); others from the API server.
func Acquire(ctx context.Context, c *cluster.Cluster, name string, o LockOptions) (*Lock, error) {
	l := &Lock{client: c.Dynamic.Resource(leases).Namespace(c.Namespace), name: prefix + name,
		identity: fmt.Sprintf("%s [%s]", o.Holder, strings.ToLower(rand.Text()[:8])), done: make(chan struct{})}
	deadline := time.Now().Add(o.Patience)
	var told, sign string // of the holder
	var seen time.Time    // when the sign of life was new
	for {
		held, next, err := l.try(ctx, sign != "" && time.Since(seen) > leaseTime)
		if err != nil {
			return nil, err
		}
		if held == nil {
			break
		}
		held.Name = name
		if next != sign {
			sign, seen = next, time.Now()
		}
		if time.Now().After(deadline) {
			return nil, held
		}
		if held.Holder != told && o.Waiting != nil {
			told = held.Holder
			o.Waiting(held)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(min(lookEvery, max(time.Until(deadline), time.Millisecond))):
		}
	}
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx)) // until Release, whatever ends before
	l.stop = stop
	go l.renew(renewing, o.Lost)
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, l.Release(ctx))
	}
	return l, nil
}

// try takes the Lease if it is free, or if expired says that its holder is dead. Else it returns who holds it, and a sign that
// changes as long as that run lives. A write that was begun is waited for after ctx has ended: else nobody would know whose the
// Lease is.
func (l *Lock) try(ctx context.Context, expired bool) (held *HeldError, sign string, err error) {
	var lease *unstructured.Unstructured
	err = cluster.Retry(ctx, func() (err error) {
		lease, err = l.client.Get(ctx, l.name, metav1.GetOptions{})
		return err
	})
	writing, stop := context.WithTimeout(context.WithoutCancel(ctx), renewEvery)
	defer stop()
	now := metav1.NowMicro().UTC().Format(metav1.RFC3339Micro)
	spec := map[string]any{"holderIdentity": l.identity, "leaseDurationSeconds": int64(leaseTime / time.Second), "acquireTime": now, "renewTime": now}
	switch {
	case apierrors.IsNotFound(err):
		fresh := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
			"metadata": map[string]any{"name": l.name}, "spec": spec}}
		l.lease, err = l.client.Create(writing, fresh, metav1.CreateOptions{FieldManager: manager})
		if apierrors.IsNotFound(err) {
			return nil, "", ErrNoNamespace
		}
	case err == nil:
		text := func(field string) string { s, _, _ := unstructured.NestedString(lease.Object, "spec", field); return s }
		holder := text("holderIdentity")
		if holder == l.identity { // an earlier write arrived, though its answer did not
			l.lease = lease
			return nil, "", nil
		}
		if holder != "" && !expired {
			since, _ := time.Parse(time.RFC3339, text("acquireTime"))
			holder, _, _ = strings.Cut(holder, " [")
			return &HeldError{Holder: holder, Since: since}, lease.GetResourceVersion(), nil
		}
		lease.Object["spec"] = spec
		l.lease, err = l.client.Update(writing, lease, metav1.UpdateOptions{FieldManager: manager})
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || err != nil && cluster.Passing(err) { // another run was faster, or the server went away
		return &HeldError{Holder: "one that has only just begun"}, "", nil
	}
	return nil, "", err
}

// renew keeps the Lease until ctx ends.
func (l *Lock) renew(ctx context.Context, lost func(error)) {
	defer close(l.done)
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(renewEvery):
		}
		begin := time.Now()
		next := l.lease.DeepCopy()
		unstructured.SetNestedField(next.Object, metav1.NowMicro().UTC().Format(metav1.RFC3339Micro), "spec", "renewTime")
		attempt, stop := context.WithTimeout(ctx, renewEvery)
		next, err := l.client.Update(attempt, next, metav1.UpdateOptions{FieldManager: manager})
		stop()
		switch {
		case err == nil:
			l.lease, last = next, begin
			continue
		case apierrors.IsConflict(err) || apierrors.IsNotFound(err): // another run's, or the answer to our last renewal got lost
			switch now, err := l.mine(ctx); {
			case errors.Is(err, ErrLost):
				lost(err)
				return
			case err == nil:
				l.lease = now
				continue
			}
		}
		if time.Since(last) > leaseTime {
			lost(fmt.Errorf("%w: it could not be renewed: %w", ErrLost, err))
			return
		}
	}
}

// mine reads the Lease again. The error is ErrLost when it is another's.
func (l *Lock) mine(ctx context.Context) (*unstructured.Unstructured, error) {
	lease, err := l.client.Get(ctx, l.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, ErrLost
	}
	if err != nil {
		return nil, err
	}
	if holder, _, _ := unstructured.NestedString(lease.Object, "spec", "holderIdentity"); holder != l.identity {
		return nil, ErrLost
	}
	return lease, nil
}

// releaseTimeout bounds the request that ends a lock; a job that is being cancelled has little time left.
const releaseTimeout = 5 * time.Second

// Release lets the next run in. It works after ctx has ended; an error means that the next run has to wait until the Lease
// has run out.
func (l *Lock) Release(ctx context.Context) error {
	l.stop()
	<-l.done
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer stop()
	for lease := l.lease; ; {
		unstructured.SetNestedField(lease.Object, "", "spec", "holderIdentity")
		_, err := l.client.Update(ctx, lease, metav1.UpdateOptions{FieldManager: manager})
		if !apierrors.IsConflict(err) {
			return err
		}
		// The last renewal arrived, though its answer was not waited for; or it is another run's by now.
		if lease, err = l.mine(ctx); errors.Is(err, ErrLost) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

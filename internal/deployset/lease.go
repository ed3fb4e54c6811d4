package deployset

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/flakeship/flakeship/internal/cluster"
)

// How long a run that is silent keeps others waiting, for how long one that could not say that it lives may still write, how often
// it says so, and how often one that waits looks.
const (
	leaseTime  = 20 * time.Second
	surelyOurs = 16 * time.Second
	renewEvery = 4 * time.Second
	lookEvery  = time.Second
	// deadTime is how long a run keeps others waiting whose process is known to be gone: what it had sent ends with its
	// connections, which the API server notices at once.
	deadTime = 2 * time.Second
)

// ErrLost is a lock that was taken over by another run, because it could not be renewed in time.
var ErrLost = errors.New("the set's lock was lost to another run")

// HeldError is a lock that another run did not let go of in time.
type HeldError struct {
	Name   string // of the set
	Holder string
	Since  time.Time // zero: not known
	Until  time.Time // when the lock is taken over if the holder shows no sign of life; zero: not known
	Gone   bool      // its process ran on this machine and is no more
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
	identity string // the holder's name and the token
	token    string // which no other lock has
	lease    *unstructured.Unstructured
	renewed  atomic.Pointer[time.Time] // when the last renewal was sent that succeeded
	refused  atomic.Pointer[error]     // what the server has against renewals since then; nil: nothing, as far as is known
	pulse    *pulse                    // from the first attempt to take the Lease on
	stop     context.CancelFunc
	done     chan struct{} // closed when it is no longer renewed
}

// LockOptions are the settings of Acquire.
type LockOptions struct {
	Holder   string           // who is at work, for people: the run's URL as a rule
	Patience time.Duration    // how long to wait for another run
	Waiting  func(*HeldError) // gets each other holder once, when it has to be waited for
	Died     func(*HeldError) // gets a holder that has died, as far as can be known, and whose lock was taken over
	Lost     func(error)      // is called with an ErrLost when another run has the lock
}

// Acquire takes the lock of a set, in the cluster's default namespace. A holder that shows no sign of life for as long as its
// Lease lasts has died: clocks are not compared. Of one that ran on this machine that is known as soon as its process is gone.
//
// Errors: *HeldError; ErrNoNamespace; ctx.Err(); others from the API server.
func Acquire(ctx context.Context, c *cluster.Cluster, name string, o LockOptions) (*Lock, error) {
	token := strings.ToLower(rand.Text()[:tokenLength])
	l := &Lock{client: c.Dynamic.Resource(leases).Namespace(c.Namespace), name: prefix + name,
		identity: fmt.Sprintf("%s [%s]", o.Holder, token), token: token, done: make(chan struct{})}
	if err := l.wait(ctx, name, o); err != nil {
		l.pulse.end()
		return nil, err
	}
	renewing, stop := context.WithCancel(cluster.Unfenced(context.WithoutCancel(ctx))) // until Release, whatever ends before
	l.stop = stop
	go l.renew(renewing, o.Lost)
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, l.Release(ctx))
	}
	return l, nil
}

// wait takes the Lease as soon as that is possible.
func (l *Lock) wait(ctx context.Context, name string, o LockOptions) error {
	deadline := time.Now().Add(o.Patience)
	var told, sign string // of the holder
	var seen time.Time    // when the sign of life was new
	for {
		lease, held, err := l.look(ctx)
		if err != nil {
			return err
		}
		if held != nil {
			if held.sign != sign {
				sign, seen = held.sign, time.Now()
			}
			held.Gone = isGone(held.token)
			held.Until = seen.Add(leaseTime)
			if held.Gone {
				held.Until = seen.Add(deadTime)
			}
		}
		if died := held != nil && time.Now().After(held.Until); held == nil || died {
			taken, err := l.take(ctx, lease)
			if err != nil {
				return err
			}
			if taken && died {
				forgetPulse(held.token)
				o.Died(&held.HeldError)
			}
			if taken {
				return nil
			}
			held = &holder{HeldError: HeldError{Holder: "one that has only just begun"}}
		}
		held.Name = name
		if time.Now().After(deadline) {
			return &held.HeldError
		}
		if held.Holder != told {
			told = held.Holder
			o.Waiting(&held.HeldError)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(lookEvery, max(time.Until(deadline), time.Millisecond))):
		}
	}
}

// holder is another run that has the Lease.
type holder struct {
	HeldError
	token string
	sign  string // changes as long as it lives
}

// look reads the Lease, which is nil when there is none. No holder means that it is free, or ours already.
func (l *Lock) look(ctx context.Context) (lease *unstructured.Unstructured, held *holder, err error) {
	err = cluster.Retry(ctx, func() (err error) {
		lease, err = l.client.Get(ctx, l.name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	text := func(field string) string { s, _, _ := unstructured.NestedString(lease.Object, "spec", field); return s }
	identity := text("holderIdentity")
	if identity == "" || identity == l.identity { // an earlier write arrived, though its answer did not
		return lease, nil, nil
	}
	since, _ := time.Parse(time.RFC3339, text("acquireTime"))
	name, token, _ := strings.Cut(identity, " [")
	return lease, &holder{HeldError: HeldError{Holder: name, Since: since}, token: strings.TrimSuffix(token, "]"), sign: lease.GetResourceVersion()}, nil
}

// take writes the Lease as it was read; false means that another run was faster, or that nobody knows. A write that was begun is
// waited for after ctx has ended: else nobody would know whose the Lease is.
func (l *Lock) take(ctx context.Context, lease *unstructured.Unstructured) (taken bool, err error) {
	begin := time.Now()
	if l.pulse == nil {
		l.pulse = startPulse(l.token)
	}
	writing, stop := context.WithTimeout(context.WithoutCancel(ctx), renewEvery)
	defer stop()
	now := metav1.NowMicro().UTC().Format(metav1.RFC3339Micro)
	spec := map[string]any{"holderIdentity": l.identity, "leaseDurationSeconds": int64(leaseTime / time.Second), "acquireTime": now, "renewTime": now}
	if lease == nil {
		lease = &unstructured.Unstructured{Object: map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
			"metadata": map[string]any{"name": l.name}, "spec": spec}}
		l.lease, err = l.client.Create(writing, lease, metav1.CreateOptions{FieldManager: manager})
		if apierrors.IsNotFound(err) {
			return false, ErrNoNamespace
		}
	} else {
		lease.Object["spec"] = spec
		l.lease, err = l.client.Update(writing, lease, metav1.UpdateOptions{FieldManager: manager})
	}
	switch {
	case err == nil:
		l.renewed.Store(&begin)
		return true, nil
	case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || cluster.Passing(err):
		return false, nil
	}
	return false, err
}

// Held says whether the lock is certainly still held: else the error is ErrLost, or what the server says when it no longer knows who
// asks, and nothing may be written. A Lease that could not be renewed for a while is given a moment: it goes on when nobody took it.
func (l *Lock) Held(ctx context.Context) error {
	for begin := time.Now(); ; {
		since := time.Since(*l.renewed.Load())
		if since <= surelyOurs {
			return nil
		}
		if refused := l.refused.Load(); refused != nil {
			return *refused
		}
		if time.Since(begin) > renewEvery {
			return fmt.Errorf("%w: it could not be renewed for %d s", ErrLost, int(since.Seconds()))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.done:
			return ErrLost
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// renew keeps the Lease until ctx ends or another run has it. A renewal that failed is tried again soon.
func (l *Lock) renew(ctx context.Context, lost func(error)) {
	defer close(l.done)
	for pause := renewEvery; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		begin := time.Now()
		attempt, stop := context.WithTimeout(ctx, renewEvery)
		next, err := l.renewOnce(attempt)
		stop()
		pause = lookEvery
		switch {
		case err == nil:
			l.lease, pause = next, renewEvery
			l.renewed.Store(&begin)
			l.refused.Store(nil)
		case errors.Is(err, ErrLost):
			lost(err)
			return
		case cluster.Diagnose(err).Class == cluster.Credentials:
			l.refused.Store(&err)
		}
	}
}

// renewOnce writes the Lease with the time. The error is ErrLost when it is another's.
func (l *Lock) renewOnce(ctx context.Context) (*unstructured.Unstructured, error) {
	for lease := l.lease; ; {
		next := lease.DeepCopy()
		if err := unstructured.SetNestedField(next.Object, metav1.NowMicro().UTC().Format(metav1.RFC3339Micro), "spec", "renewTime"); err != nil {
			return nil, err
		}
		next, err := l.client.Update(ctx, next, metav1.UpdateOptions{FieldManager: manager})
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return next, err
		}
		if lease, err = l.mine(ctx); err != nil { // else the answer to the renewal before got lost
			return nil, err
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
	ctx, stop := context.WithTimeout(cluster.Unfenced(context.WithoutCancel(ctx)), releaseTimeout)
	defer stop()
	for lease := l.lease; ; {
		unstructured.SetNestedField(lease.Object, "", "spec", "holderIdentity")
		_, err := l.client.Update(ctx, lease, metav1.UpdateOptions{FieldManager: manager})
		if apierrors.IsConflict(err) {
			// The last renewal arrived, though its answer was not waited for; or it is another run's by now.
			if lease, err = l.mine(ctx); err == nil {
				continue
			}
		}
		if err == nil || errors.Is(err, ErrLost) {
			l.pulse.end()
			return nil
		}
		return err // the pulse ends with the process, and tells the next run on this machine
	}
}

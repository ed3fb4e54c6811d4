package deployset

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/flakeship/flakeship/internal/cluster"
)

// server keeps one Lease as an API server does. It is a fake so that a test can let minutes go by, and the server go away.
type server struct {
	dynamic.NamespaceableResourceInterface

	mu      sync.Mutex
	lease   *unstructured.Unstructured
	version int
	updates []time.Time
	away    bool // no request gets there
	mute    bool // no answer to an update comes back
	refuse  error
}

func (s *server) Resource(schema.GroupVersionResource) dynamic.NamespaceableResourceInterface {
	return s
}
func (s *server) Namespace(string) dynamic.ResourceInterface { return s }

var errAway = apierrors.NewInternalError(errors.New("nobody is there"))

func (s *server) Get(context.Context, string, metav1.GetOptions, ...string) (*unstructured.Unstructured, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.away:
		return nil, errAway
	case s.lease == nil:
		return nil, apierrors.NewNotFound(leases.GroupResource(), "x")
	}
	return s.lease.DeepCopy(), nil
}

func (s *server) Create(_ context.Context, o *unstructured.Unstructured, _ metav1.CreateOptions, _ ...string) (*unstructured.Unstructured, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease != nil {
		return nil, apierrors.NewAlreadyExists(leases.GroupResource(), "x")
	}
	return s.keep(o), nil
}

func (s *server) Update(_ context.Context, o *unstructured.Unstructured, _ metav1.UpdateOptions, _ ...string) (*unstructured.Unstructured, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.refuse != nil:
		return nil, s.refuse
	case s.away:
		return nil, errAway
	case s.lease == nil:
		return nil, apierrors.NewNotFound(leases.GroupResource(), "x")
	case s.lease.GetResourceVersion() != o.GetResourceVersion():
		return nil, apierrors.NewConflict(leases.GroupResource(), "x", errors.New("it was changed"))
	}
	s.updates = append(s.updates, time.Now())
	if kept := s.keep(o); !s.mute {
		return kept, nil
	}
	return nil, errAway
}

func (s *server) keep(o *unstructured.Unstructured) *unstructured.Unstructured {
	s.version++
	s.lease = o.DeepCopy()
	s.lease.SetResourceVersion(strconv.Itoa(s.version))
	return s.lease.DeepCopy()
}

func (s *server) set(away, mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away, s.mute = away, mute
}

// outcome is what the callbacks of one Acquire were told.
type outcome struct {
	waited, died *HeldError
	lost         error
}

func (s *server) acquire(t *testing.T, holder string, patience time.Duration) (*Lock, *outcome, error) {
	t.Helper()
	o := new(outcome)
	l, err := Acquire(t.Context(), &cluster.Cluster{Dynamic: s, Namespace: "n"}, "shop", LockOptions{Holder: holder, Patience: patience,
		Waiting: func(e *HeldError) { o.waited = e }, Died: func(e *HeldError) { o.died = e }, Lost: func(err error) { o.lost = err }})
	return l, o, err
}

// silent leaves the Lease of a run that ended elsewhere without letting go of it.
func (s *server) silent(t *testing.T) {
	t.Helper()
	s.keep(&unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "x"},
		"spec": map[string]any{"holderIdentity": "https://git.test/1 [aaaaaaaaaaaa]", "acquireTime": "2026-01-02T03:04:05.000000Z"}}})
}

// A run that lives is waited for as long as there is patience, and never taken for dead.
func TestLivingHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		first, one, err := s.acquire(t, "first", 0)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_, two, err := s.acquire(t, "second", 5*time.Minute)
		var held *HeldError
		if !errors.As(err, &held) || held.Holder != "first" || held.Name != "shop" || held.Since.IsZero() || time.Since(begin) < 5*time.Minute {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		if one.lost != nil || first.Held(t.Context()) != nil || two.waited == nil || two.waited.Holder != "first" {
			t.Errorf("lost %v, held %v, waited for %v", one.lost, first.Held(t.Context()), two.waited)
		}
		if n := len(s.updates); n != 75 { // one every four seconds
			t.Errorf("%d renewals in five minutes", n)
		}
		if err := first.Release(t.Context()); err != nil {
			t.Error(err)
		}
		begin = time.Now()
		second, _, err := s.acquire(t, "second", 0)
		if err != nil || time.Since(begin) > 0 {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
		second.Release(t.Context())
	})
}

// A silent holder is taken for dead when its time is over, not before; who waits is told when that will be.
func TestSilentHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		s.silent(t)
		begin := time.Now()
		_, o, err := s.acquire(t, "me", leaseTime-time.Second)
		if o.waited == nil || !o.waited.Until.Equal(begin.Add(leaseTime)) || o.waited.Gone || err == nil {
			t.Errorf("waited for %+v: %v", o.waited, err)
		}
		begin = time.Now()
		l, o, err := s.acquire(t, "me", time.Minute)
		if took := time.Since(begin); err != nil || took < leaseTime || took > leaseTime+2*lookEvery || o.died == nil || o.died.Holder != "https://git.test/1" {
			t.Fatalf("after %v: %v, died %+v", took, err, o.died)
		}
		l.Release(t.Context())
	})
}

// A holder that cannot renew its Lease does not call it its own any more before anybody may take it. When nobody did, it goes on.
func TestServerAway(t *testing.T) {
	for name, other := range map[string]bool{"nobody takes it": false, "another takes it": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(server)
				l, o, err := s.acquire(t, "me", 0)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(renewEvery + time.Millisecond)
				s.set(true, false)
				last := time.Now()
				for range 11 {
					time.Sleep(time.Second)
					if l.Held(t.Context()) != nil {
						t.Fatalf("not ours after %v", time.Since(last))
					}
				}
				time.Sleep(surelyOurs - time.Since(last))
				if err := l.Held(t.Context()); err == nil || o.lost != nil {
					t.Errorf("after %v: %v, %v", time.Since(last), err, o.lost)
				}
				if other {
					s.silent(t)
				}
				time.Sleep(time.Minute)
				s.set(false, false)
				time.Sleep(2 * lookEvery)
				synctest.Wait()
				if other != errors.Is(o.lost, ErrLost) || other != (l.Held(t.Context()) != nil) {
					t.Errorf("lost %v, held %v", o.lost, l.Held(t.Context()))
				}
				l.Release(t.Context())
				if holder, _, _ := unstructured.NestedString(s.lease.Object, "spec", "holderIdentity"); holder != "" && !other {
					t.Errorf("it is still %s's", holder)
				}
			})
		})
	}
}

// A renewal whose answer gets lost is no loss; a Lease that is another's is, and is not let go of.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		l, o, err := s.acquire(t, "me", 0)
		if err != nil {
			t.Fatal(err)
		}
		s.set(false, true)
		time.Sleep(renewEvery + 2*time.Second)
		s.set(false, false)
		time.Sleep(time.Minute)
		if synctest.Wait(); o.lost != nil || l.Held(t.Context()) != nil {
			t.Fatalf("%v, %v", o.lost, l.Held(t.Context()))
		}
		s.mu.Lock()
		s.silent(t)
		s.mu.Unlock()
		time.Sleep(renewEvery + time.Second)
		if synctest.Wait(); !errors.Is(o.lost, ErrLost) {
			t.Errorf("lost: %v", o.lost)
		}
		if err := l.Release(t.Context()); err != nil || fmt.Sprint(s.lease.Object["spec"].(map[string]any)["holderIdentity"]) != "https://git.test/1 [aaaaaaaaaaaa]" {
			t.Errorf("%v: the Lease is %v", err, s.lease.Object)
		}
	})
}

// Credentials that end while the lock is held are told as that, and not as another run's doing. When they are renewed, it goes on.
func TestCredentialsOfHolderEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		l, o, err := s.acquire(t, "me", 0)
		if err != nil {
			t.Fatal(err)
		}
		set := func(err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.refuse = err
		}
		set(apierrors.NewUnauthorized("expired"))
		time.Sleep(time.Minute)
		if err := l.Held(t.Context()); cluster.Diagnose(err).Class != cluster.Credentials || errors.Is(err, ErrLost) || o.lost != nil {
			t.Errorf("held: %v, lost: %v", err, o.lost)
		}
		set(nil)
		time.Sleep(2 * lookEvery)
		if err := l.Held(t.Context()); err != nil {
			t.Errorf("with new credentials: %v", err)
		}
		set(errAway) // anything else is no answer
		time.Sleep(time.Minute)
		if err := l.Held(t.Context()); !errors.Is(err, ErrLost) {
			t.Errorf("held: %v, want %v", err, ErrLost)
		}
		set(nil)
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

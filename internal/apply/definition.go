package apply

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flakeship/flakeship/internal/cluster"
)

// coming is what other objects of the input need and the input itself brings.
type coming struct {
	namespaces  map[string]*item
	definitions map[schema.GroupKind]definition
}

// definition is a CustomResourceDefinition of the input.
type definition struct {
	*item
	plural     string
	namespaced bool
	versions   []string // served
}

func (d definition) serves(version string) bool {
	for _, v := range d.versions {
		if v == version {
			return true
		}
	}
	return false
}

func newComing(items []*item) coming {
	c := coming{map[string]*item{}, map[schema.GroupKind]definition{}}
	for _, it := range items {
		if it.stage != foundations {
			continue
		}
		if it.object.GetKind() == "Namespace" {
			c.namespaces[it.object.GetName()] = it
			continue
		}
		spec, _ := it.object.Object["spec"].(map[string]any)
		text := func(path ...string) string { s, _, _ := unstructured.NestedString(spec, path...); return s }
		d := definition{item: it, plural: text("names", "plural"), namespaced: text("scope") == "Namespaced"}
		versions, _, _ := unstructured.NestedSlice(spec, "versions")
		for _, v := range versions {
			if v, ok := v.(map[string]any); ok && v["served"] == true {
				name, _ := v["name"].(string)
				d.versions = append(d.versions, name)
			}
		}
		c.definitions[schema.GroupKind{Group: text("group"), Kind: text("names", "kind")}] = d
	}
	return c
}

// block marks what cannot be checked yet: objects in a namespace that is still to be created, and those of a kind whose
// definition is still to be created or changed. The foundations have been checked by now.
func (a *applier) block() {
	for _, it := range a.items {
		if it.stage == foundations {
			continue
		}
		if d, ok := a.coming.definitions[it.object.GroupVersionKind().GroupKind()]; ok && d.plan != keep {
			it.blocked, it.fresh = "the definition of "+it.object.GetKind(), true
		}
		if ns, ok := a.coming.namespaces[it.object.GetNamespace()]; ok && ns.plan == write && ns.liveKnown && ns.live == nil {
			it.blocked = "namespace " + it.object.GetNamespace()
		}
	}
}

// unblock checks what could not be checked before: everything the foundations stood in the way of, once they are written,
// and what else had to wait until its own stage.
func (a *applier) unblock(ctx context.Context, s stage) error {
	for _, it := range a.items {
		if it.blocked != "" && (s == foundations+1 || it.stage == s) {
			it.blocked, it.awaitable = "", it.stage != s
		}
	}
	if err := a.check(ctx, func(it *item) bool { return it.stage >= s && it.plan == unplanned && it.blocked == "" }); err != nil {
		return err
	}
	return a.failed()
}

// establishTimeout bounds the wait for a definition; the API server needs 60 ms for one.
const establishTimeout = time.Minute

// establish waits until the server serves every kind whose definition was written.
func (a *applier) establish(ctx context.Context) error {
	written := func(it *item) bool {
		return it.stage == foundations && it.plan == write && it.kind.Kind == "CustomResourceDefinition"
	}
	if err := a.each(ctx, written, a.established); err != nil {
		return err
	}
	return a.failed()
}

func (a *applier) established(ctx context.Context, it *item) error {
	deadline := time.Now().Add(establishTimeout)
	live := it.change.Live
	for poll := pollFirst; ; poll = min(2*poll, pollMost) {
		ok, never := isEstablished(live)
		if ok {
			break
		}
		if time.Now().After(deadline) {
			never = fmt.Sprintf("is not Established after %s", establishTimeout)
		}
		if never != "" {
			a.refuse(it, cluster.Diagnosis{Class: cluster.Invalid, Text: never}, "")
			return nil
		}
		if err := sleep(ctx, poll); err != nil {
			return err
		}
		var err error
		if live, err = it.client.Get(ctx, it.object.GetName(), metav1.GetOptions{}); err != nil {
			return a.fail(it, err, "")
		}
	}
	for gk, d := range a.coming.definitions {
		for _, version := range d.versions {
			if d.item != it {
				continue
			}
			if err := a.served(ctx, it, gk.WithVersion(version), deadline); err != nil {
				return err
			}
		}
	}
	return nil
}

// served waits until discovery lists a kind.
func (a *applier) served(ctx context.Context, it *item, gvk schema.GroupVersionKind, deadline time.Time) error {
	for poll := pollFirst; ; poll = min(2*poll, pollMost) {
		if err := a.kinds.Refresh(ctx, gvk.GroupVersion()); err != nil {
			return a.fail(it, err, "")
		}
		if _, err := a.kinds.Find(ctx, gvk); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			a.refuse(it, cluster.Diagnosis{Text: fmt.Sprintf("the server does not serve %s in %s after %s", gvk.Kind, gvk.GroupVersion(), establishTimeout)}, "")
			return nil
		}
		if err := sleep(ctx, poll); err != nil {
			return err
		}
	}
}

// Pauses between two looks at something that takes a few milliseconds, as a rule.
const (
	pollFirst = 10 * time.Millisecond
	pollMost  = 500 * time.Millisecond
)

// isEstablished reads a definition's conditions. A message means that it never will be.
func isEstablished(crd *unstructured.Unstructured) (ok bool, message string) {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conditions {
		c, _ := c.(map[string]any)
		switch {
		case c["type"] == "Established" && c["status"] == "True":
			ok = true
		case c["type"] == "NamesAccepted" && c["status"] == "False":
			return false, fmt.Sprintf("its names are taken: %v", c["message"])
		}
	}
	return ok, ""
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

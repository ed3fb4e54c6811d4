// Package apply brings Kubernetes objects into a cluster by server-side apply, as field manager "flakeship".
//
// Nothing is written before the server has taken every object that it can judge in a dry run, so a typo in one never leaves
// the others half applied. Objects that differ in nothing are not written. Stages keep the order things need: namespaces and
// definitions first, webhooks last.
package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/manifest"
)

// FieldManager is the name under which the cluster keeps what was applied.
const FieldManager = "flakeship"

// Policy says what happens to fields that another field manager owns with another value.
type Policy string

// The policies.
const (
	Safe  Policy = "safe"  // spec.replicas that was scaled is left alone; anything else is a problem
	Force Policy = "force" // the manifest wins
	Fail  Policy = "fail"  // every conflict is a problem
)

// Options are the settings of Objects.
type Options struct {
	Conflicts Policy       // empty: Safe
	DryRun    bool         // nothing is written: the changes say what would be
	ReadOnly  bool         // with DryRun: where the server does not allow the dry run either, what would be is worked out from the live object
	Workers   int          // requests in flight; zero: 16, which is where an API server with default limits stops getting faster
	Report    func(Change) // gets each object that was written, as soon as it is; calls do not overlap

	Mask func(string) string // is applied to what the server says is wrong with an object; nil: it may be shown as it is

	Watched bool // workloads will be watched once they are written: the right to do so is asked for before

	Kinds *cluster.Kinds // what the server knows; nil: it is asked
	// Refuse says why an object that is in the cluster must not be touched, such as that it belongs to another set; empty: it
	// may be. nil refuses none.
	Refuse func(live *unstructured.Unstructured) string
	// Begin is called once before the first write, when every object that can be judged was found right, and not at all when
	// there is nothing to write. Its error ends the run.
	Begin func(context.Context) error
	// Await returns when what was applied is ready, or an error that ends the run. It is called for hooks that run before the
	// rest and, when there are hooks that run after the rest, for everything before them. nil: hooks are not waited for.
	Await func(context.Context, []Change) error
}

// Change is what became of one object.
type Change struct {
	Object  manifest.Object // with its namespace
	Action  handoff.Action
	Message string    // why it failed, or what is worth knowing
	At      time.Time // when it was written, or found to be unchanged
	// Resource is what the server calls the object's kind; empty when it does not know it.
	Resource schema.GroupVersionResource
	// Live is the object as the server has it, for Created, Configured, Recreated and Unchanged. In a dry run it is what the
	// server says it would have; for an object the server could not be asked about yet, the manifest.
	Live *unstructured.Unstructured
	// Before is the object as it was, if it was there and could be read.
	Before *unstructured.Unstructured
}

// Objects applies objects, each of which may be given once. What has no namespace goes to the cluster's default one.
//
// The changes come back in the order of the stages, and of objects within a stage: all of them, whatever the error. An
// object's manifest is brought into normal form in place.
//
// Errors: *Error for objects the server does not take: when it says Written is false, nothing was written; ctx.Err(); others
// when the server cannot be reached or does not know who asks, see cluster.Diagnose.
func Objects(ctx context.Context, c *cluster.Cluster, objects []manifest.Object, o Options) ([]Change, error) {
	if o.Conflicts == "" {
		o.Conflicts = Safe
	}
	if o.Workers == 0 {
		o.Workers = 16
	}
	a := &applier{cluster: c, options: o}
	for _, object := range objects {
		it := newItem(object)
		a.asHook(it)
		a.items = append(a.items, it)
	}
	err := a.run(ctx)
	return a.changes(), err
}

// applier is one run of Objects.
type applier struct {
	cluster *cluster.Cluster
	options Options
	kinds   *cluster.Kinds
	items   []*item
	coming  coming
	scalers map[string]string  // autoscalers of the input, by the ID of what they scale
	absent  map[string][]*item // by name: what the input brings and the cluster had not when last looked up

	mu      sync.Mutex
	written bool // something was
	refused int
}

// item is one object on its way. One goroutine at a time works on it.
type item struct {
	object  manifest.Object
	stage   stage
	hook    string // before, after; empty: it is none
	kind    cluster.Kind
	client  dynamic.ResourceInterface // for the object's kind and namespace
	payload []byte
	mark    string // MarkAnnotation's value; empty: none is needed

	live      *unstructured.Unstructured // before; nil: it does not exist
	liveKnown bool                       // false: not looked up, or not found where it would be if it were of the set, or no right to read it
	checked   *unstructured.Unstructured // what the dry run gave

	predecessors []string // managers whose fields become ours with the write
	force        bool     // in the dry run: all that stands in the way is theirs

	blocked   string // what it has to wait for before it can be checked; empty: nothing
	awaitable bool   // another object of the input that it needs may still come
	fresh     bool   // the definition of its kind was only just written: the server may need a moment to know
	plan      plan
	problem   *Problem
	change    Change
}

// plan is what the dry run says is to be done.
type plan int

const (
	unplanned plan = iota
	keep           // it differs in nothing
	write
	recreate // delete and write
)

func newItem(o manifest.Object) *item {
	normalise(o.Unstructured)
	return &item{object: o, awaitable: true, stage: stageOf(o.GroupVersionKind().GroupKind()), change: Change{Object: o, Action: handoff.ActionSkipped}}
}

// encode makes the payload of the object as it is now, with its mark.
func (it *item) encode() (err error) {
	content := it.object.Object
	if it.mark != "" {
		annotations := map[string]any{MarkAnnotation: it.mark}
		for key, value := range it.object.GetAnnotations() {
			annotations[key] = value
		}
		meta := maps.Clone(content["metadata"].(map[string]any)) // it has a name
		meta["annotations"] = annotations
		content = maps.Clone(content)
		content["metadata"] = meta
	}
	it.payload, err = json.Marshal(content)
	return err
}

func (a *applier) run(ctx context.Context) error {
	var err error
	if a.kinds = a.options.Kinds; a.kinds == nil {
		if a.kinds, err = a.cluster.Discover(ctx); err != nil {
			return err
		}
	}
	if err := a.prepare(ctx); err != nil {
		return err
	}
	first := func(it *item) bool { return it.stage == foundations }
	rest := func(it *item) bool { return it.stage != foundations && it.blocked == "" }
	if err := a.check(ctx, first); err != nil {
		return err
	}
	a.block()
	if err := a.check(ctx, rest); err != nil {
		return err
	}
	if !a.options.ReadOnly {
		if err := a.permit(ctx); err != nil {
			return err
		}
	}
	if err := a.failed(); err != nil {
		return err
	}
	if a.options.DryRun {
		return a.foresee(ctx)
	}
	if err := a.begin(ctx); err != nil {
		return err
	}
	for s := foundations; s < stageCount; s++ {
		if s > foundations {
			if err := a.unblock(ctx, s); err != nil {
				return err
			}
		}
		if s == hooksAfter {
			if err := a.await(ctx, s); err != nil {
				return err
			}
		}
		if err := a.write(ctx, s); err != nil {
			return err
		}
		var err error
		switch s {
		case foundations:
			err = a.establish(ctx)
		case hooksBefore:
			err = a.await(ctx, s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// begin tells the caller that writing begins, if there is something to write.
func (a *applier) begin(ctx context.Context) error {
	todo := slices.ContainsFunc(a.items, func(it *item) bool { return it.plan != keep })
	if a.options.Begin == nil || !todo {
		return nil
	}
	return a.options.Begin(ctx)
}

// each calls do for every item that wanted picks, in several goroutines. An error ends it; a problem with the item alone goes to
// fail.
func (a *applier) each(ctx context.Context, wanted func(*item) bool, do func(context.Context, *item) error) error {
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(a.options.Workers)
	for _, it := range a.items {
		if !wanted(it) || it.problem != nil {
			continue
		}
		group.Go(func() error {
			if err := inner.Err(); err != nil {
				return err
			}
			return do(inner, it)
		})
	}
	err := group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// fail notes that the server does not take an item. It returns err itself when the trouble is not with that item alone.
func (a *applier) fail(it *item, err error, hint string) error {
	reason := cluster.Diagnose(err)
	if reason.Class >= cluster.Credentials || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	a.refuse(it, reason, hint)
	return nil
}

func (a *applier) refuse(it *item, reason cluster.Diagnosis, hint string) {
	if a.options.Mask != nil {
		reason.Text = a.options.Mask(reason.Text)
	}
	p := problem(it.object, reason)
	p.Hint = hint
	a.mu.Lock()
	defer a.mu.Unlock()
	it.problem = &p
	it.change.Action, it.change.Message = handoff.ActionFailed, reason.Text
	a.refused++
}

// failed returns the problems so far, in the order of the objects, as an error.
func (a *applier) failed() error {
	if a.refused == 0 {
		return nil
	}
	e := &Error{Written: a.written}
	for _, it := range a.items {
		if it.problem != nil {
			e.Problems = append(e.Problems, *it.problem)
		}
	}
	return e
}

func (a *applier) changes() []Change {
	var changes []Change
	for s := foundations; s < stageCount; s++ {
		for _, it := range a.items {
			if it.stage == s {
				it.change.Before = it.live
				changes = append(changes, it.change)
			}
		}
	}
	return changes
}

// prepare finds out what each object is to the server: its kind, and its namespace if the kind has one. A kind the server does
// not know is a problem of that object; the others are still checked, so that all problems are found.
func (a *applier) prepare(ctx context.Context) error {
	a.coming = newComing(a.items)
	for _, it := range a.items {
		gvk := it.object.GroupVersionKind()
		kind, err := a.kinds.Find(ctx, gvk)
		var unknown *cluster.UnknownKindError
		switch {
		case err == nil:
			a.place(it, kind)
		case !errors.As(err, &unknown):
			return err
		default:
			if d, ok := a.coming.definitions[gvk.GroupKind()]; ok && d.serves(gvk.Version) {
				a.place(it, cluster.Kind{GroupVersionKind: gvk, Resource: d.plural, Namespaced: d.namespaced})
				it.blocked, it.fresh = "the definition of "+gvk.Kind, true
				break
			}
			a.refuse(it, cluster.Diagnosis{Class: cluster.Invalid, Text: err.Error()}, unknownHint(unknown))
		}
		if field := notText(it.object.Unstructured); field != "" { // the server would quote it
			a.refuse(it, cluster.Diagnosis{Class: cluster.Invalid, Text: field + " is not text"}, "put the value in quotes")
		}
		if err := it.encode(); err != nil {
			return fmt.Errorf("encode %s: %w", it.object.ID(), err)
		}
	}
	a.scalers = scalersOf(a.items)
	var objects []manifest.Object
	for _, it := range a.items {
		objects = append(objects, it.object)
	}
	return manifest.Unique(objects, "") // cluster-wide objects may have differed in a meaningless namespace
}

// place says where an object of this kind goes.
func (a *applier) place(it *item, kind cluster.Kind) {
	it.kind, it.change.Resource = kind, kind.GVR()
	resource := a.cluster.Dynamic.Resource(kind.GVR())
	if !kind.Namespaced {
		it.object.SetNamespace("")
		it.client = resource
		return
	}
	if it.object.GetNamespace() == "" {
		it.object.SetNamespace(a.cluster.Namespace)
	}
	it.client = resource.Namespace(it.object.GetNamespace())
}

func unknownHint(e *cluster.UnknownKindError) string {
	if e.Away {
		return "mend or remove the APIService of that group"
	}
	if len(e.Known) > 0 {
		return "use an apiVersion the server knows"
	}
	return "correct apiVersion and kind, or add the CustomResourceDefinition that brings " + schema.GroupKind{Group: e.Group, Kind: e.Kind}.String()
}

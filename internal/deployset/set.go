// Package deployset keeps the objects of one deploy together from run to run: which of them are in the cluster, whose turn it
// is to change them, what has to go when it left the manifests, and what they were like the last ten times they ran.
//
// In the cluster a set is an ApplySet (KEP-3659), so that kubectl and others can see it: a Secret flakeship-NAME that is the
// parent, and a label on each member. A Lease of the same name is held while a run works on the set. Secrets flakeship-NAME-vN
// hold what was deployed.
package deployset

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/manifest"
)

// The labels and annotations of KEP-3659.
const (
	idLabel              = "applyset.kubernetes.io/id"
	MemberLabel          = "applyset.kubernetes.io/part-of"
	toolingAnnotation    = "applyset.kubernetes.io/tooling"
	kindsAnnotation      = "applyset.kubernetes.io/contains-group-kinds"
	namespacesAnnotation = "applyset.kubernetes.io/additional-namespaces"
)

const (
	tooling = "flakeship/v1"
	// manager is the field manager of what a set keeps about itself; the members have their own.
	manager = "flakeship-set"
	// prefix keeps the set's own objects apart from those of the manifests.
	prefix = "flakeship-"
)

var (
	secrets = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	leases  = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
)

// maxName leaves room for what is added to a name, within the 63 characters of a label's value.
const maxName = 40

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// CheckName says whether a set may have this name.
func CheckName(name string) error {
	if len(name) > maxName || !validName.MatchString(name) {
		return fmt.Errorf("%q: a set's name has up to %d lower-case letters, digits and inner hyphens", name, maxName)
	}
	return nil
}

// Name makes a set's name of a repository's, owner/name. It is empty when nothing of it is left.
func Name(repository string) string {
	_, name, _ := strings.Cut(repository, "/")
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	return strings.Trim(name[:min(len(name), maxName)], "-")
}

// ID is an ApplySet's id, as KEP-3659 makes it of its parent.
func ID(name, namespace, kind, group string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{name, namespace, kind, group}, ".")))
	return "applyset-" + base64.RawURLEncoding.EncodeToString(sum[:]) + "-v1"
}

// Set is one set as the cluster has it. Its methods are called one after the other.
type Set struct {
	Name      string
	ID        string
	Namespace string // of the parent, the Lease and the history

	cluster *cluster.Cluster
	version string // the parent's resourceVersion; empty: it does not exist
	scope   scope
	state   state
}

// scope is where members are to be looked for: every kind in every namespace.
type scope struct {
	kinds      []schema.GroupKind
	namespaces []string // besides the parent's own
}

// state is what the parent remembers. Deploying is set while a run is at work, and stays when it fails or dies.
type state struct {
	Deployed  *Record `json:"deployed,omitempty"`
	Deploying *Record `json:"deploying,omitempty"`
}

// stateAnnotation holds the state as JSON.
const stateAnnotation = "flakeship.dev/state"

// OwnedError is a set, or what stands in its place, that is not flakeship's.
type OwnedError struct{ Object, Owner string }

func (e *OwnedError) Error() string {
	if e.Owner == "" {
		return e.Object + " is there, but is not the parent of a set"
	}
	return fmt.Sprintf("%s is the parent of a set that %s manages", e.Object, e.Owner)
}

// New is a set by this name in the cluster's default namespace.
func New(c *cluster.Cluster, name string) *Set {
	return &Set{Name: name, Namespace: c.Namespace, cluster: c, ID: ID(prefix+name, c.Namespace, "Secret", "")}
}

// Open reads what the cluster has of the set. A set that is not there yet is empty.
//
// Errors: *OwnedError; others from the API server, see cluster.Diagnose.
func (s *Set) Open(ctx context.Context) error {
	var parent *unstructured.Unstructured
	err := cluster.Retry(ctx, func() (err error) {
		parent, err = s.secrets().Get(ctx, prefix+s.Name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.read(parent)
}

func (s *Set) read(parent *unstructured.Unstructured) error {
	object, notes := fmt.Sprintf("Secret %s/%s", s.Namespace, parent.GetName()), parent.GetAnnotations()
	owner, _, _ := strings.Cut(notes[toolingAnnotation], "/")
	if owner != "flakeship" || parent.GetLabels()[idLabel] != s.ID {
		return &OwnedError{object, owner}
	}
	s.version = parent.GetResourceVersion()
	for text := range strings.SplitSeq(notes[kindsAnnotation], ",") {
		if text != "" {
			s.scope.kinds = append(s.scope.kinds, schema.ParseGroupKind(text))
		}
	}
	for text := range strings.SplitSeq(notes[namespacesAnnotation], ",") {
		if text != "" {
			s.scope.namespaces = append(s.scope.namespaces, text)
		}
	}
	if text := notes[stateAnnotation]; text != "" {
		if err := json.Unmarshal([]byte(text), &s.state); err != nil {
			return fmt.Errorf("%s: annotation %s: %w", object, stateAnnotation, err)
		}
	}
	return nil
}

// Mark makes objects members: it sets the label in their manifests.
func (s *Set) Mark(objects []manifest.Object) {
	for _, o := range objects {
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[MemberLabel] = s.ID
		o.SetLabels(labels)
	}
}

// Refuse says why an object that is in the cluster cannot become a member; empty: it can.
func (s *Set) Refuse(live *unstructured.Unstructured) string {
	if other := live.GetLabels()[MemberLabel]; other != "" && other != s.ID {
		return "it belongs to another set, " + other
	}
	return ""
}

// ErrNoNamespace is returned when the namespace that the set is kept in does not exist.
var ErrNoNamespace = errors.New("does not exist")

// Begin notes what a run is about to change, before it does: members are found again whatever happens to the run. objects are
// all that it may create, with their namespaces.
func (s *Set) Begin(ctx context.Context, objects []manifest.Object, r Record) error {
	s.scope = s.scope.union(scopeOf(objects, s.Namespace))
	s.state.Deploying = &r
	return s.write(ctx)
}

// Finish notes that a run is over and that objects, and survivors of the prune, are what the set is now. r.History is what the
// objects were kept as.
func (s *Set) Finish(ctx context.Context, objects []manifest.Object, survivors []Member, r Record) error {
	exact := scopeOf(objects, s.Namespace)
	for _, m := range survivors {
		exact = exact.union(scope{[]schema.GroupKind{m.Kind.GroupKind()}, others([]string{m.Namespace}, s.Namespace)})
	}
	return s.settle(ctx, exact, r)
}

// FinishWithoutPrune is Finish for a run that looked for nothing to prune: what the set had may still be there.
func (s *Set) FinishWithoutPrune(ctx context.Context, objects []manifest.Object, r Record) error {
	return s.settle(ctx, s.scope.union(scopeOf(objects, s.Namespace)), r)
}

func (s *Set) settle(ctx context.Context, sc scope, r Record) error {
	last := s.state.Deployed
	if s.version != "" && s.state.Deploying == nil && last != nil && last.sameAs(r) && s.scope.equal(sc) {
		return nil
	}
	s.scope, s.state = sc, state{Deployed: &r}
	return s.write(ctx)
}

// Revert notes that what a run had begun was undone.
func (s *Set) Revert(ctx context.Context) error {
	s.state.Deploying = nil
	return s.write(ctx)
}

// write writes the parent. What another run wrote since it was read is not overwritten: then the lock was lost.
func (s *Set) write(ctx context.Context) error {
	text, err := json.Marshal(s.state)
	if err != nil {
		return err
	}
	var kinds []string
	for _, gk := range s.scope.kinds {
		kinds = append(kinds, gk.String())
	}
	meta := map[string]any{
		"name": prefix + s.Name, "namespace": s.Namespace,
		"labels": map[string]any{idLabel: s.ID, "app.kubernetes.io/managed-by": "flakeship"},
		"annotations": map[string]any{toolingAnnotation: tooling, kindsAnnotation: strings.Join(kinds, ","),
			namespacesAnnotation: strings.Join(s.scope.namespaces, ","), stateAnnotation: string(text)},
	}
	if s.version != "" {
		meta["resourceVersion"] = s.version
	}
	parent, err := s.apply(ctx, map[string]any{"metadata": meta})
	if apierrors.IsConflict(err) { // another run's write, or ours, whose answer got lost
		if parent, err = s.secrets().Get(ctx, prefix+s.Name, metav1.GetOptions{}); err == nil && parent.GetAnnotations()[stateAnnotation] != string(text) {
			return ErrLost
		}
	}
	if err != nil {
		return err
	}
	s.version = parent.GetResourceVersion()
	return nil
}

func (s *Set) secrets() dynamic.ResourceInterface {
	return s.cluster.Dynamic.Resource(secrets).Namespace(s.Namespace)
}

// apply writes one of the set's own Secrets.
func (s *Set) apply(ctx context.Context, o map[string]any) (live *unstructured.Unstructured, err error) {
	o["apiVersion"], o["kind"] = "v1", "Secret"
	u := &unstructured.Unstructured{Object: o}
	err = cluster.Retry(ctx, func() (err error) {
		live, err = s.secrets().Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: manager, Force: true})
		return err
	})
	return live, err
}

// scopeOf is where objects are. namespace is the parent's own.
func scopeOf(objects []manifest.Object, namespace string) scope {
	var sc scope
	var namespaces []string
	for _, o := range objects {
		sc.kinds = append(sc.kinds, o.GroupVersionKind().GroupKind())
		namespaces = append(namespaces, o.GetNamespace())
	}
	sc.namespaces = others(namespaces, namespace)
	return sc.union(scope{})
}

// others leaves out the parent's own namespace, and none.
func others(namespaces []string, own string) []string {
	return slices.DeleteFunc(namespaces, func(ns string) bool { return ns == own || ns == "" })
}

// union is all of both, sorted.
func (a scope) union(b scope) scope {
	kinds, namespaces := slices.Concat(a.kinds, b.kinds), slices.Concat(a.namespaces, b.namespaces)
	slices.SortFunc(kinds, func(x, y schema.GroupKind) int { return strings.Compare(x.String(), y.String()) })
	slices.Sort(namespaces)
	return scope{slices.Compact(kinds), slices.Compact(namespaces)}
}

func (a scope) equal(b scope) bool {
	return slices.Equal(a.kinds, b.kinds) && slices.Equal(a.namespaces, b.namespaces)
}

// Package manifest reads Kubernetes objects from files, folders, globs and standard input.
//
// Every object keeps the file and line it came from, down to single fields, so that whatever is found wrong with it later
// can be shown where it was written. Reading reports all problems at once.
package manifest

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Object is one Kubernetes object and where it was written.
type Object struct {
	*unstructured.Unstructured
	Source Source
}

// ID is kind/namespace/name as the manifest has them, or kind/name for an object without a namespace.
func (o Object) ID() string {
	if ns := o.GetNamespace(); ns != "" {
		return o.GetKind() + "/" + ns + "/" + o.GetName()
	}
	return o.GetKind() + "/" + o.GetName()
}

// Key identifies the object in a cluster: two manifests with one key are the same object, whatever API version they use.
type Key struct {
	schema.GroupKind
	Namespace, Name string
}

// Key returns the object's identity. An object without a namespace counts as one in namespace.
func (o Object) Key(namespace string) Key {
	if ns := o.GetNamespace(); ns != "" {
		namespace = ns
	}
	return Key{o.GroupVersionKind().GroupKind(), namespace, o.GetName()}
}

// Problem is one thing that is wrong with a manifest.
type Problem struct {
	At   string // file:line, or just the file
	Text string // what is wrong, naming the object
}

func (p Problem) String() string { return p.At + ": " + p.Text }

// Error holds every problem found, in the order of the input.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return e.Problems[0].String()
	}
	return fmt.Sprintf("%d problems in the manifests, the first: %s", len(e.Problems), e.Problems[0])
}

// List is all problems, one a line.
func (e *Error) List() string {
	var b strings.Builder
	for _, p := range e.Problems {
		fmt.Fprintln(&b, p)
	}
	return b.String()
}

// asError returns nil for no problems.
func asError(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return &Error{problems}
}

// Unique reports objects that are given more than once, each with all the places. namespace is where objects without one
// will go. Whether a kind has namespaces at all is known to the cluster only, so two manifests of one cluster-wide object
// that differ in a meaningless namespace pass here.
//
// Errors: *Error.
func Unique(objects []Object, namespace string) error {
	first := map[Key]int{}
	var problems []Problem
	seen := map[Key]int{} // index of the problem
	for i, o := range objects {
		key := o.Key(namespace)
		f, again := first[key]
		if !again {
			first[key] = i
			continue
		}
		p, reported := seen[key]
		if !reported {
			seen[key] = len(problems)
			problems = append(problems, Problem{objects[f].Source.String(), fmt.Sprintf("%s is given twice, again at %s", o.ID(), o.Source)})
			continue
		}
		problems[p].Text += " and " + o.Source.String()
	}
	return asError(problems)
}

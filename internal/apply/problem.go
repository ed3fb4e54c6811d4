package apply

import (
	"fmt"
	"strings"

	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/manifest"
)

// Problem is one object the server does not take, and why.
type Problem struct {
	ID     string // kind/namespace/name
	At     string // file:line
	Hint   string // what to do about this very problem; often empty
	Reason cluster.Diagnosis
}

func (p Problem) String() string { return p.At + ": " + p.ID + ": " + p.Reason.Text }

// Error is what stops an apply. Written says whether anything had been written by then.
type Error struct {
	Problems []Problem // never empty
	Written  bool
}

func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return e.Problems[0].String()
	}
	return fmt.Sprintf("%d objects are refused, the first: %s", len(e.Problems), e.Problems[0])
}

// Class is the gravest of the problems' classes.
func (e *Error) Class() cluster.Class {
	class := cluster.Other
	for _, p := range e.Problems {
		class = max(class, p.Reason.Class)
	}
	return class
}

// List is all problems, one a line, with a line for each field somebody else owns.
func (e *Error) List() string {
	var b strings.Builder
	for _, p := range e.Problems {
		if len(p.Reason.Conflicts) == 0 {
			fmt.Fprintln(&b, p)
			continue
		}
		fmt.Fprintf(&b, "%s: %s: somebody else owns\n", p.At, p.ID)
		width := 0
		for _, c := range p.Reason.Conflicts {
			width = max(width, len(c.Field))
		}
		for _, c := range p.Reason.Conflicts {
			fmt.Fprintf(&b, "    %-*s  %s", width, c.Field, c.Manager)
			if c.Subresource != "" {
				fmt.Fprintf(&b, " (through %s)", c.Subresource)
			}
			fmt.Fprintln(&b)
		}
	}
	return b.String()
}

func problem(o manifest.Object, reason cluster.Diagnosis) Problem {
	return Problem{ID: o.ID(), At: o.Source.String(), Reason: reason}
}

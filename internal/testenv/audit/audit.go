// Package audit looks in workflows and action.yml files for what attackers of them have used, and for what hides such a thing
// from a reader. The rules and their names are those of zizmor that can be decided offline.
package audit

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Finding is a rule that a file breaks.
type Finding struct {
	Rule string
	Line int // of the file, from 1
	What string
}

func (f Finding) String() string { return fmt.Sprintf("%d: %s: %s", f.Line, f.Rule, f.What) }

// Options say what kind of file it is.
type Options struct {
	// Example is text that people copy and adapt: it may name a release of ours, and a major version of GitHub's own actions.
	Example bool
}

// Check returns what is wrong with a workflow, an action.yml, or a part of a workflow: a job, or a list of steps. Of other YAML
// it says nothing.
func Check(text []byte, o Options) ([]Finding, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	if len(document.Content) == 0 {
		return nil, nil
	}
	f := &file{Options: o, root: document.Content[0]}
	f.read()
	if !f.workflow && !f.action && len(f.jobs) == 0 && len(f.steps) == 0 {
		return nil, nil
	}
	for _, rule := range rules {
		f.rule = rule.name
		rule.check(f)
	}
	return f.findings, nil
}

// rule is one thing that is looked for.
type rule struct {
	name  string
	check func(*file)
}

// file is one file as the rules see it.
type file struct {
	Options
	root     *yaml.Node
	workflow bool // whole: it has triggers and jobs
	action   bool // whole
	jobs     []*yaml.Node
	steps    []*yaml.Node

	rule     string
	findings []Finding
}

func (f *file) read() {
	switch {
	case f.root.Kind == yaml.SequenceNode:
		f.steps = f.root.Content
	case get(f.root, "runs") != nil:
		f.action = true
		f.steps = items(get(f.root, "runs", "steps"))
	case get(f.root, "jobs") != nil:
		f.workflow = get(f.root, "on") != nil
		for _, job := range pairs(get(f.root, "jobs")) {
			f.jobs = append(f.jobs, job.value)
		}
	case get(f.root, "steps") != nil:
		f.jobs = []*yaml.Node{f.root}
	}
	for _, job := range f.jobs {
		f.steps = append(f.steps, items(get(job, "steps"))...)
	}
}

// found adds a finding of the rule at hand.
func (f *file) found(at *yaml.Node, what string, args ...any) {
	f.findings = append(f.findings, Finding{f.rule, at.Line, fmt.Sprintf(what, args...)})
}

// all are the nodes of the file, at any depth, that key names.
func (f *file) all(key string) (found []*yaml.Node) {
	var walk func(*yaml.Node)
	walk = func(n *yaml.Node) {
		for _, p := range pairs(n) {
			if p.key.Value == key {
				found = append(found, p.value)
			}
		}
		for _, c := range n.Content {
			walk(c)
		}
	}
	walk(f.root)
	return found
}

// texts calls visit with each scalar of the file.
func (f *file) texts(visit func(*yaml.Node)) {
	var walk func(*yaml.Node)
	walk = func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode {
			visit(n)
		}
		for _, c := range n.Content {
			walk(c)
		}
	}
	walk(f.root)
}

type pair struct{ key, value *yaml.Node }

// pairs are the entries of a mapping; of anything else there are none.
func pairs(n *yaml.Node) (found []pair) {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		found = append(found, pair{n.Content[i], n.Content[i+1]})
	}
	return found
}

// items are the elements of a sequence; of anything else there are none.
func items(n *yaml.Node) []*yaml.Node {
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

// get is what the path of keys leads to; nil when it leads nowhere.
func get(n *yaml.Node, path ...string) *yaml.Node {
	for _, key := range path {
		var next *yaml.Node
		for _, p := range pairs(n) {
			if p.key.Value == key {
				next = p.value
			}
		}
		n = next
	}
	return n
}

// text is a scalar's value; empty when there is none.
func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

// triggers are the names of the events that start the workflow.
func (f *file) triggers() (names []string) {
	on := get(f.root, "on")
	if name := text(on); name != "" {
		return []string{name}
	}
	for _, item := range items(on) {
		names = append(names, item.Value)
	}
	for _, p := range pairs(on) {
		names = append(names, p.key.Value)
	}
	return names
}

// publishes says whether the workflow makes something that others fetch.
func (f *file) publishes() bool {
	if get(f.root, "on", "push", "tags") != nil || get(f.root, "on", "release") != nil || strings.Contains(text(get(f.root, "name")), "release") {
		return true
	}
	for _, permissions := range f.all("permissions") {
		for _, scope := range pairs(permissions) {
			if scope.value.Value == "write" && (scope.key.Value == "contents" || scope.key.Value == "packages" || scope.key.Value == "id-token") {
				return true
			}
		}
	}
	return false
}

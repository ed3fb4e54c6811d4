// Package action is the runner's side of a flakeship binary: its inputs, outputs, log, step summary, masks, error and hint
// lines and exit code, under GitHub Actions, Gitea Actions, or in a plain terminal.
//
// A binary declares what it takes and gives as a Spec and hands it to Main with its work. Nothing else in flakeship writes
// to the runner, and nothing else imports go-githubactions.
package action

import (
	"strings"
)

// Spec declares one action: the same data gives flags, environment, --help, action.yml and the tables in its README.
type Spec struct {
	Name    string // of the binary and of the folder under actions/
	Summary string // one sentence, lower case, no full stop
	Inputs  []Input
	Outputs []Output
}

// Input is one input of an action and the command-line flag of the same name.
type Input struct {
	Name     string // lower case, digits and hyphens
	Kind     Kind
	Default  string // as text; empty: none
	Choices  []string
	Required bool
	Secret   bool   // masked before first use
	Help     string // what it means, as one sentence without a full stop
	Example  string
	Says     string // the default in words, when it is not a fixed text: "those of the installed Nix"
}

// Output is one output of an action.
type Output struct {
	Name string
	Help string
}

// Kind is how an input's text is read.
type Kind int

// The kinds of input.
const (
	Text      Kind = iota
	Bool           // true or false
	Int            // decimal
	Duration       // Go's: 90s, 10m, 1h30m
	List           // one item per line; a single line may use commas
	Choice         // one of Choices
	Document       // a hand-over file's path, or the JSON text itself
	Documents      // several of them, one after the other
)

func (k Kind) String() string {
	return [...]string{"text", "true or false", "number", "duration", "list", "choice", "path or JSON", "paths or JSON"}[k]
}

// common are the inputs every action has.
var common = []Input{
	{Name: "out", Example: "handover.json", Help: "path of the hand-over file", Says: "a new file in the runner's temporary folder"},
	{Name: "report", Help: "path of an HTML page about the run, which each step adds its part to", Example: "report.html"},
	{Name: "log-level", Kind: Choice, Choices: []string{"info", "debug"}, Default: "info", Help: "how much the log tells"},
}

// All are the declared inputs and those every action has.
func (s Spec) All() []Input { return append(append([]Input(nil), s.Inputs...), common...) }

func (s Spec) input(name string) (Input, bool) {
	for _, in := range s.All() {
		if in.Name == name {
			return in, true
		}
	}
	return Input{}, false
}

func (s Spec) hasOutput(name string) bool {
	for _, out := range s.Outputs {
		if out.Name == name {
			return true
		}
	}
	return false
}

// EnvName is the environment variable of an input. Underscores, because dash and busybox ash drop variables whose names
// have hyphens.
func EnvName(input string) string {
	return "INPUT_" + strings.ToUpper(strings.ReplaceAll(input, "-", "_"))
}

// fromEnv reads an input from the environment: the form with underscores, else the one with hyphens that runners set for
// actions that are not composite.
func fromEnv(getenv func(string) string, input string) string {
	if v := getenv(EnvName(input)); v != "" {
		return v
	}
	return getenv("INPUT_" + strings.ToUpper(input))
}

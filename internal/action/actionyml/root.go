package actionyml

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/action"
)

// Stage is one action as the root action calls it.
type Stage struct {
	ID    string            // of the step
	If    string            // condition; empty: always
	Name  string            // of the action and its binary
	File  File              // its action.yml
	Order []string          // its inputs and outputs as action.yml lists them
	Wired map[string]string // inputs that come from an earlier stage: name -> expression

	// Renamed are inputs that have another name in the root action, because another stage means something else by theirs.
	Renamed map[string]string
}

// inRoot is the root action's name for an input of the stage.
func (s Stage) inRoot(name string) string { return cmp.Or(s.Renamed[name], name) }

// own are inputs each stage keeps to itself: their meaning or default differs between stages. What push-images joins are results of
// several jobs, and the root action is one job.
var own = []string{"timeout", "out", "push-result"}

// takes are the inputs of a stage that are inputs of the root action too.
func (s Stage) takes() []string {
	var names []string
	for _, name := range s.Order {
		_, isInput := s.File.Inputs[name]
		if _, wired := s.Wired[name]; isInput && !wired && !slices.Contains(own, name) {
			names = append(names, name)
		}
	}
	return names
}

// Order lists the names of inputs and outputs in an action.yml that Render wrote, in its order.
func Order(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		if line == "runs:\n" {
			break
		}
		if name, ok := strings.CutPrefix(line, "  "); ok && !strings.HasPrefix(name, " ") {
			names = append(names, strings.TrimSuffix(name, ":\n"))
		}
	}
	return names
}

// RenderRoot is the root action.yml: the stages one after the other, called by path, because `uses: ./` in a composite
// action means the user's repository. It takes the union of their inputs; an input that several stages have goes to each.
// It gives the union of their outputs; where two have a name in common, the later one's.
func RenderRoot(name, description string, stages []Stage) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Generated from actions/*/action.yml by make generate.\nname: %s\ndescription: %s\ninputs:\n", name, quote(description))
	for _, in := range rootInputs(stages) {
		def := ""
		if in.file.Default != nil {
			def = *in.file.Default
		}
		fmt.Fprintf(&b, "  %s:\n    description: %s\n    default: %s\n", in.name, quote(in.file.Description), quote(def))
	}
	b.WriteString("outputs:\n")
	for _, out := range rootOutputs(stages) {
		fmt.Fprintf(&b, "  %s:\n    description: %s\n    value: ${{ steps.%s.outputs.%s }}\n", out.name, quote(out.file.Description), out.stage, out.name)
	}
	b.WriteString("runs:\n  using: composite\n  steps:\n")
	for i, s := range stages {
		fmt.Fprintf(&b, "    - id: %s\n", s.ID)
		if s.If != "" {
			fmt.Fprintf(&b, "      if: %s\n", s.If)
		}
		b.WriteString("      shell: bash\n      env:\n")
		fmt.Fprintf(&b, "        FLAKESHIP_PIPELINE: %s\n", place(stages[i+1:]))
		for _, earlier := range stages[:i] {
			fmt.Fprintf(&b, "        FLAKESHIP_%s: ${{ steps.%s.outputs.%s }}\n", strings.TrimPrefix(action.EnvName(earlier.document()), "INPUT_"), earlier.ID, earlier.document())
		}
		for _, in := range s.Order {
			if expression, wired := s.Wired[in]; wired {
				fmt.Fprintf(&b, "        %s: ${{ %s }}\n", action.EnvName(in), expression)
			}
		}
		for _, in := range s.takes() {
			fmt.Fprintf(&b, "        %s: ${{ inputs.%s }}\n", action.EnvName(in), s.inRoot(in))
		}
		fmt.Fprintf(&b, "      run: '\"$GITHUB_ACTION_PATH/actions/launch.sh\" %s'\n", s.Name)
	}
	return b.String()
}

// place tells a stage whether one of those after it will run: the last one writes the summary of all.
func place(after []Stage) string {
	var conditions []string
	for _, s := range after {
		if s.If == "" {
			return "more"
		}
		conditions = append(conditions, s.If)
	}
	if len(conditions) == 0 {
		return "last"
	}
	return fmt.Sprintf("${{ (%s) && 'more' || 'last' }}", strings.Join(conditions, " || "))
}

// document is the output with the path of the stage's hand-over document: its first.
func (s Stage) document() string {
	for _, name := range s.Order {
		if _, isOutput := s.File.Outputs[name]; isOutput {
			return name
		}
	}
	return ""
}

type rootInput struct {
	name string
	file Input
}

func rootInputs(stages []Stage) []rootInput {
	var all []rootInput
	for _, s := range stages {
		for _, name := range s.takes() {
			if !slices.ContainsFunc(all, func(in rootInput) bool { return in.name == s.inRoot(name) }) {
				all = append(all, rootInput{s.inRoot(name), s.File.Inputs[name]})
			}
		}
	}
	return all
}

type rootOutput struct {
	name, stage string
	file        Output
}

func rootOutputs(stages []Stage) []rootOutput {
	var all []rootOutput
	for _, s := range stages {
		for _, name := range s.Order {
			file, isOutput := s.File.Outputs[name]
			if !isOutput {
				continue
			}
			all = slices.DeleteFunc(all, func(out rootOutput) bool { return out.name == name })
			all = append(all, rootOutput{name, s.ID, file})
		}
	}
	return all
}

// RootTables are the tables of the root action's inputs and outputs, in the order of the stages.
func RootTables(stages []Stage) string {
	var b strings.Builder
	b.WriteString("| input | goes to | default | meaning |\n|---|---|---|---|\n")
	for _, in := range rootInputs(stages) {
		var to []string
		for _, s := range stages {
			if slices.ContainsFunc(s.takes(), func(name string) bool { return s.inRoot(name) == in.name }) {
				to = append(to, s.ID)
			}
		}
		def := ""
		if in.file.Default != nil && *in.file.Default != "" {
			def = "`" + *in.file.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", in.name, strings.Join(to, ", "), def, strings.ReplaceAll(in.file.Description, "|", `\|`))
	}
	b.WriteString("\n| output | comes from | meaning |\n|---|---|---|\n")
	for _, out := range rootOutputs(stages) {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", out.name, out.stage, strings.ReplaceAll(out.file.Description, "|", `\|`))
	}
	return b.String()
}

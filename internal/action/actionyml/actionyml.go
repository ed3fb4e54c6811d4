// Package actionyml renders an action's Spec as the files users read: action.yml and the tables in its README. A test of
// each binary holds the files to it, so that what is documented is what the binary takes.
package actionyml

import (
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/flakeship/flakeship/internal/action"
)

// File is what an action.yml says, as far as flakeship uses the format.
type File struct {
	Name        string            `json:"name"`
	Description string            `json:"description"`
	Inputs      map[string]Input  `json:"inputs"`
	Outputs     map[string]Output `json:"outputs"`
	Runs        Runs              `json:"runs"`
}

// Input is one input of an action.yml.
type Input struct {
	Description string  `json:"description"`
	Required    bool    `json:"required"`
	Default     *string `json:"default"`
}

// Output is one output of an action.yml.
type Output struct {
	Description string `json:"description"`
	Value       string `json:"value"`
}

// Runs is how an action.yml is run.
type Runs struct {
	Using string `json:"using"`
	Steps []Step `json:"steps"`
}

// Step is one step of a composite action.
type Step struct {
	ID    string            `json:"id"`
	If    string            `json:"if"`
	Shell string            `json:"shell"`
	Env   map[string]string `json:"env"`
	Run   string            `json:"run"`
	Uses  string            `json:"uses"`
}

// Parse reads an action.yml; a field it does not know is an error.
func Parse(text []byte) (File, error) {
	var f File
	err := yaml.UnmarshalStrict(text, &f)
	return f, err
}

// Render is the action.yml of spec. Inputs go through the environment, because text spliced into a script can be a script
// itself; the names have underscores, because some shells drop variables with hyphens.
func Render(spec action.Spec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Generated from cmd/%s/spec.go by make generate.\nname: %s\ndescription: %s\ninputs:\n", spec.Name, spec.Name, quote(sentence(spec.Summary)))
	for _, in := range spec.All() {
		renderInput(&b, in)
	}
	b.WriteString("outputs:\n")
	for _, out := range spec.Outputs {
		fmt.Fprintf(&b, "  %s:\n    description: %s\n    value: ${{ steps.run.outputs.%s }}\n", out.Name, quote(sentence(out.Help)), out.Name)
	}
	b.WriteString("runs:\n  using: composite\n  steps:\n    - id: run\n      shell: bash\n      env:\n")
	for _, in := range spec.All() {
		fmt.Fprintf(&b, "        %s: ${{ inputs.%s }}\n", action.EnvName(in.Name), in.Name)
	}
	fmt.Fprintf(&b, "      run: '\"$GITHUB_ACTION_PATH/../launch.sh\" %s'\n", spec.Name)
	return b.String()
}

func renderInput(b *strings.Builder, in action.Input) {
	fmt.Fprintf(b, "  %s:\n    description: %s\n", in.Name, quote(describe(in)))
	if in.Required {
		b.WriteString("    required: true\n")
	} else {
		fmt.Fprintf(b, "    default: %s\n", quote(in.Default))
	}
}

// describe is an input's help with its format, its default in words and an example.
func describe(in action.Input) string {
	s := sentence(in.Help)
	switch in.Kind {
	case action.Choice:
		s += " One of " + strings.Join(in.Choices, ", ") + "."
	case action.Bool:
		s += " `true` or `false`."
	case action.Int:
		s += " A whole number."
	case action.Duration:
		s += " A duration, such as 90s, 10m or 1h30m."
	case action.List:
		s += " One per line; a single line may use commas."
	case action.Document:
		s += " A path, or the JSON text."
	case action.Documents:
		s += " Paths, which may have a `*`, or the JSON texts."
	}
	if in.Says != "" {
		s += " Default, " + in.Says + "."
	}
	if in.Example != "" {
		s += " Example, " + strings.ReplaceAll(in.Example, "\n", ", ")
	}
	return s
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// quote makes a YAML single-quoted scalar.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// Tables are the input and output tables of an action's README, in the order of spec's declaration.
func Tables(f File, order action.Spec) string {
	var b strings.Builder
	b.WriteString("| input | default | meaning |\n|---|---|---|\n")
	for _, in := range order.All() {
		y := f.Inputs[in.Name]
		def := ""
		if y.Required {
			def = "required"
		} else if y.Default != nil && *y.Default != "" {
			def = "`" + *y.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", in.Name, def, strings.ReplaceAll(y.Description, "|", `\|`))
	}
	b.WriteString("\n| output | meaning |\n|---|---|\n")
	for _, out := range order.Outputs {
		fmt.Fprintf(&b, "| `%s` | %s |\n", out.Name, strings.ReplaceAll(f.Outputs[out.Name].Description, "|", `\|`))
	}
	return b.String()
}

// The tables stand between these lines of a README.
const (
	Begin = "<!-- inputs and outputs: generated from action.yml by make generate -->\n"
	End   = "<!-- end of generated part -->\n"
)

// Splice puts tables between Begin and End of a README.
func Splice(readme, tables string) (string, error) {
	head, rest, ok := strings.Cut(readme, Begin)
	_, tail, ok2 := strings.Cut(rest, End)
	if !ok || !ok2 {
		return "", fmt.Errorf("the README lacks the lines %q and %q", strings.TrimSpace(Begin), strings.TrimSpace(End))
	}
	return head + Begin + "\n" + tables + "\n" + End + tail, nil
}

package action

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseInputs reads flags, environment and defaults, in that order of precedence, and returns every problem found.
func parseInputs(spec Spec, args []string, getenv func(string) string) (map[string]string, []error) {
	values, problems := parseFlags(spec, args)
	for _, in := range spec.All() {
		if _, given := values[in.Name]; !given {
			if v := fromEnv(getenv, in.Name); v != "" {
				values[in.Name] = v
			} else {
				values[in.Name] = in.Default
			}
		}
		v := strings.TrimSpace(values[in.Name])
		values[in.Name] = v
		if err := check(in, v); err != nil {
			problems = append(problems, err)
		}
	}
	return values, problems
}

func check(in Input, v string) error {
	if v == "" {
		if in.Required {
			return fmt.Errorf("input %s is required: %s", in.Name, in.Help)
		}
		return nil
	}
	var err error
	switch in.Kind {
	case Bool:
		_, err = strconv.ParseBool(v)
	case Int:
		_, err = strconv.Atoi(v)
	case Duration:
		var d time.Duration
		if d, err = time.ParseDuration(v); err == nil && d <= 0 {
			return fmt.Errorf("input %s is %s, not more than zero", in.Name, v)
		}
	case Choice:
		if !slices.Contains(in.Choices, v) {
			return fmt.Errorf("input %s is %q, not one of %s", in.Name, v, strings.Join(in.Choices, ", "))
		}
	}
	if err != nil {
		return fmt.Errorf("input %s is %q, not a %s", in.Name, v, map[Kind]string{
			Bool: "truth value: true or false", Int: "whole number", Duration: "duration such as 90s or 10m"}[in.Kind])
	}
	return nil
}

// parseFlags reads --name value, --name=value, and --name alone for a truth value.
func parseFlags(spec Spec, args []string) (map[string]string, []error) {
	values := map[string]string{}
	var problems []error
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		flag, ok := strings.CutPrefix(arg, "-")
		if !ok || flag == "" {
			problems = append(problems, fmt.Errorf("unexpected argument %q", arg))
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(flag, "-"), "=")
		in, known := spec.input(name)
		if !known {
			problems = append(problems, fmt.Errorf("unknown flag --%s%s", name, near(spec, name)))
			if !hasValue && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				args = args[1:] // its value, most likely: one problem is enough
			}
			continue
		}
		switch {
		case hasValue:
		case in.Kind == Bool && (len(args) == 0 || args[0] != "true" && args[0] != "false"):
			value = "true"
		case len(args) == 0:
			problems = append(problems, fmt.Errorf("flag --%s needs a value", name))
			continue
		default:
			value, args = args[0], args[1:]
		}
		values[name] = value
	}
	return values, problems
}

// near proposes the flag whose name begins like the mistyped one.
func near(spec Spec, name string) string {
	best, length := "", 2
	for _, in := range spec.All() {
		n := 0
		for n < len(name) && n < len(in.Name) && name[n] == in.Name[n] {
			n++
		}
		if n > length {
			best, length = in.Name, n
		}
	}
	if best == "" {
		return ""
	}
	return ", did you mean --" + best + "?"
}

// Text returns an input as it was given, without surrounding blanks. Like its siblings it panics on an input that the Spec
// does not declare.
func (e *Env) Text(name string) string {
	v, ok := e.values[name]
	if !ok {
		panic("action: input " + name + " is not declared")
	}
	return v
}

// Bool returns a Bool input; an empty one is false.
func (e *Env) Bool(name string) bool {
	b, _ := strconv.ParseBool(e.Text(name)) // checked when it was read
	return b
}

// Int returns an Int input; an empty one is 0.
func (e *Env) Int(name string) int {
	n, _ := strconv.Atoi(e.Text(name))
	return n
}

// Duration returns a Duration input; an empty one is 0.
func (e *Env) Duration(name string) time.Duration {
	d, _ := time.ParseDuration(e.Text(name))
	return d
}

// List returns the items of a List input, without blanks and empty items.
func (e *Env) List(name string) []string { return splitList(e.Text(name)) }

func splitList(text string) []string {
	sep := "\n"
	if !strings.Contains(text, "\n") {
		sep = ","
	}
	var items []string
	for item := range strings.SplitSeq(text, sep) {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// Documents returns the items of a Documents input, each a path or the text of one document, for handoff.Load. A path with a
// star stands for all files it matches, of which there has to be one.
func (e *Env) Documents(name string) ([]string, error) {
	rest := e.Text(name)
	var items []string
	for rest = strings.TrimLeft(rest, " \t\r\n,"); rest != ""; rest = strings.TrimLeft(rest, " \t\r\n,") {
		if !strings.HasPrefix(rest, "{") {
			end := strings.IndexAny(rest, "\n,")
			if end < 0 {
				end = len(rest)
			}
			item := strings.TrimSpace(rest[:end])
			rest = rest[end:]
			if !strings.Contains(item, "*") {
				items = append(items, item)
				continue
			}
			files, err := filepath.Glob(item)
			if err != nil {
				return nil, fmt.Errorf("input %s: %s: %w", name, item, err)
			}
			if len(files) == 0 {
				return nil, fmt.Errorf("input %s: no file matches %s", name, item)
			}
			items = append(items, files...)
			continue
		}
		dec := json.NewDecoder(strings.NewReader(rest))
		var doc json.RawMessage
		if err := dec.Decode(&doc); err != nil {
			return nil, fmt.Errorf("input %s, document %d: no JSON: %w", name, len(items)+1, err)
		}
		items = append(items, string(doc))
		rest = rest[dec.InputOffset():]
	}
	return items, nil
}

package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/action"
)

// template fills in tags. A name that is not known has an empty value.
type template map[string]string

// templates are the names a tag may have in braces.
func templates(env *action.Env, commit string, now time.Time) template {
	branch := env.Getenv("GITHUB_HEAD_REF") // of a pull request, whose own ref is called 12/merge
	if branch == "" {
		branch = env.Getenv("GITHUB_REF_NAME")
	}
	return template{
		"branch":   tagOf(branch),
		"sha":      commit,
		"shortsha": commit[:min(len(commit), 7)],
		"date":     now.UTC().Format("20060102"),
	}
}

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// expand fills in the tags of an input; of equal ones it keeps the first.
func (t template) expand(input string, tags []string) ([]string, error) {
	var all []string
	var errs []error
	for _, tag := range tags {
		expanded := placeholder.ReplaceAllStringFunc(tag, func(name string) string {
			value, known := t[name[1:len(name)-1]]
			switch {
			case !known:
				errs = append(errs, fmt.Errorf("input %s: %s in %q is none of {branch}, {sha}, {shortsha}, {date}", input, name, tag))
			case value == "":
				errs = append(errs, fmt.Errorf("input %s: %s in %q is not known here", input, name, tag))
			}
			return value
		})
		if !slices.Contains(all, expanded) {
			all = append(all, expanded)
		}
	}
	return all, errors.Join(errs...)
}

var notInTag = regexp.MustCompile(`[^a-zA-Z0-9_.-]+`)

// tagOf makes a branch's name fit for a tag: feature/login becomes feature-login.
func tagOf(branch string) string {
	tag := notInTag.ReplaceAllString(branch, "-")
	if tag != "" && (tag[0] == '-' || tag[0] == '.') {
		tag = "_" + tag[1:]
	}
	return tag[:min(len(tag), 128)]
}

// annotations reads the annotations that manifests are to have.
func annotations(env *action.Env, names template) (map[string]string, error) {
	var lines []string
	for _, item := range env.List("annotations") {
		if n := len(lines); n > 0 && !strings.Contains(env.Text("annotations"), "\n") && !annotationKey.MatchString(item) {
			lines[n-1] += ", " + item // a single line has commas between annotations, and inside of them
			continue
		}
		lines = append(lines, item)
	}
	lines, err := names.expand("annotations", lines)
	if err != nil || len(lines) == 0 {
		return nil, err
	}
	all := map[string]string{}
	for _, line := range lines {
		key, value, ok := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); !ok || key == "" {
			return nil, fmt.Errorf("input annotations: %q", line)
		}
		all[key] = strings.TrimSpace(value)
	}
	return all, nil
}

// annotationKey begins an annotation.
var annotationKey = regexp.MustCompile(`^[a-zA-Z0-9._/-]+=`)

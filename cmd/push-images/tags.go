package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
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

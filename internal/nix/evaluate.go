package nix

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

//go:embed images.nix
var imagesNix string

// evaluator asks one flake about its attributes.
type evaluator struct {
	nix      *Nix
	src      source
	readOnly bool // as long as it works: a derivation is not written then, which is many times faster
	warnings []string
}

// request is what images.nix is asked.
type request struct {
	Parts   []part   `json:"parts"`
	Include []string `json:"include"` // regular expressions
	Exclude []string `json:"exclude"`
	Careful bool     `json:"careful"` // catch a throw, and mark the attribute as failed
}

// part is a system, and the names to look at; nil: all.
type part struct {
	System string   `json:"system"`
	Names  []string `json:"names,omitempty"`
}

// systemAnswer is what images.nix says of one system.
type systemAnswer struct {
	System string              `json:"system"`
	Names  []string            `json:"names"` // every attribute, selected or not; null: the flake has no such system
	Images map[string]rawImage `json:"images"`
}

// findings are the images of all systems.
type findings struct {
	systems []systemAnswer
	images  []rawImage
}

// all finds the selected images of systems with a single process; further ones only look for what failed.
func (ev *evaluator) all(ctx context.Context, systems []string, sel selection) (findings, error) {
	req := request{Include: sel.include(), Exclude: sel.exclude(), Careful: true}
	for _, s := range systems {
		req.Parts = append(req.Parts, part{System: s})
	}
	answer, err := ev.ask(ctx, req)
	if isCommandError(err) {
		return ev.afterFailure(ctx, systems, sel, err)
	}
	if err != nil {
		return findings{}, err
	}
	f := findings{systems: answer}
	f.images, err = ev.collect(ctx, answer)
	return f, err
}

// afterFailure finds out which attribute made everything fail: names first, then the attributes in halves.
func (ev *evaluator) afterFailure(ctx context.Context, systems []string, sel selection, cause error) (findings, error) {
	if noPackages.MatchString(cause.Error()) {
		f := findings{}
		for _, s := range systems {
			f.systems = append(f.systems, systemAnswer{System: s})
		}
		return f, nil
	}
	req := request{Include: []string{}, Exclude: []string{".*"}, Careful: true} // names only
	for _, s := range systems {
		req.Parts = append(req.Parts, part{System: s})
	}
	answer, err := ev.ask(ctx, req)
	if err != nil {
		return findings{}, evalError("packages", err)
	}
	var attrs []attribute
	for _, s := range answer {
		for _, name := range s.Names {
			if at := (attribute{s.System, name}); sel.has(at) {
				attrs = append(attrs, at)
			}
		}
	}
	f := findings{systems: answer}
	f.images, err = ev.these(ctx, attrs)
	return f, err
}

// these looks at single attributes, in halves when one of them ends the process.
func (ev *evaluator) these(ctx context.Context, attrs []attribute) ([]rawImage, error) {
	if len(attrs) == 0 {
		return nil, nil
	}
	req := request{Careful: len(attrs) > 1, Include: []string{}, Exclude: []string{}}
	for _, at := range attrs {
		i := slices.IndexFunc(req.Parts, func(p part) bool { return p.System == at.system })
		if i < 0 {
			i = len(req.Parts)
			req.Parts = append(req.Parts, part{System: at.system})
		}
		req.Parts[i].Names = append(req.Parts[i].Names, at.name)
	}
	answer, err := ev.ask(ctx, req)
	switch {
	case isCommandError(err) && len(attrs) == 1:
		return nil, evalError(attrs[0].String(), err)
	case isCommandError(err):
		half := len(attrs) / 2
		left, leftErr := ev.these(ctx, attrs[:half])
		right, rightErr := ev.these(ctx, attrs[half:])
		return append(left, right...), errors.Join(leftErr, rightErr)
	case err != nil:
		return nil, err
	}
	return ev.collect(ctx, answer)
}

// collect takes the images out of an answer, and asks again for each that failed: only then does Nix say why.
func (ev *evaluator) collect(ctx context.Context, answer []systemAnswer) ([]rawImage, error) {
	var images []rawImage
	var errs []error
	for _, s := range answer {
		for _, name := range slices.Sorted(maps.Keys(s.Images)) {
			raw := s.Images[name]
			raw.attr = attribute{s.System, name}
			switch {
			case raw.Failed:
				again, err := ev.these(ctx, []attribute{raw.attr})
				images, errs = append(images, again...), append(errs, err)
			case raw.Image:
				images = append(images, raw)
			}
		}
	}
	return images, errors.Join(errs...)
}

// ask runs one nix eval: read-only, and once more without that when something in the store turns out to be needed.
func (ev *evaluator) ask(ctx context.Context, req request) ([]systemAnswer, error) {
	answer, err := ev.eval(ctx, req)
	if ev.readOnly && ev.needsStore(err) {
		ev.readOnly = false
		answer, err = ev.eval(ctx, req)
	}
	return answer, err
}

// needsStore says whether a read-only evaluation failed because it imports from a derivation. Each version words that in its
// own way; all name a store path, since 2.34 without the store's folder, or the mode.
func (ev *evaluator) needsStore(err error) bool {
	var c *CommandError
	if !errors.As(err, &c) {
		return false
	}
	return storePathName.MatchString(c.Cause()) || strings.Contains(c.Cause(), "read-only")
}

var storePathName = regexp.MustCompile(`[0-9a-df-np-sv-z]{32}-`)

func (ev *evaluator) eval(ctx context.Context, req request) ([]systemAnswer, error) {
	query, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	args := append([]string{"eval", "--json"}, lockFlags...)
	// The cache of evaluations knows nothing of --apply, and is a lock between processes.
	args = append(args, "--option", "eval-cache", "false")
	if ev.readOnly {
		args = append(args, "--read-only")
	}
	args = append(args, ev.src.eval+"#packages", "--apply", strings.Replace(imagesNix, "QUERY", nixString(string(query)), 1))
	log := &tail{max: maxStderr}
	text, err := ev.nix.run(ctx, command{args: args, env: ev.src.env, stderr: log})
	if err != nil {
		return nil, err // and not what it printed: the JSON of an evaluation that failed ends in the middle
	}
	for _, w := range warnings(log.String()) {
		if !slices.Contains(ev.src.warnings, w) && !slices.Contains(ev.warnings, w) {
			ev.warnings = append(ev.warnings, w)
		}
	}
	return decode(text)
}

// noPackages is Nix's answer for a flake without the output `packages`.
var noPackages = regexp.MustCompile(`does not provide attribute .*'packages'`)

func isCommandError(err error) bool {
	var c *CommandError
	return errors.As(err, &c)
}

// nixString is a Nix string literal.
func nixString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `${`, `\${`, "\n", `\n`, "\r", `\r`).Replace(s) + `"`
}

// attribute is one of packages.<system>.
type attribute struct{ system, name string }

// String is the attribute's path as an installable has it; names with a dot are quoted.
func (a attribute) String() string {
	return "packages." + quoteName(a.system) + "." + quoteName(a.name)
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_'+-]+$`)

func quoteName(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return `"` + name + `"`
}

var attrPath = regexp.MustCompile(`^packages\.([^."]+|"[^"]+")\.([^."]+|"[^"]+")$`)

// parseAttr is the inverse of attribute.String.
func parseAttr(path string) (attribute, error) {
	m := attrPath.FindStringSubmatch(path)
	if m == nil {
		return attribute{}, fmt.Errorf("attribute %q is not packages.<system>.<name>", path)
	}
	return attribute{strings.Trim(m[1], `"`), strings.Trim(m[2], `"`)}, nil
}

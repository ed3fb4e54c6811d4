package nix

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

//go:embed images.nix
var imagesNix string

// evaluator asks one flake about its attributes. It may be used from several goroutines.
type evaluator struct {
	nix *Nix
	src source
	env []string // besides that of the source

	mu       sync.Mutex
	readOnly bool // as long as it works: a derivation is not written then, which is many times faster
	warnings []string
}

// request is what images.nix is asked: about all selected attributes of systems, or about certain ones.
type request struct {
	Systems    []string    `json:"systems,omitempty"`
	Include    []string    `json:"include"` // regular expressions
	Exclude    []string    `json:"exclude"`
	Attributes []attribute `json:"attributes,omitempty"`
	Careful    bool        `json:"careful"` // catch a throw, and mark the attribute as failed: its message is lost
	Mark       string      `json:"mark"`    // begins each answer, to tell it from what the flake itself traces
}

// answer is what images.nix says of a system or of an attribute.
type answer struct {
	systemNames
	Attribute *attribute `json:"attribute"` // nil: the answer is about a system
	Found     rawImage   `json:"found"`
}

// systemNames are the attributes a system has.
type systemNames struct {
	System string   `json:"system"`
	Names  []string `json:"names"` // selected or not; null: the flake has no such system
}

// rawImage is what images.nix gives for one attribute.
type rawImage struct {
	attr        attribute
	Failed      bool   `json:"failed"` // a throw or a failed assertion; Nix keeps the message to itself
	Image       bool   `json:"image"`
	Drv         string `json:"drv"`
	Out         string `json:"out"`
	System      string `json:"system"`
	ImageName   string `json:"imageName"`
	ImageTag    string `json:"imageTag"`
	IsExe       bool   `json:"isExe"`
	Nix2Contain bool   `json:"nix2container"`
}

// ask runs one nix eval and calls take with each answer as it comes, from one goroutine. started gets the process.
//
// Errors: *storeNeededError when the evaluation has to be repeated with evaluator.readOnly as it is then; *CommandError when an
// attribute does not evaluate: the one after the last answer; ctx.Err() and what take returns.
func (ev *evaluator) ask(ctx context.Context, req request, started func(pid int), take func(answer) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req.Mark = rand.Text() + " "
	query, err := json.Marshal(req)
	if err != nil {
		return err
	}
	readOnly := ev.isReadOnly()
	// The cache of evaluations knows nothing of --apply, and is a lock between processes.
	args := append([]string{"eval", "--json", "--option", "eval-cache", "false"}, lockFlags...)
	if readOnly {
		args = append(args, "--read-only")
	}
	args = append(args, ev.src.eval+"#packages", "--apply", strings.Replace(imagesNix, "QUERY", nixString(string(query)), 1))
	mark := []byte("trace: " + req.Mark)
	log := &tail{max: maxStderr}
	_, err = ev.nix.run(ctx, command{args: args, env: slices.Concat(ev.src.env, ev.env), stderr: log, started: started,
		kill: readOnly, // otherwise builds may be under way
		lines: func(line []byte) bool {
			text, ok := bytes.CutPrefix(line, mark)
			if !ok || ctx.Err() != nil {
				return ok
			}
			a, err := decode(text)
			if err == nil {
				err = take(a)
			}
			if err != nil {
				cancel(err)
			}
			return true
		}})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ev.mu.Lock()
	defer ev.mu.Unlock()
	if readOnly && needsStore(err) {
		ev.readOnly = false
		return &storeNeededError{err}
	}
	for _, w := range warnings(log.String()) {
		if !slices.Contains(ev.src.warnings, w) && !slices.Contains(ev.warnings, w) {
			ev.warnings = append(ev.warnings, w)
		}
	}
	return err
}

func (ev *evaluator) isReadOnly() bool {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	return ev.readOnly
}

// decode reads one answer of images.nix.
func decode(text []byte) (a answer, err error) {
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("read nix's answer: %w", err)
	}
	if a.Attribute != nil {
		a.Found.attr = *a.Attribute
	}
	return a, nil
}

// storeNeededError means that an evaluation without writing to the store does not work for this flake.
type storeNeededError struct{ err error }

func (e *storeNeededError) Error() string { return e.err.Error() }
func (e *storeNeededError) Unwrap() error { return e.err }

// needsStore says whether a read-only evaluation failed because it imports from a derivation. Each version words that in its
// own way; all name a store path, since 2.34 without the store's folder, or the mode.
func needsStore(err error) bool {
	var c *CommandError
	if !errors.As(err, &c) {
		return false
	}
	return storePathName.MatchString(c.Cause()) || strings.Contains(c.Cause(), "read-only")
}

var storePathName = regexp.MustCompile(`[0-9a-df-np-sv-z]{32}-`)

// noPackages is Nix's answer for a flake without the output `packages`.
var noPackages = regexp.MustCompile(`does not provide attribute .*'packages'`)

// nixString is a Nix string literal.
func nixString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `${`, `\${`, "\n", `\n`, "\r", `\r`).Replace(s) + `"`
}

// attribute is one of packages.<system>.
type attribute struct {
	System string `json:"system"`
	Name   string `json:"name"`
}

// String is the attribute's path as an installable has it; names with a dot are quoted.
func (a attribute) String() string {
	return "packages." + quoteName(a.System) + "." + quoteName(a.Name)
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

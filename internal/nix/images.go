package nix

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/evalcache"
	"github.com/flakeship/flakeship/internal/handoff"
)

// Query says which images of which flake.
type Query struct {
	Flake      string   // reference, without #; empty: the folder nix runs in
	Systems    []string // empty: the runner's
	Attributes []string // globs with * and ? over names in packages.<system>, or over packages.<system>.<name>; !glob excludes; empty: all
	Options    EvalOptions
	Cache      *evalcache.Folder // where evaluations are kept; nil: nowhere
}

// Evaluation is what a flake has of images.
type Evaluation struct {
	Flake    handoff.Flake
	Commit   string   // 40 hex digits; empty for a dirty tree
	Images   []Image  // sorted by name, then system; aliases of one derivation are one image
	Warnings []string // Nix's own, and ours

	UnmatchedAttributes []string // globs of the query that match no attribute at all
	UnmatchedSystems    []string // systems of the query that the flake has no packages for

	Reused bool // it is an earlier one, kept in the query's Cache: nothing was evaluated

	query    Query
	src      source
	readOnly bool   // it could be made without writing to the store
	failed   bool   // not all of it could be made
	reuse    *reuse // nil: it may not be kept
	embed    []string
}

// Image is one image derivation of a flake.
type Image struct {
	Attr     string // packages.x86_64-linux.api
	System   string // that of the derivation
	Name     string // imageName
	Tag      string // identifies the content: the Nix hash; empty when it is not known before the build
	ImageTag string // the tag written in the flake, when it is not a Nix hash
	Family   handoff.Family
	DrvPath  string
	OutPath  string // empty when not known before the build
}

// EvalError is an attribute that does not evaluate.
type EvalError struct {
	Attr    string // packages.x86_64-linux.api; empty: the flake itself
	Message string // Nix's own words, several lines
	Err     error  // the *CommandError, if a command failed
}

func (e *EvalError) Error() string {
	what := "the flake"
	if e.Attr != "" {
		what = e.Attr
	}
	return fmt.Sprintf("%s does not evaluate: %s", what, e.Cause())
}

// Cause is the line of Message that says what is wrong.
func (e *EvalError) Cause() string {
	cause := e.Message
	var c *CommandError
	if errors.As(e.Err, &c) {
		cause = c.Cause()
	}
	first, _, _ := strings.Cut(cause, "\n")
	return first
}

func (e *EvalError) Unwrap() error { return e.Err }

// evalError makes an EvalError of a command that failed, and leaves every other error as it is.
func evalError(attr string, err error) error {
	if isCommandError(err) {
		return &EvalError{Attr: attr, Message: commandMessage(err), Err: err}
	}
	return err
}

// DuplicateError means that two different derivations claim one image name for one system.
type DuplicateError struct {
	Name, System string
	Attrs        [2]string
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("%s and %s are different images of one name, %q, for %s", e.Attrs[0], e.Attrs[1], e.Name, e.System)
}

// Images evaluates the flake and finds its images: derivations with an imageName under packages.<system>. Nothing is
// built, and no derivation is written to the store, unless the flake imports from derivations.
//
// An attribute that does not evaluate does not hide the others: what was found comes back together with one *EvalError for
// each that failed, joined.
//
// Errors: *EvalError, *DuplicateError, ctx.Err(), others when nix itself does not run.
func (n *Nix) Images(ctx context.Context, q Query) (*Evaluation, error) {
	systems := q.Systems
	if len(systems) == 0 {
		systems = []string{n.Settings.System}
	}
	sel, err := newSelection(q.Attributes)
	if err != nil {
		return nil, err
	}
	ref := cmp.Or(q.Flake, ".")
	env, remove, err := n.trustRepository(ref)
	if err != nil {
		return nil, err
	}
	defer remove()
	e, err := n.recall(ctx, q, systems, ref, env)
	if err != nil || e.Reused {
		return e, err
	}
	src, err := n.source(ctx, ref, env)
	if err != nil {
		return nil, err
	}
	e.Flake, e.Commit, e.src = src.Flake, src.commit, src
	e.Warnings = append(e.Warnings, src.warnings...)
	if src.Dirty && !slices.ContainsFunc(src.warnings, func(w string) bool { return strings.Contains(w, "dirty") }) { // warn-dirty = false
		e.Warnings = append(e.Warnings, "the work tree has changes that are not committed: what is built belongs to no commit")
	}
	ev := &evaluator{nix: n, src: src, readOnly: true}
	found := newEvaluation(ev, q.Options)
	err = found.all(ctx, systems, sel)
	e.Warnings = append(e.Warnings, ev.warnings...)
	for _, s := range found.systems {
		if s.Names == nil {
			e.UnmatchedSystems = append(e.UnmatchedSystems, s.System)
		}
	}
	e.UnmatchedAttributes = sel.unmatched(found.systems)
	images, dupErr := merge(found.images, n.Settings.StoreDir)
	err = errors.Join(err, dupErr)
	e.Images, e.readOnly, e.failed = images, ev.readOnly, err != nil
	return e, err
}

// Instantiate writes the derivations of images to the store, as a build by derivation needs them.
// The images are those of an Evaluation of the same flake.
//
// Errors: *EvalError; *ChangedError when an attribute is another derivation by now.
func (n *Nix) Instantiate(ctx context.Context, flake handoff.Flake, images []Image) error {
	var missing []attribute
	want := map[string]Image{}
	for _, img := range images {
		if n.Exists(img.DrvPath) {
			continue
		}
		at, err := parseAttr(img.Attr)
		if err != nil {
			return err
		}
		missing = append(missing, at)
		want[img.Attr] = img
	}
	if len(missing) == 0 {
		return nil
	}
	ref := cmp.Or(flake.Locked, flake.Ref)
	env, remove, err := n.trustRepository(ref)
	if err != nil {
		return err
	}
	defer remove()
	found := newEvaluation(&evaluator{nix: n, src: source{eval: ref, env: env}}, EvalOptions{Workers: 1})
	if err := found.these(ctx, missing); err != nil {
		return err
	}
	got := map[string]string{}
	for _, raw := range found.images {
		got[raw.attr.String()] = raw.Drv
	}
	for _, at := range missing {
		if img := want[at.String()]; got[img.Attr] != img.DrvPath {
			err = errors.Join(err, &ChangedError{Attr: img.Attr, Want: img.DrvPath, Got: got[img.Attr]})
		}
	}
	return err
}

// ChangedError means that an attribute gives something else than it did when the plan was made.
type ChangedError struct {
	Attr, Want, Got string // store paths
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s is %s now, the plan has %s", e.Attr, cmp.Or(e.Got, "no image"), e.Want)
}

func (r rawImage) family() handoff.Family {
	switch {
	case r.IsExe:
		return handoff.Stream
	case r.Nix2Contain:
		return handoff.Nix2Container
	}
	return handoff.DockerArchive
}

func (r rawImage) image(storeDir string) Image {
	img := Image{Attr: r.attr.String(), System: r.System, Name: r.ImageName, Family: r.family(), DrvPath: r.Drv}
	// The output path of a content-addressed derivation is a placeholder outside the store.
	hash := ""
	if base, ok := strings.CutPrefix(r.Out, storeDir+"/"); ok {
		img.OutPath = r.Out
		hash, _, _ = strings.Cut(base, "-")
	}
	if isNixHash(r.ImageTag) {
		img.Tag = r.ImageTag
	} else {
		img.Tag, img.ImageTag = hash, r.ImageTag
	}
	return img
}

// isNixHash says whether s is the 32-character hash of a store path.
func isNixHash(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdfghijklmnpqrsvwxyz") == ""
}

// merge makes one image of the aliases of a derivation, and refuses two derivations of one name.
func merge(found []rawImage, storeDir string) ([]Image, error) {
	var images []Image
	for _, r := range found {
		images = append(images, r.image(storeDir))
	}
	isDefault := func(img Image) int {
		if strings.HasSuffix(img.Attr, ".default") {
			return 1
		}
		return 0
	}
	slices.SortFunc(images, func(a, b Image) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.System, b.System), cmp.Compare(isDefault(a), isDefault(b)), cmp.Compare(a.Attr, b.Attr))
	})
	var err error
	unique := slices.CompactFunc(images, func(b, a Image) bool { // it gives the later one first
		if a.Name != b.Name || a.System != b.System {
			return false
		}
		if a.DrvPath != b.DrvPath {
			err = errors.Join(err, &DuplicateError{Name: a.Name, System: a.System, Attrs: [2]string{a.Attr, b.Attr}})
		}
		return true
	})
	return unique, err
}

package nix

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"

	"github.com/flakeship/flakeship/internal/handoff"
)

// reuse is how one evaluation is found again: by everything that its result depends on.
type reuse struct {
	key  string
	lock string // text of flake.lock; empty: there is none
}

// remembered is an evaluation as it is kept.
type remembered struct {
	Commit              string        `json:"commit"`    // that was evaluated
	AnyCommit           bool          `json:"anyCommit"` // another commit with the same tree gives the same
	Embed               []string      `json:"embed"`     // attributes of images that have the commit in them
	Flake               handoff.Flake `json:"flake"`
	Images              []Image       `json:"images"`
	Warnings            []string      `json:"warnings"`
	UnmatchedAttributes []string      `json:"unmatchedAttributes"`
	UnmatchedSystems    []string      `json:"unmatchedSystems"`
}

// recall looks for an earlier evaluation of what the query is about. Without one there is an Evaluation to be completed, that knows
// how to be kept if it may be.
func (n *Nix) recall(ctx context.Context, q Query, systems []string, ref string, env []string) (*Evaluation, error) {
	e := &Evaluation{query: q}
	if q.Cache == nil {
		return e, nil
	}
	refuse := func(why string) (*Evaluation, error) {
		e.Warnings = append(e.Warnings, "plan-cache is not used: "+why)
		return e, ctx.Err()
	}
	work, err := n.worktree(ctx, ref, env)
	switch {
	case err != nil:
		return refuse(err.Error())
	case work.dirty:
		return refuse("files were changed since the last commit")
	}
	e.reuse = &reuse{key: n.reuseKey(work, systems, q.Attributes), lock: work.file(ctx, "flake.lock")}
	text, err := q.Cache.Load(e.reuse.key)
	var r remembered
	if err == nil && text != nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		e.Warnings = append(e.Warnings, fmt.Sprintf("plan-cache: evaluating again: %v", err))
	}
	if err == nil && (r.Commit == work.commit || r.AnyCommit) {
		e.Reused, e.Commit, e.Warnings, e.Images = true, work.commit, r.Warnings, r.Images
		e.embed, e.UnmatchedAttributes, e.UnmatchedSystems = r.Embed, r.UnmatchedAttributes, r.UnmatchedSystems
		e.Flake = r.Flake
		e.Flake.Ref, e.Flake.Locked = ref, work.at(work.commit)
	}
	return e, nil
}

// reuseKey is everything that the result of an evaluation depends on, but for the commit. The lock file is in the tree.
func (n *Nix) reuseKey(w *worktree, systems, attributes []string) string {
	asked := sha256.Sum256([]byte(imagesNix))
	key, _ := json.Marshal([]any{hex.EncodeToString(asked[:8]), n.Version.String(), n.Settings.StoreDir, n.Settings.evaluation,
		w.tree, w.dir, w.params, systems, attributes}) // plain values
	return string(key)
}

// Settle finds out which images of an evaluation are others for another commit of the same tree, because the commit or its time is
// in them: no cache ever has those. It also keeps the evaluation, if the query had a place for that and it may be kept.
//
// It costs another evaluation, unless the flake's own files show that there is no need for one, and is best called while something
// else waits for the network. attrs are the attributes of such images, sorted; err is only about keeping.
func (n *Nix) Settle(ctx context.Context, e *Evaluation) (attrs []string, err error) {
	if e.Reused {
		return e.embed, nil
	}
	if e.failed || len(e.Images) == 0 || e.Commit == "" || e.src.path == "" {
		return nil, nil
	}
	if e.reuse == nil && !n.mentionsCommit(ctx, e) {
		return nil, nil
	}
	attrs, known := n.embedCommit(ctx, e)
	if e.reuse == nil || ctx.Err() != nil {
		return attrs, ctx.Err()
	}
	if !lockedBy(e.src.locks, e.reuse.lock) {
		return attrs, errors.New("plan-cache is not used: flake.lock does not lock every input; run nix flake lock and commit it")
	}
	text, err := json.Marshal(remembered{Commit: e.Commit, AnyCommit: known && len(attrs) == 0, Embed: attrs, Flake: e.Flake, Images: e.Images, Warnings: e.Warnings,
		UnmatchedAttributes: e.UnmatchedAttributes, UnmatchedSystems: e.UnmatchedSystems})
	if err == nil {
		err = e.query.Cache.Save(e.reuse.key, text)
	}
	if err != nil {
		err = fmt.Errorf("plan-cache: the evaluation is not kept: %w", err)
	}
	return attrs, err
}

// mentionsCommit says whether the flake's repository has a Nix file that may read the commit, its time or its number.
func (n *Nix) mentionsCommit(ctx context.Context, e *Evaluation) bool {
	env, remove, err := n.trustRepository(e.Flake.Ref)
	if err != nil {
		return false
	}
	defer remove()
	work, err := n.worktree(ctx, e.Flake.Ref, env)
	if err != nil {
		return false
	}
	_, err = work.git(ctx, "grep", "-q", "-E", `[.](rev|shortRev|lastModified|lastModifiedDate|revCount)([^A-Za-z0-9_]|$)|sourceInfo|inherit *\([^)]*self[^)]*\)`, "--", ":/*.nix")
	return err == nil
}

// embedCommit evaluates the images once more, as if the source were of another commit and time: a path in the store has the time that
// all files there have. known is false when that was not possible: Nix 2.8 knows no folder below a path.
func (n *Nix) embedCommit(ctx context.Context, e *Evaluation) (attrs []string, known bool) {
	params := url.Values{"rev": {strings.Repeat("f", 39) + "e"}, "revCount": {"1"}}
	if e.src.dir != "" {
		params.Set("dir", e.src.dir)
	}
	src, err := n.flake(ctx, "path:"+e.src.path+"?"+params.Encode(), nil)
	if err != nil {
		return nil, false
	}
	want := map[string]string{}
	var asked []attribute
	for _, img := range e.Images {
		at, err := parseAttr(img.Attr)
		if err != nil {
			return nil, false
		}
		asked = append(asked, at)
		want[img.Attr] = img.DrvPath
	}
	again := newEvaluation(&evaluator{nix: n, src: src, readOnly: e.readOnly}, e.query.Options)
	if err := again.these(ctx, asked); ctx.Err() != nil || err != nil && again.fatal != nil {
		return nil, false
	}
	for _, raw := range again.images {
		if at := raw.attr.String(); want[at] == raw.Drv {
			delete(want, at)
		}
	}
	for _, img := range e.Images {
		if want[img.Attr] != "" {
			attrs = append(attrs, img.Attr)
		}
	}
	return attrs, true
}

// lockedBy says whether a flake.lock, if there is one, names all that the flake was evaluated with.
func lockedBy(locks json.RawMessage, file string) bool {
	var used, written struct{ Nodes map[string]any }
	if json.Unmarshal(locks, &used) != nil {
		return false
	}
	if file == "" {
		return len(used.Nodes) <= 1 // the flake itself
	}
	return json.Unmarshal([]byte(file), &written) == nil && reflect.DeepEqual(used.Nodes, written.Nodes)
}

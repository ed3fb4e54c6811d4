// Package report draws one pipeline run as a page: what each image needed and why, what was built and pushed, what runs now.
//
// A report is one HTML file without external assets. It carries the hand-over documents it was drawn from, so each step adds its
// own to the file of the step before it:
//
//	err := report.Add("report.html", plan, run)   // nix-cache-check begins a report
//	err := report.Add("report.html", built, run)  // nix-build-images adds to it
package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/flakeship/flakeship/internal/handoff"
)

// Run is the workflow run a report is about. All fields may be empty.
type Run struct {
	Repository string `json:"repository,omitempty"` // owner/name
	Server     string `json:"server,omitempty"`     // URL of the forge
	ID         string `json:"id,omitempty"`         // of the run, for a link to its log
	Ref        string `json:"ref,omitempty"`        // branch or tag
}

// Pipeline is what is known of a run so far. A step that did not run, or has not yet, has no document.
type Pipeline struct {
	Run    Run
	Commit string
	Plan   *handoff.Plan
	Builds []*handoff.BuildResult // one, or one per shard
	Push   *handoff.PushResult
	Deploy *handoff.DeployResult
}

// ErrForeign is when the file at a report's path is something else. It is left alone.
var ErrForeign = errors.New("is no report of flakeship, and is not overwritten")

// Add draws the report at path anew with a document of the next step. A Plan begins a new one; so does a document of another
// commit than the report is about. Two steps must not add to one report at the same time.
func Add(path string, doc handoff.Document, run Run) error {
	p, err := read(path)
	if err != nil {
		return fmt.Errorf("report %s: %w", path, err)
	}
	h := header(doc)
	if h.Kind == handoff.KindPlan || p.Commit != h.Commit {
		p = Pipeline{}
	}
	p.Run = run
	p.Put(doc)
	var page bytes.Buffer
	if err := p.HTML(&page); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temp := path + ".new" // a killed step leaves the old report or the new one
	if err := os.WriteFile(temp, page.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// Put adds a document of a step.
func (p *Pipeline) Put(doc handoff.Document) {
	p.Commit = header(doc).Commit
	switch doc := doc.(type) {
	case *handoff.Plan:
		p.Plan = doc
	case *handoff.BuildResult:
		// A step that is run again replaces what it said before.
		p.Builds = slices.DeleteFunc(p.Builds, func(b *handoff.BuildResult) bool { return b.Shard == doc.Shard })
		p.Builds = append(p.Builds, doc)
		slices.SortFunc(p.Builds, func(a, b *handoff.BuildResult) int { return cmp.Compare(a.Shard, b.Shard) })
	case *handoff.PushResult:
		p.Push = doc
	case *handoff.DeployResult:
		p.Deploy = doc
	}
}

// data is how a page carries a document: on a line of its own, in JSON that has no "<".
var data = regexp.MustCompile(`(?m)^<script type="application/json" class="flakeship-([a-z-]+)">(.*)</script>$`)

// read takes the documents out of a report. No file is an empty pipeline.
func read(path string) (Pipeline, error) {
	page, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Pipeline{}, nil
	}
	if err != nil {
		return Pipeline{}, err
	}
	return parse(page)
}

func parse(page []byte) (Pipeline, error) {
	var p Pipeline
	found := data.FindAllSubmatch(page, -1)
	if len(found) == 0 {
		return p, ErrForeign
	}
	for _, m := range found {
		doc := document(handoff.Kind(m[1]))
		if doc == nil {
			return p, ErrForeign
		}
		if err := json.Unmarshal(m[2], doc); err != nil {
			return p, ErrForeign
		}
		p.Put(doc)
	}
	return p, nil
}

// document is an empty one of a kind; nil when there is no such kind.
func document(kind handoff.Kind) handoff.Document {
	switch kind {
	case handoff.KindPlan:
		return new(handoff.Plan)
	case handoff.KindBuildResult:
		return new(handoff.BuildResult)
	case handoff.KindPushResult:
		return new(handoff.PushResult)
	case handoff.KindDeployResult:
		return new(handoff.DeployResult)
	}
	return nil
}

// Load adds the document of a kind at path, as a step of the same run wrote it. One that cannot be read is left out: the step that
// needs it says so.
func (p *Pipeline) Load(kind handoff.Kind, path string) {
	if doc := document(kind); doc != nil && path != "" && handoff.Load(path, doc) == nil {
		p.Put(doc)
	}
}

func header(doc handoff.Document) handoff.Header {
	switch doc := doc.(type) {
	case *handoff.Plan:
		return doc.Header
	case *handoff.BuildResult:
		return doc.Header
	case *handoff.PushResult:
		return doc.Header
	case *handoff.DeployResult:
		return doc.Header
	}
	return handoff.Header{}
}

// documents are those there are, in the order of the steps.
func (p *Pipeline) documents() (docs []handoff.Document) {
	if p.Plan != nil {
		docs = append(docs, p.Plan)
	}
	for _, b := range p.Builds {
		docs = append(docs, b)
	}
	if p.Push != nil {
		docs = append(docs, p.Push)
	}
	if p.Deploy != nil {
		docs = append(docs, p.Deploy)
	}
	return docs
}

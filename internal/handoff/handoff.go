// Package handoff is the data one flakeship step gives the next.
//
// Each step writes one JSON document: nix-cache-check a Plan, nix-build-images a BuildResult, push-images a PushResult,
// deploy-manifests a DeployResult. Documents are versioned, sealed with their own digest, and chained: each names the
// digest of the one it was made from. So a document of another version, one that was edited by hand and one that
// belongs to another commit are refused in a sentence, not discovered in production.
//
// The package imports the standard library only, and every step imports it.
package handoff

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Version is the shape of the documents this build writes and the only one it reads.
const Version = 1

// Kind names a document; it is also the name of the input and output that carries it.
type Kind string

// The four documents, in the order they are made.
const (
	KindPlan         Kind = "plan"
	KindBuildResult  Kind = "build-result"
	KindPushResult   Kind = "push-result"
	KindDeployResult Kind = "deploy-result"
)

// Writer is the step that writes documents of this kind, as users know it.
func (k Kind) Writer() string {
	switch k {
	case KindPlan:
		return "nix-cache-check"
	case KindBuildResult:
		return "nix-build-images"
	case KindPushResult:
		return "push-images"
	case KindDeployResult:
		return "deploy-manifests"
	}
	return string(k)
}

// Header opens every document.
type Header struct {
	Kind     Kind     `json:"kind"`               // plan, build-result, push-result or deploy-result
	Version  int      `json:"version"`            // shape of the document
	Commit   string   `json:"commit"`             // 40 hex digits of the source revision; empty when the tree was dirty or is no git tree
	Previous []string `json:"previous,omitempty"` // digests of the documents this one was made from; a PushResult joins several BuildResults
	Digest   string   `json:"digest"`             // "sha256:..." of this document with an empty digest, in compact form
}

func (h *Header) header() *Header { return h }

// Document is one of *Plan, *BuildResult, *PushResult, *DeployResult.
type Document interface {
	header() *Header
	kind() Kind
}

// Errors a caller can tell apart. All are wrapped in a *DocumentError.
var (
	ErrUnreadable = errors.New("cannot be read")                              // no such file, or no JSON document of this kind
	ErrVersion    = errors.New("was written by another version of flakeship") // the reader does not know this shape
	ErrChanged    = errors.New("was changed after it was written")            // the seal does not match
	ErrMismatch   = errors.New("do not belong together")                      // documents of different commits or plans
)

// DocumentError says which document is unusable and why.
type DocumentError struct {
	Kind   Kind
	Source string // path, or "given as JSON"
	Reason error  // one of the Err values above
	Detail string
}

func (e *DocumentError) Error() string {
	s := fmt.Sprintf("%s %s %v", e.Kind, e.Source, e.Reason)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

func (e *DocumentError) Unwrap() error { return e.Reason }

// Seal fills kind, version and digest and returns the document in compact form: one line, no final newline.
func Seal(d Document) ([]byte, error) {
	h := d.header()
	h.Kind, h.Version, h.Digest = d.kind(), Version, ""
	digest, err := digestOf(d)
	if err != nil {
		return nil, err
	}
	h.Digest = digest
	return json.Marshal(d)
}

// digestOf marshals d as it stands; callers empty the digest first.
func digestOf(d Document) (string, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return "", fmt.Errorf("encode %s: %w", d.kind(), err)
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// WriteFile seals d and writes it, indented, to path. The file appears whole or not at all; missing parent folders are
// made. It returns the compact form.
func WriteFile(path string, d Document) ([]byte, error) {
	compact, err := Seal(d)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, compact, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("write %s: %w", d.kind(), err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", d.kind(), err)
	}
	defer os.Remove(tmp.Name()) // after the rename there is nothing left to remove
	_, err = tmp.Write(b.Bytes())
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", d.kind(), err)
	}
	return compact, nil
}

// maxDocument bounds what is read into memory: 10,000 images with 1 kB each are a tenth of it.
const maxDocument = 128 << 20

// Load reads a document into d from pathOrText, the value of an input: the JSON itself when it starts with "{", the same as
// Pack writes it, or a path.
//
// Errors: *DocumentError, wrapping ErrUnreadable, ErrVersion or ErrChanged.
func Load(pathOrText string, d Document) error {
	if text, source, err := inline(pathOrText); err != nil {
		return &DocumentError{d.kind(), source, ErrUnreadable, err.Error()}
	} else if source != "" {
		return Parse(text, source, d)
	}
	f, err := os.Open(pathOrText)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return &DocumentError{d.kind(), pathOrText, ErrUnreadable, err.Error()}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err == nil && len(b) > maxDocument {
		err = fmt.Errorf("more than %d MiB", maxDocument>>20)
	}
	if err != nil {
		return &DocumentError{d.kind(), pathOrText, ErrUnreadable, err.Error()}
	}
	return Parse(b, pathOrText, d)
}

// Parse reads a document from text into d and checks kind, version and seal. source names it in errors.
// Reformatting the JSON does not break the seal; any other change does.
func Parse(text []byte, source string, d Document) error {
	fail := func(reason error, detail string) error {
		return &DocumentError{d.kind(), source, reason, detail}
	}
	var h Header
	if err := json.Unmarshal(text, &h); err != nil {
		return fail(ErrUnreadable, "no JSON document: "+err.Error())
	}
	if h.Kind != d.kind() {
		if h.Kind == "" {
			return fail(ErrUnreadable, `no flakeship document: "kind" is missing`)
		}
		return fail(ErrUnreadable, fmt.Sprintf("this is a %s, as %s writes it", h.Kind, h.Kind.Writer()))
	}
	if h.Version != Version {
		return fail(ErrVersion, fmt.Sprintf("it has version %d, this build reads %d", h.Version, Version))
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields() // an unknown field would fall out of the seal
	if err := dec.Decode(d); err != nil {
		return fail(ErrChanged, err.Error())
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fail(ErrChanged, "text follows the document")
	}
	head := d.header()
	want := head.Digest
	head.Digest = ""
	got, err := digestOf(d)
	head.Digest = want
	if err != nil {
		return fail(ErrUnreadable, err.Error())
	}
	if got != want {
		return fail(ErrChanged, fmt.Sprintf("it says %.19s…, its content has %.19s…", want, got))
	}
	return nil
}

// SameSource refuses results that stem from different commits: their images must not be deployed together. It names the first
// two that differ.
func SameSource[D Document](results []D) error {
	for _, r := range results[min(1, len(results)):] {
		if a, b := results[0].header(), r.header(); a.Commit != b.Commit {
			return &DocumentError{r.kind(), "files", ErrMismatch,
				fmt.Sprintf("%.19s… is of commit %s, %.19s… of %s", a.Digest, orDirty(a.Commit), b.Digest, orDirty(b.Commit))}
		}
	}
	return nil
}

// MissingParts returns the parts, as "2/4", that are not among those of the same plan.
func MissingParts(parts []Part) []string {
	have := map[Part]bool{}
	for _, p := range parts {
		have[p] = true
	}
	var missing []string
	for _, p := range parts {
		for shard := 1; shard <= p.Shards; shard++ {
			if other := (Part{p.Plan, shard, p.Shards}); !have[other] {
				have[other] = true // named once
				missing = append(missing, fmt.Sprintf("%d/%d", shard, p.Shards))
			}
		}
	}
	return missing
}

func orDirty(commit string) string {
	if commit == "" {
		return "no commit"
	}
	return commit
}

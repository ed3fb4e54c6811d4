package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/attest"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/push"
)

// attester says what is kept beside each image.
type attester struct {
	key      *attest.Key // nil: nothing is signed
	kinds    []string    // of attestations: provenance, sbom
	builds   map[string]attest.Build
	closures map[string]handoff.StorePath // what is known of store paths
	merged   map[string][]string          // store paths whose files an archive has in its root, by image
}

// unsignedError is an image that is to be signed and must not be: nobody knows here what it is.
type unsignedError struct{ reference string }

func (e *unsignedError) Error() string {
	return e.reference + " has no signature of this key, and was not looked at here: it was in the registry before"
}

// readAttester reads what is to be attested, and with which key. It is nil when nothing is.
func readAttester(env *action.Env, results []*handoff.BuildResult) (*attester, error) {
	a := &attester{kinds: slices.DeleteFunc(env.List("attest"), func(kind string) bool { return kind == "none" })}
	var errs []error
	for _, kind := range a.kinds {
		if kind != "provenance" && kind != "sbom" {
			errs = append(errs, fmt.Errorf("input attest: %q is none of provenance, sbom, none", kind))
		}
	}
	var err error
	if a.key, err = readKey(env); err != nil {
		errs = append(errs, fmt.Errorf("input signing-key: %w", err))
	}
	if slices.Contains(a.kinds, "provenance") {
		a.builds = builds(env, results)
		if len(env.List("image")) > 0 {
			errs = append(errs, errors.New("input attest: nothing is known of where the images of the input image come from, so they can have no provenance"))
		}
	}
	if slices.Contains(a.kinds, "sbom") {
		if a.closures, a.merged, err = readClosures(results); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil || a.key == nil && len(a.kinds) == 0 {
		return nil, err
	}
	return a, nil
}

// readKey reads the signing key, which is given as a path or as PEM.
func readKey(env *action.Env) (*attest.Key, error) {
	text := []byte(env.Text("signing-key"))
	if len(text) == 0 {
		return nil, nil
	}
	if !strings.Contains(string(text), "-----BEGIN") {
		var err error
		if text, err = os.ReadFile(string(text)); err != nil {
			return nil, errors.New("it is neither a key in PEM form nor the path of a file that can be read")
		}
	}
	return attest.ParseKey(text, []byte(env.Getenv("COSIGN_PASSWORD")))
}

// The kinds of attachments, as cosign calls them.
const (
	signatures   = "sig"
	attestations = "att"
)

// attachments says what is to be beside a manifest.
func (a *attester) attachments(_ context.Context, s push.Subject) ([]push.Attachment, error) {
	var all []push.Attachment
	subject := attest.Subject{Repository: strings.TrimPrefix(s.Repository, layoutHost+"/"), Digest: s.Digest}
	if a.key != nil {
		all = append(all, push.Attachment{
			Kind: signatures, ArtifactType: "application/vnd.dev.cosign.artifact.sig.v1+json", Entries: []push.Entry{a.signature(subject, s)},
		})
	}
	if s.Content == nil {
		return all, nil // what is attested was so when the image was pushed; an index is the sum of its images
	}
	statements := push.Attachment{Kind: attestations, ArtifactType: attest.EnvelopeType}
	for _, kind := range a.kinds {
		predicateType := map[string]string{"provenance": attest.ProvenanceType, "sbom": attest.SPDXType}[kind]
		statements.Entries = append(statements.Entries, push.Entry{
			Is: func(d v1.Descriptor) bool {
				return d.Annotations[attest.PredicateTypeAnnotation] == predicateType && d.Annotations[keyAnnotation] == a.key.ID()
			},
			Make: func() (push.Attached, error) { return a.attestation(subject, predicateType, s) },
		})
	}
	if len(statements.Entries) > 0 {
		all = append(all, statements)
	}
	return all, nil
}

// keyAnnotation says which key an attestation is signed with; none, when it is not.
const keyAnnotation = "dev.flakeship.key"

func (a *attester) signature(subject attest.Subject, s push.Subject) push.Entry {
	payload := attest.Payload(subject)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(payload))
	return push.Entry{
		Is: func(d v1.Descriptor) bool {
			return d.Digest.String() == digest && a.key.Verify(payload, d.Annotations[attest.SignatureAnnotation])
		},
		Make: func() (push.Attached, error) {
			if s.Content == nil && !s.Index {
				return push.Attached{}, &unsignedError{s.Repository + "@" + s.Digest}
			}
			signature, err := a.key.Sign(payload)
			return push.Attached{
				MediaType: attest.SignatureType, Content: payload, Annotations: map[string]string{attest.SignatureAnnotation: signature},
			}, err
		},
	}
}

// attestation makes what is attested of an image: an envelope that is signed, or the bare statement when there is no key.
func (a *attester) attestation(subject attest.Subject, predicateType string, s push.Subject) (push.Attached, error) {
	var predicate any
	switch predicateType {
	case attest.ProvenanceType:
		predicate = attest.Provenance(a.builds[buildKey(s.Image.Name, s.Image.System)])
	default:
		paths, gaps, err := a.contents(s)
		if err != nil {
			return push.Attached{}, err
		}
		predicate = attest.SPDX(subject, action.Version, paths, gaps, time.Now())
	}
	made := push.Attached{
		MediaType:   attest.StatementType,
		Content:     attest.Statement(subject, predicateType, predicate),
		Annotations: map[string]string{attest.PredicateTypeAnnotation: predicateType, "in-toto.io/predicate-type": predicateType},
	}
	if a.key == nil {
		return made, nil
	}
	var err error
	made.MediaType = types.MediaType(attest.EnvelopeType)
	made.Annotations[attest.SignatureAnnotation] = "" // it is inside; cosign wants the annotation nonetheless
	made.Annotations[keyAnnotation] = a.key.ID()
	made.Content, err = a.key.Envelope(made.Content)
	return made, err
}

func buildKey(name, system string) string { return name + " " + system }

// builds says how the images of the BuildResults came to be.
func builds(env *action.Env, results []*handoff.BuildResult) map[string]attest.Build {
	server, repository := env.Getenv("GITHUB_SERVER_URL"), env.Getenv("GITHUB_REPOSITORY")
	builder, run := "https://github.com/flakeship/flakeship/blob/main/docs/attestations.md#outside-of-a-workflow", ""
	if server != "" && repository != "" {
		builder = server + "/" + cmp.Or(env.Getenv("GITHUB_WORKFLOW_REF"), repository)
		run = fmt.Sprintf("%s/%s/actions/runs/%s/attempts/%s", server, repository, env.Getenv("GITHUB_RUN_ID"), cmp.Or(env.Getenv("GITHUB_RUN_ATTEMPT"), "1"))
	}
	all := map[string]attest.Build{}
	for _, r := range results {
		var inputs []attest.Input
		flake := handoff.Flake{}
		if r.Flake != nil {
			flake = *r.Flake
		}
		inputs = append(inputs, attest.Input{Name: "source", URI: cmp.Or(flake.Locked, flake.Ref), Commit: r.Commit, NarHash: flake.NarHash})
		for _, in := range flake.Inputs {
			inputs = append(inputs, attest.Input{Name: in.Name, URI: in.URI, Commit: in.Rev, NarHash: in.NarHash})
		}
		for _, b := range r.Images {
			all[buildKey(b.Name, b.System)] = attest.Build{
				Flake: cmp.Or(flake.Locked, flake.Ref), Attribute: b.Attr, System: b.System, Derivation: b.DrvPath, Output: b.OutPath,
				Inputs: inputs, Builder: builder, Version: action.Version, Run: run,
			}
		}
	}
	return all
}

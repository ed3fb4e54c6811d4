package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/registry"
)

// Subject is an image or index that is in the registry, or about to be: its attachments are written before its tag.
type Subject struct {
	Repository string // with the registry's host
	Digest     string // of its manifest
	Image      Image  // as it was given; of an index, the first
	Index      bool

	// Content is the image on disk, whose layers were all checked in this run against what the digest stands for. Nil for an
	// image that is Present: nobody looked inside. An index has none either; its images had their own turn.
	Content *image.Image
}

// Attachment is something kept beside an image: its signatures, or what is attested of it. As cosign does, all of a kind is in
// one manifest at the tag sha256-<digest>.<kind>; the manifest also names the image as its subject, so that the registry, or
// the tag sha256-<digest> of one that does not know referrers, lists it.
type Attachment struct {
	Kind         string // end of the tag
	ArtifactType string // for the list of referrers
	Entries      []Entry
}

// Entry is one layer of an attachment. What else an attachment has stays.
type Entry struct {
	Is   func(v1.Descriptor) bool // says whether a layer that is there already is this one
	Make func() (Attached, error)
}

// Attached is the content of an Entry.
type Attached struct {
	MediaType   types.MediaType
	Content     []byte
	Annotations map[string]string
}

// emptyJSON is the config of a manifest that is no image, as OCI has it.
var emptyJSON = []byte("{}")

// attach writes what Options.Attach wants to be beside a manifest, of a member or of its group, and is not.
func (r *run) attach(ctx context.Context, m *member, manifest registry.Manifest, s Subject) error {
	if r.Attach == nil {
		return nil
	}
	s.Repository, s.Digest = m.repo.String(), manifest.Digest
	attachments, err := r.Attach(ctx, s)
	if err != nil {
		return err
	}
	for _, a := range attachments {
		if err := r.attachOne(ctx, m, manifest, a); err != nil {
			return fmt.Errorf("attach %s: %w", a.Kind, err)
		}
	}
	return nil
}

// referrersTag is the tag of the list of what refers to a manifest, where the registry keeps none; those of attachments begin so.
func referrersTag(digest string) string { return strings.Replace(digest, ":", "-", 1) }

func (r *run) attachOne(ctx context.Context, m *member, manifest registry.Manifest, a Attachment) error {
	referrers := referrersTag(manifest.Digest)
	tag := referrers + "." + a.Kind
	layers, old, err := attached(ctx, m.repo, tag)
	if err != nil {
		return err
	}
	before := len(layers)
	for _, entry := range a.Entries {
		if slices.ContainsFunc(layers, entry.Is) {
			continue
		}
		made, err := entry.Make()
		if err != nil {
			return err
		}
		d, err := r.putBlob(ctx, m, made.MediaType, made.Content)
		if err != nil {
			return err
		}
		d.Annotations = made.Annotations
		layers = append(layers, d)
	}
	if len(layers) == before {
		return nil
	}
	config, err := r.putBlob(ctx, m, "application/vnd.oci.empty.v1+json", emptyJSON)
	if err != nil {
		return err
	}
	subject, err := descriptorOf(manifest)
	if err != nil {
		return err
	}
	text, err := json.Marshal(struct {
		v1.Manifest
		ArtifactType string `json:"artifactType"`
	}{v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: layers, Subject: &subject,
	}, a.ArtifactType})
	if err != nil {
		return err
	}
	// The tag comes last: as long as it is not there, the next run begins anew.
	attachment := registry.Manifest{Bytes: text, MediaType: types.OCIManifestSchema1, Digest: digestOf(text)}
	header, err := sendManifest(ctx, m.repo, attachment.Digest, attachment.MediaType, text)
	if err != nil {
		return err
	}
	if header.Get("OCI-Subject") == "" {
		if err := refer(ctx, m.repo, referrers, attachment, a.ArtifactType, old); err != nil {
			return err
		}
	}
	m.addSent(int64(len(text)))
	return putManifest(ctx, m.repo, tag, attachment.MediaType, text)
}

// attached lists the layers of the attachment at a tag, and its digest; none when there is none.
func attached(ctx context.Context, repo *repository, tag string) (layers []v1.Descriptor, digest string, err error) {
	m, err := repo.Manifest(ctx, tag)
	if errors.Is(err, registry.ErrAbsent) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	parsed, err := v1.ParseManifest(bytes.NewReader(m.Bytes))
	if err != nil {
		return nil, "", fmt.Errorf("what is at tag %s: %w", tag, err)
	}
	return parsed.Layers, m.Digest, nil
}

// refer puts an attachment in the place of an old one on the list of referrers that is a tag, for a registry that keeps no
// list by itself.
func refer(ctx context.Context, repo *repository, tag string, m registry.Manifest, artifactType, old string) error {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	switch list, err := repo.Manifest(ctx, tag); {
	case err == nil:
		parsed, err := v1.ParseIndexManifest(bytes.NewReader(list.Bytes))
		if err != nil {
			return fmt.Errorf("what is at tag %s: %w", tag, err)
		}
		index = *parsed
	case !errors.Is(err, registry.ErrAbsent):
		return err
	}
	d, err := descriptorOf(m)
	if err != nil {
		return err
	}
	d.ArtifactType = artifactType
	index.Manifests = slices.DeleteFunc(index.Manifests, func(other v1.Descriptor) bool {
		return other.Digest == d.Digest || other.Digest.String() == old
	})
	index.Manifests = append(index.Manifests, d)
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return putManifest(ctx, repo, tag, types.OCIImageIndex, text)
}

// putBlob sends a small blob unless it is there.
func (r *run) putBlob(ctx context.Context, m *member, mediaType types.MediaType, content []byte) (v1.Descriptor, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		return v1.Descriptor{}, err
	}
	d := v1.Descriptor{MediaType: mediaType, Digest: digest, Size: size}
	_, err = r.sendBlob(ctx, m, nil, d, func() io.Reader { return bytes.NewReader(content) })
	return d, err
}

func descriptorOf(m registry.Manifest) (v1.Descriptor, error) {
	digest, err := v1.NewHash(m.Digest)
	return v1.Descriptor{MediaType: m.MediaType, Digest: digest, Size: int64(len(m.Bytes))}, err
}

func digestOf(b []byte) string {
	digest, _, _ := v1.SHA256(bytes.NewReader(b)) // reading memory does not fail
	return digest.String()
}

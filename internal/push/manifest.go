package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/registry"
)

// complete writes a member's config and manifest; its layers are there.
func (r *run) complete(ctx context.Context, m *member) error {
	err := r.writeImage(ctx, m)
	if answer := new(registry.StatusError); errors.As(err, &answer) &&
		(answer.Has(transport.ManifestBlobUnknownErrorCode) || answer.Has(transport.BlobUnknownErrorCode)) {
		// The registry collected a layer that a manifest of its own still names.
		if err := r.repair(ctx, m); err != nil {
			return err
		}
		r.known.forgetBlobs(m.repo.Path()) // the config is small: it is sent, not asked for
		return r.writeImage(ctx, m)
	}
	return err
}

func (r *run) writeImage(ctx context.Context, m *member) error {
	config, err := m.config()
	if err != nil {
		return err
	}
	digest, size, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		return err
	}
	if !r.known.hasBlob(m.repo.Path(), digest.String()) {
		body := func() io.Reader { return bytes.NewReader(config) }
		if err := r.upload(ctx, m, nil, digest.String(), size, body); err != nil {
			return fmt.Errorf("config: %w", err)
		}
		r.known.setBlob(m.repo.Path(), digest.String())
	}
	manifest := r.Format.manifest(v1.Descriptor{Digest: digest, Size: size}, m)
	manifest.Annotations = r.annotations(m)
	text, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	sum, _, err := v1.SHA256(bytes.NewReader(text))
	if err != nil {
		return err
	}
	m.manifest = registry.Manifest{Bytes: text, MediaType: r.Format.types().manifest, Digest: sum.String()}
	if err := r.attach(ctx, m, m.manifest, Subject{Image: m.Image, Content: m.image}); err != nil {
		return err
	}
	if at, ok := r.known.tag(m.repo.String() + ":" + m.Tag); ok && at == m.manifest.Digest {
		m.same = true // it took the layers' bytes to see it
		return nil
	}
	if err := r.write(ctx, m.repo, m.Tag, m.manifest); err != nil {
		return err
	}
	m.addSent(int64(len(text)))
	return nil
}

// annotations are those of a member's manifest: what its file brings, and on top what Options has. Docker's format has none.
func (r *run) annotations(m *member) map[string]string {
	if r.Format == Docker || len(m.image.Annotations)+len(r.Annotations) == 0 {
		return nil
	}
	all := map[string]string{}
	maps.Copy(all, m.image.Annotations)
	maps.Copy(all, r.Annotations)
	return all
}

// write puts a manifest or index to a tag. A tag that must not move may be where it should be already: some registries
// refuse even that.
func (r *run) write(ctx context.Context, repo *repository, tag string, m registry.Manifest) error {
	if err := putManifest(ctx, repo, tag, m.MediaType, m.Bytes); err != nil {
		if !mayBeKept(err) {
			return err
		}
		at, headErr := repo.Head(ctx, tag)
		if headErr != nil {
			return err
		}
		if at != m.Digest {
			return &TagError{repo.String() + ":" + tag, at, err}
		}
	}
	r.known.setTag(repo.String()+":"+tag, m.Digest)
	return nil
}

// leave is called once for each member, when it is in the registry or has failed. The last of a group settles what the
// group has become.
func (r *run) leave(ctx context.Context, m *member) {
	g := m.group
	if g.missing.Add(-1) > 0 {
		return
	}
	if g.err = r.settle(ctx, g); g.err != nil {
		g.result.Error = strings.ReplaceAll(g.err.Error(), "\n", "; ") // of several systems, each has its own
	}
	r.Progress.ImagesDone.Add(1)
	r.doneMu.Lock()
	defer r.doneMu.Unlock()
	if ctx.Err() == nil {
		r.Done(g.result, time.Since(g.start))
	}
}

// settle fills in a group's result; of several members it makes an index.
func (r *run) settle(ctx context.Context, g *group) error {
	same := true
	g.result.Systems = []string{}
	var errs []error
	for _, m := range g.members {
		m.count(&g.result.Layers)
		if m.System != "" { // an image that could not be opened may have had none
			g.result.Systems = append(g.result.Systems, m.System)
		}
		g.result.Uploaded += m.sent
		same = same && m.same
		if err := m.failed(); err != nil {
			if len(g.members) > 1 {
				err = fmt.Errorf("%s: %w", m.System, err)
			}
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	g.manifest = g.members[0].manifest
	if len(g.members) > 1 {
		written, err := r.writeIndex(ctx, g)
		if err != nil {
			return fmt.Errorf("index: %w", err)
		}
		same = same && !written
	}
	g.result.State, g.result.Error = handoff.PushUploaded, ""
	if same {
		g.result.State = handoff.PushUnchanged
	}
	g.result.Digest, g.result.MediaType = g.manifest.Digest, string(g.manifest.MediaType)
	g.result.Tags = []string{g.tag}
	return nil
}

// writeIndex joins a group's images unless the registry has their index.
func (r *run) writeIndex(ctx context.Context, g *group) (written bool, err error) {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: r.Format.types().index, Annotations: r.Annotations}
	for _, m := range g.members {
		if err := m.read(ctx); err != nil {
			return false, err
		}
		digest, err := v1.NewHash(m.manifest.Digest)
		if err != nil {
			return false, err
		}
		platform := platformOf(m.System)
		if m.image != nil {
			platform = m.image.Platform
		}
		if slices.ContainsFunc(index.Manifests, func(d v1.Descriptor) bool { return d.Platform.Equals(platform) }) {
			return false, &NameError{fmt.Sprintf("image %q", g.name), fmt.Errorf("it is there twice for %s", platform)}
		}
		index.Manifests = append(index.Manifests, v1.Descriptor{
			MediaType: m.manifest.MediaType, Digest: digest, Size: int64(len(m.manifest.Bytes)), Platform: &platform,
		})
	}
	text, err := json.Marshal(index)
	if err != nil {
		return false, err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(text))
	if err != nil {
		return false, err
	}
	g.manifest = registry.Manifest{Bytes: text, MediaType: index.MediaType, Digest: digest.String()}
	first := g.members[0]
	before := first.sent
	if err := r.attach(ctx, first, g.manifest, Subject{Image: first.Image, Index: true}); err != nil {
		return false, err
	}
	g.result.Uploaded += first.sent - before
	if there, err := r.tagged(ctx, g, g.tag); there || err != nil {
		return false, err
	}
	if err := r.write(ctx, g.repo, g.tag, g.manifest); err != nil {
		return false, err
	}
	g.result.Uploaded += int64(len(text))
	return true, nil
}

// read fetches the manifest of a member that was only asked for.
func (m *member) read(ctx context.Context) (err error) {
	if m.manifest.Bytes == nil {
		m.manifest, err = m.repo.Manifest(ctx, m.manifest.Digest)
	}
	return err
}

// architectures are those that Nix and OCI call by different names. OCI's has a variant behind a slash.
var architectures = map[string]string{
	"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm/v7", "armv6l": "arm/v6", "powerpc64le": "ppc64le",
}

// platformOf is the OCI platform of a Nix system.
func platformOf(system string) v1.Platform {
	arch, os, _ := strings.Cut(system, "-")
	if oci, ok := architectures[arch]; ok {
		arch = oci
	}
	p := v1.Platform{OS: os}
	p.Architecture, p.Variant, _ = strings.Cut(arch, "/")
	return p
}

// systemOf is the Nix system of an OCI platform. Nix knows no variants of arm64.
func systemOf(p v1.Platform) string {
	for arch, oci := range architectures {
		if oci == p.Architecture || oci == p.Architecture+"/"+p.Variant {
			return arch + "-" + p.OS
		}
	}
	return p.Architecture + "-" + p.OS
}

// tagged says whether a tag points at the group's manifest.
func (r *run) tagged(ctx context.Context, g *group, tag string) (bool, error) {
	digest, known := r.known.tag(g.repo.String() + ":" + tag)
	if !known {
		var err error
		if digest, err = g.repo.Head(ctx, tag); err != nil && !errors.Is(err, registry.ErrAbsent) {
			return false, err
		}
	}
	return digest == g.manifest.Digest, nil
}

// moveTags points the shared tags, and those the images ask for, at what was pushed. It happens after all images are in, and
// only then: who deploys a tag gets images of one commit.
func (r *run) moveTags(ctx context.Context, groups []*group) {
	if ctx.Err() != nil || slices.ContainsFunc(groups, func(g *group) bool { return g.err != nil }) {
		return
	}
	each(ctx, groups, func(g *group) {
		if g.err = r.moveTagsOf(ctx, g); g.err != nil {
			g.result.State, g.result.Error = handoff.PushFailed, g.err.Error()
		}
	})
}

func (r *run) moveTagsOf(ctx context.Context, g *group) error {
	var tags []string
	for _, m := range g.members {
		if m.ImageTag != "" {
			tags = append(tags, m.ImageTag)
		}
	}
	for _, tag := range append(tags, r.Tags...) {
		if slices.Contains(g.result.Tags, tag) {
			continue
		}
		there, err := r.tagged(ctx, g, tag)
		if err != nil {
			return fmt.Errorf("tag %s: %w", tag, err)
		}
		if !there {
			if g.manifest.Bytes == nil {
				if g.manifest, err = g.repo.Manifest(ctx, g.manifest.Digest); err != nil {
					return fmt.Errorf("tag %s: %w", tag, err)
				}
			}
			if err := r.write(ctx, g.repo, tag, g.manifest); err != nil {
				return fmt.Errorf("tag %s: %w", tag, err)
			}
			g.result.Uploaded += int64(len(g.manifest.Bytes))
		}
		g.result.Tags = append(g.result.Tags, tag)
	}
	return nil
}

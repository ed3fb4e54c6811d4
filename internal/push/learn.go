package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/streamconf"
)

// maxSampled is how many tags of a repository are read when none of those asked for is there.
const maxSampled = 8

// prepare opens a member's image and learns from its repository; it finds out whether the image is there already.
func (r *run) prepare(ctx context.Context, m *member) error {
	if m.Missing != "" {
		return &MissingError{m.Missing}
	}
	if m.Present {
		return r.confirm(ctx, m)
	}
	var err error
	if m.image, err = r.open(ctx, m.Image); err != nil {
		return err
	}
	if m.System == "" {
		m.System = systemOf(m.image.Platform)
	}
	m.placed, m.how = make([]v1.Descriptor, len(m.image.Layers)), make([]how, len(m.image.Layers))
	if config, err := m.config(); err == nil {
		r.known.setConfig(config)
	}
	var found *learned
	if r.NoLearn {
		err = r.lookUp(ctx, m)
	} else {
		var early sync.WaitGroup
		for _, tag := range r.tagsToLookUp(m) {
			early.Go(func() { r.manifestAt(ctx, m.repo, tag) }) // kept, its error too
		}
		found, err = r.learn(ctx, m.repo, m.Tag, m.image.Platform)
		early.Wait()
	}
	denied := new(registry.DeniedError)
	switch {
	case errors.As(err, &denied):
		// Some registries say so of a repository that is yet to be made. Whether it can be written tells, and better now
		// than after the layers were compressed.
		return r.probe(ctx, m)
	case err != nil && !errors.Is(err, registry.ErrAbsent):
		return err
	case r.NoLearn && len(m.LayerTags) == 0:
		return nil
	}
	if found != nil && r.recognise(m, found) {
		if r.Verify {
			m.same, err = r.verified(ctx, m, found)
		}
		if m.same && err == nil {
			err = r.attach(ctx, m, m.manifest, Subject{Image: m.Image, Content: m.image})
		}
		if m.same || err != nil {
			return err
		}
	}
	return r.learnMore(ctx, m)
}

// open opens an image on disk; one that is a script is run when Options.Exec says so.
func (r *run) open(ctx context.Context, i Image) (*image.Image, error) {
	o := image.Options{Store: i.Store, Temp: r.Temp, Name: i.Name, Tags: []string{i.Tag, i.ImageTag}, Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	if i.System != "" {
		o.Platform = platformOf(i.System)
	}
	if !r.Exec {
		return image.Open(i.Path, o)
	}
	release, err := r.slot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return image.Exec(ctx, i.Path, o)
}

// lookUp asks which image is at a member's tag, and nothing of what it is made of.
func (r *run) lookUp(ctx context.Context, m *member) error {
	digest, err := m.repo.Head(ctx, m.Tag)
	if err == nil || errors.Is(err, registry.ErrAbsent) {
		r.known.setTag(m.repo.String()+":"+m.Tag, digest)
	}
	return err
}

// config is a member's image config, where it is known before any layer is written.
func (m *member) config() ([]byte, error) {
	var diffIDs []v1.Hash
	for _, l := range m.image.Layers {
		if l.DiffID == (v1.Hash{}) {
			return nil, fmt.Errorf("nobody knows the digest of layer %s yet", l.Name)
		}
		diffIDs = append(diffIDs, l.DiffID)
	}
	return m.image.Config(diffIDs)
}

// tagsToLookUp are those of which it will be asked whatever is at the member's own tag: an image that is there wants to know
// whether they point at it, another one what it can learn there. Asked at once, they cost no time.
func (r *run) tagsToLookUp(m *member) []string {
	var tags []string
	if m.ImageTag != "" {
		tags = append(tags, m.ImageTag)
	}
	for _, tag := range r.Tags {
		if slices.Contains(r.LearnTags, tag) && tag != m.ImageTag {
			tags = append(tags, tag)
		}
	}
	return tags
}

// manifestAt reads the manifest at a tag or digest. It asks once, whoever wants to know.
func (r *run) manifestAt(ctx context.Context, repo *repository, reference string) (registry.Manifest, error) {
	if strings.Contains(reference, ":") {
		return repo.Manifest(ctx, reference)
	}
	tag := repo.String() + ":" + reference
	at := r.known.lookup(tag)
	at.once.Do(func() {
		at.Manifest, at.err = repo.Manifest(ctx, reference)
		if at.err == nil || errors.Is(at.err, registry.ErrAbsent) {
			r.known.setTag(tag, at.Digest)
		}
	})
	return at.Manifest, at.err
}

// confirm checks that an image is in the registry, as an earlier step saw it.
func (r *run) confirm(ctx context.Context, m *member) error {
	at, reference := m.Tag, m.repo.String()+":"+m.Tag
	if m.Pinned {
		at, reference = m.Digest, m.repo.String()+"@"+m.Digest
	}
	d, err := m.repo.Describe(ctx, at)
	if errors.Is(err, registry.ErrAbsent) {
		return &StaleError{Reference: reference, Want: m.Digest}
	}
	if err != nil {
		return err
	}
	if m.Digest != "" && m.Digest != d.Digest {
		return &StaleError{reference, m.Digest, d.Digest}
	}
	m.same, m.manifest = true, registry.Manifest{Digest: d.Digest, MediaType: d.MediaType}
	if !m.Pinned {
		r.known.setTag(reference, d.Digest)
	}
	if r.Attach == nil {
		return nil
	}
	if err := m.read(ctx); err != nil {
		return err
	}
	return r.attach(ctx, m, m.manifest, Subject{Image: m.Image})
}

// learned is an image that is in the registry.
type learned struct {
	manifest registry.Manifest
	diffIDs  []v1.Hash
	config   []byte
	blobs    []string // digests of its layers

	annotations map[string]string
}

// learn reads the image at a tag or digest of repo and keeps what it says of layers. An index leads to the image for
// platform. What is there but no image, such as a signature, teaches nothing: nil, nil.
func (r *run) learn(ctx context.Context, repo *repository, reference string, platform v1.Platform) (*learned, error) {
	m, err := r.manifestAt(ctx, repo, reference)
	if err != nil {
		return nil, err
	}
	repo.exists.Store(true)
	if m.MediaType.IsIndex() {
		child, ok := childFor(m.Bytes, platform)
		if !ok {
			return nil, nil
		}
		if m, err = repo.Manifest(ctx, child); err != nil {
			return nil, err
		}
	}
	if !m.MediaType.IsImage() {
		return nil, nil
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(m.Bytes))
	if err != nil {
		return nil, fmt.Errorf("manifest of %s at %s: %w", repo, reference, err)
	}
	if manifest.Config.Size > registry.MaxConfig || !manifest.Config.MediaType.IsConfig() {
		return nil, nil
	}
	config, ok := r.known.config(manifest.Config.Digest.String())
	if !ok || r.Verify {
		if config, err = repo.Blob(ctx, manifest.Config.Digest.String(), registry.MaxConfig); err != nil {
			return nil, err
		}
	}
	var parsed struct {
		RootFS struct {
			DiffIDs []v1.Hash `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(config, &parsed); err != nil || len(parsed.RootFS.DiffIDs) != len(manifest.Layers) {
		return nil, nil // an artifact that looks like an image
	}
	l := &learned{manifest: m, diffIDs: parsed.RootFS.DiffIDs, config: config, annotations: manifest.Annotations}
	for i, d := range manifest.Layers {
		l.blobs = append(l.blobs, d.Digest.String())
		mediaType, ok := ociLayer[d.MediaType]
		if !ok || r.Format == Docker && dockerType[mediaType] == "" {
			continue
		}
		if key := d.Annotations[streamconf.KeyAnnotation]; key != "" && !r.Check {
			r.known.setKey(key, parsed.RootFS.DiffIDs[i])
		}
		r.known.add(parsed.RootFS.DiffIDs[i], repo.Path(), v1.Descriptor{MediaType: mediaType, Digest: d.Digest, Size: d.Size})
	}
	r.known.setBlob(repo.Path(), manifest.Config.Digest.String())
	return l, nil
}

// childFor returns the digest of the image for a platform in an index, or of the first one that is an image.
func childFor(index []byte, platform v1.Platform) (digest string, ok bool) {
	parsed, err := v1.ParseIndexManifest(bytes.NewReader(index))
	if err != nil {
		return "", false
	}
	for _, d := range parsed.Manifests {
		if !d.MediaType.IsImage() {
			continue
		}
		if d.Platform != nil && d.Platform.OS == platform.OS && d.Platform.Architecture == platform.Architecture {
			return d.Digest.String(), true
		}
		if !ok {
			digest, ok = d.Digest.String(), true
		}
	}
	return digest, ok
}

// recognise says whether found is the member's image. A stream image need not be read for that where its tag is a Nix hash:
// the hash stands for all it was made with, and its config tells the store paths of each layer.
func (r *run) recognise(m *member, found *learned) bool {
	if r.Format == Docker && found.manifest.MediaType.IsImage() && found.manifest.MediaType != types.DockerManifestSchema2 {
		return false // who asks for docker's format has something that reads no other; OCI's readers read both
	}
	unread := slices.ContainsFunc(m.image.Layers, func(l *image.Layer) bool { return l.DiffID == (v1.Hash{}) })
	if len(found.diffIDs) != len(m.image.Layers) || unread && (r.Check || !hashLike.MatchString(m.Tag)) {
		return false
	}
	for key, value := range r.annotations(m) {
		if found.annotations[key] != value {
			return false
		}
	}
	config, err := m.image.Config(found.diffIDs)
	if err != nil || !bytes.Equal(config, found.config) {
		return false
	}
	m.manifest, m.same = found.manifest, true
	for i := range m.how {
		m.how[i] = reused
	}
	return true
}

// verified asks for each blob of an image that is there; a registry may have collected some.
func (r *run) verified(ctx context.Context, m *member, found *learned) (bool, error) {
	whole := true
	for i, digest := range found.blobs {
		there, err := exists(ctx, m.repo, digest)
		if err != nil {
			return false, err
		}
		if !there {
			r.Debugf("%s: %s is gone", m.repo, digest)
			r.known.forget(found.diffIDs[i], m.repo.Path())
			whole = false
		}
	}
	return whole, nil // the config was read
}

// learnMore reads other images of the member's repository: those at LearnTags or, where none of these is there, a few of
// any tag. A flake that is pushed under nothing but Nix hashes has no tag that a new build could ask for by name; its older
// images share most layers with it all the same. Named tags come first: they move with the newest image.
func (r *run) learnMore(ctx context.Context, m *member) error {
	tags := m.LayerTags
	if !r.NoLearn {
		if m.ImageTag != "" {
			tags = append(slices.Clone(tags), m.ImageTag)
		}
		tags = slices.Concat(tags, r.LearnTags)
	}
	found := false
	for _, tag := range tags {
		if m.allKnown(r.known) {
			return nil
		}
		l, err := r.learn(ctx, m.repo, tag, m.image.Platform)
		if err := r.soft(ctx, m, tag, err); err != nil {
			return err
		}
		found = found || l != nil
	}
	if found {
		return nil
	}
	list, err := m.repo.Tags(ctx, 1000)
	if err := r.soft(ctx, m, "the list of tags", err); err != nil {
		return err
	}
	if len(list) > 0 {
		m.repo.exists.Store(true)
	}
	list = slices.DeleteFunc(list, func(tag string) bool { return strings.HasPrefix(tag, "sha256-") }) // signatures and the like
	slices.SortStableFunc(list, func(a, b string) int { return len(hashLike.FindString(a)) - len(hashLike.FindString(b)) })
	for _, tag := range list[:min(len(list), maxSampled)] {
		if m.allKnown(r.known) || !isTag.MatchString(tag) {
			break
		}
		_, err := r.learn(ctx, m.repo, tag, m.image.Platform)
		if err := r.soft(ctx, m, tag, err); err != nil {
			return err
		}
	}
	return nil
}

// soft lets a registry be unhelpful: what cannot be learned is sent.
func (r *run) soft(ctx context.Context, m *member, what string, err error) error {
	if err != nil && ctx.Err() == nil && !errors.Is(err, registry.ErrAbsent) {
		r.Debugf("%s: nothing learned from %s: %v", m.repo, what, err)
	}
	return ctx.Err()
}

// allKnown says whether every layer's blob is known in the member's repository.
func (m *member) allKnown(k *knowledge) bool {
	k.name(m.image.Layers)
	return !slices.ContainsFunc(m.image.Layers, func(l *image.Layer) bool {
		_, ok := k.in(m.repo.Path(), l.DiffID)
		return !ok
	})
}

package push

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/registry"
)

// Layout is an OCI image layout: a folder of blobs and an index.json that names images as name:tag. As an http.RoundTripper it
// is a registry, whatever the host: what pushes to registries pushes to it.
type Layout struct {
	dir string

	mu    sync.Mutex
	index v1.IndexManifest
}

// OpenLayout opens the layout at dir, or begins one where there is nothing. Images of other names in it are kept.
//
// Errors: when dir has something else, or cannot be written.
func OpenLayout(dir string) (*Layout, error) {
	l := &Layout{dir: dir, index: v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}}
	text, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err == nil {
		if err := json.Unmarshal(text, &l.index); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "index.json"), err)
		}
		return l, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() != "blobs" && e.Name() != "oci-layout" { // of a run that was killed
			return nil, fmt.Errorf("%s is no OCI layout, and not empty: it has %s", dir, e.Name())
		}
	}
	return l, nil
}

// Copy adds what was pushed, as the registry has it now, and the attachments of some kinds that are beside it there, under the
// tags they have.
func (l *Layout) Copy(ctx context.Context, c *registry.Client, pushed []handoff.PushedImage, kinds ...string) error {
	var errs []error
	for _, p := range pushed {
		if p.State == handoff.PushFailed {
			continue
		}
		repo, err := c.Repository(p.Repository)
		if err == nil {
			err = l.copyImage(ctx, repo, p, kinds)
		}
		if err != nil {
			errs = append(errs, &ImageError{p.Name, fmt.Errorf("copy to %s: %w", l.dir, err)})
		}
	}
	return errors.Join(errs...)
}

func (l *Layout) copyImage(ctx context.Context, repo *registry.Repository, p handoff.PushedImage, kinds []string) error {
	m, err := l.copyManifest(ctx, repo, p.Digest)
	if err == nil && len(kinds) > 0 {
		err = l.copyAttachments(ctx, repo, p.Name, m, kinds)
	}
	if err != nil {
		return err
	}
	for _, tag := range p.Tags {
		if err := l.name(p.Name+":"+tag, m); err != nil {
			return err
		}
	}
	return nil
}

// copyAttachments copies what is beside a manifest, and beside those of an index. Of the tags it has, the one without an end is
// the list of referrers, which a registry that knows them has not.
func (l *Layout) copyAttachments(ctx context.Context, repo *registry.Repository, name string, m registry.Manifest, kinds []string) error {
	names, err := namedBy(m)
	if err != nil {
		return err
	}
	var tags []string
	add := func(digest string) {
		tags = append(tags, referrersTag(digest))
		for _, kind := range kinds {
			tags = append(tags, referrersTag(digest)+"."+kind)
		}
	}
	add(m.Digest)
	for _, child := range names.Manifests {
		add(child.Digest.String())
	}
	for _, tag := range tags {
		a, err := l.copyManifest(ctx, repo, tag)
		if errors.Is(err, registry.ErrAbsent) {
			continue
		}
		if err == nil {
			err = l.name(name+":"+tag, a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// named are what a manifest or index names.
type named struct {
	Config            *v1.Descriptor
	Layers, Manifests []v1.Descriptor
}

func namedBy(m registry.Manifest) (n named, err error) {
	err = json.Unmarshal(m.Bytes, &n)
	return n, err
}

// copyManifest copies what a manifest or index names, then itself.
func (l *Layout) copyManifest(ctx context.Context, repo *registry.Repository, reference string) (registry.Manifest, error) {
	m, err := repo.Manifest(ctx, reference)
	if err != nil {
		return m, err
	}
	names, err := namedBy(m)
	if err != nil {
		return m, err
	}
	for _, child := range names.Manifests {
		if _, err := l.copyManifest(ctx, repo, child.Digest.String()); err != nil {
			return m, err
		}
	}
	if names.Config != nil {
		names.Layers = append(names.Layers, *names.Config)
	}
	var mu sync.Mutex
	var errs []error
	each(ctx, names.Layers, func(d v1.Descriptor) {
		if err := l.copyBlob(ctx, repo, d.Digest.String()); err != nil {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		}
	})
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return m, err
	}
	return m, l.store(m.Digest, strings.NewReader(string(m.Bytes)))
}

func (l *Layout) copyBlob(ctx context.Context, repo *registry.Repository, digest string) error {
	if l.has(digest) {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, repo.URL("blobs/"+digest).String(), nil)
	if err != nil {
		return err
	}
	resp, err := repo.Do(req, []int{http.StatusOK})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return l.store(digest, resp.Body)
}

func (l *Layout) blob(digest string) string {
	return filepath.Join(l.dir, specs.ImageBlobsDir, strings.ReplaceAll(digest, ":", string(filepath.Separator)))
}

func (l *Layout) has(digest string) bool {
	_, err := os.Stat(l.blob(digest))
	return err == nil
}

// store writes a blob unless it is there. It appears whole or not at all.
func (l *Layout) store(digest string, content io.Reader) error {
	if _, err := v1.NewHash(digest); err != nil {
		return err
	}
	if l.has(digest) {
		_, err := io.Copy(io.Discard, content)
		return err
	}
	sum := &summing{sum: sha256.New()}
	return replace(l.blob(digest), func(f *os.File) error {
		sum.w = f
		if _, err := io.Copy(sum, content); err != nil {
			return err
		}
		if got := sum.digest().String(); got != digest {
			return fmt.Errorf("blob %s came as %s", digest, got)
		}
		return nil
	})
}

// name gives a manifest that is stored a name. The index is written each time: a run that is killed leaves whole images.
func (l *Layout) name(name string, m registry.Manifest) error {
	digest, err := v1.NewHash(m.Digest)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index.Manifests = slices.DeleteFunc(l.index.Manifests, func(d v1.Descriptor) bool { return d.Annotations[specs.AnnotationRefName] == name })
	l.index.Manifests = append(l.index.Manifests, v1.Descriptor{
		MediaType: m.MediaType, Digest: digest, Size: int64(len(m.Bytes)), Annotations: map[string]string{specs.AnnotationRefName: name},
	})
	slices.SortFunc(l.index.Manifests, func(a, b v1.Descriptor) int {
		return strings.Compare(a.Annotations[specs.AnnotationRefName], b.Annotations[specs.AnnotationRefName])
	})
	text, err := json.Marshal(l.index)
	if err != nil {
		return err
	}
	write := func(file string, text []byte) error {
		return replace(filepath.Join(l.dir, file), func(f *os.File) error { _, err := f.Write(text); return err })
	}
	return errors.Join(write(specs.ImageLayoutFile, []byte(`{"imageLayoutVersion":"`+specs.ImageLayoutVersion+`"}`)), write(specs.ImageIndexFile, text))
}

// at returns what index.json has under a name.
func (l *Layout) at(name string) (v1.Descriptor, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.index.Manifests, func(d v1.Descriptor) bool { return d.Annotations[specs.AnnotationRefName] == name })
	if i < 0 {
		return v1.Descriptor{}, false
	}
	return l.index.Manifests[i], true
}

// replace writes a file beside its place and moves it there.
func replace(file string, write func(*os.File) error) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	if err := errors.Join(write(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// RoundTrip answers as a registry whose repositories share their blobs.
func (l *Layout) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	rest := strings.TrimPrefix(req.URL.Path, "/v2/")
	if repo, at, ok := strings.Cut(rest, "/manifests/"); ok {
		return l.manifest(req, repo, at)
	}
	if _, at, ok := strings.Cut(rest, "/blobs/uploads/"); ok {
		return l.upload(req, at)
	}
	if _, digest, ok := strings.Cut(rest, "/blobs/"); ok {
		return l.serve(req, digest, "application/octet-stream")
	}
	if rest == "" {
		return answerTo(req, http.StatusOK, nil), nil
	}
	return answerTo(req, http.StatusNotFound, nil), nil
}

func (l *Layout) manifest(req *http.Request, repo, at string) (*http.Response, error) {
	if req.Method == http.MethodPut {
		text, err := io.ReadAll(io.LimitReader(req.Body, registry.MaxManifest))
		if err != nil {
			return nil, err
		}
		m := registry.Manifest{Bytes: text, MediaType: types.MediaType(req.Header.Get("Content-Type")), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(text))}
		if err := l.store(m.Digest, strings.NewReader(string(text))); err != nil {
			return nil, err
		}
		if !strings.Contains(at, ":") {
			err = l.name(path.Clean(repo)+":"+at, m)
		}
		return answerTo(req, http.StatusCreated, nil), err
	}
	if strings.Contains(at, ":") {
		return l.serve(req, at, "")
	}
	d, ok := l.at(repo + ":" + at)
	if !ok {
		return answerTo(req, http.StatusNotFound, nil), nil
	}
	return l.serve(req, d.Digest.String(), string(d.MediaType))
}

func (l *Layout) upload(req *http.Request, session string) (*http.Response, error) {
	if digest := req.URL.Query().Get("mount"); digest != "" && l.has(digest) {
		return answerTo(req, http.StatusCreated, nil), nil
	}
	if req.Method == http.MethodPost {
		return answerTo(req, http.StatusAccepted, http.Header{"Location": {path.Join(req.URL.Path, "new")}}), nil
	}
	body := req.Body
	if body == nil {
		body = http.NoBody
	}
	return answerTo(req, http.StatusCreated, nil), l.store(req.URL.Query().Get("digest"), body)
}

func (l *Layout) serve(req *http.Request, digest, mediaType string) (*http.Response, error) {
	f, err := os.Open(l.blob(digest))
	if err != nil {
		return answerTo(req, http.StatusNotFound, nil), nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	resp := answerTo(req, http.StatusOK, http.Header{"Docker-Content-Digest": {digest}, "Content-Type": {mediaType}})
	resp.ContentLength = info.Size()
	if req.Method == http.MethodHead {
		return resp, f.Close()
	}
	resp.Body = f
	return resp, nil
}

package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Limits on what is read into memory. A registry that sends more is not believed.
const (
	MaxManifest = 10 << 20 // Gitea's own limit; the specification asks for 4 MiB
	MaxConfig   = 8 << 20
	maxTagList  = 4 << 20
)

var manifestTypes = strings.Join([]string{
	string(types.OCIManifestSchema1), string(types.OCIImageIndex), string(types.DockerManifestSchema2), string(types.DockerManifestList),
}, ",")

// Manifest is a manifest or index as the registry keeps it.
type Manifest struct {
	Bytes     []byte
	MediaType types.MediaType
	Digest    string // of Bytes
}

// Descriptor is what a registry says of a manifest without sending it.
type Descriptor struct {
	Digest    string
	MediaType types.MediaType
}

// Head returns the digest of the manifest at a tag or digest. Errors are those of Client.Head.
func (r *Repository) Head(ctx context.Context, reference string) (string, error) {
	d, err := r.Describe(ctx, reference)
	return d.Digest, err
}

// Describe is Head that also tells the media type.
func (r *Repository) Describe(ctx context.Context, reference string) (Descriptor, error) {
	req, err := r.request(ctx, http.MethodHead, "manifests/"+reference)
	if err != nil {
		return Descriptor{}, err
	}
	req.Header.Set("Accept", manifestTypes)
	resp, err := r.Do(req, []int{http.StatusOK})
	if status := new(StatusError); errors.As(err, &status) && (status.Status == http.StatusMethodNotAllowed || status.Status == http.StatusNotImplemented) {
		return r.get(ctx, reference) // some proxies know no HEAD
	}
	if err != nil {
		return Descriptor{}, err
	}
	resp.Body.Close()
	if digest := resp.Header.Get("Docker-Content-Digest"); isDigest(digest) {
		return Descriptor{digest, mediaTypeOf(resp.Header)}, nil
	}
	return r.get(ctx, reference) // the header is optional
}

func (r *Repository) get(ctx context.Context, reference string) (Descriptor, error) {
	m, err := r.Manifest(ctx, reference)
	return Descriptor{m.Digest, m.MediaType}, err
}

func mediaTypeOf(h http.Header) types.MediaType {
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return types.MediaType(strings.TrimSpace(t))
}

// Manifest reads the manifest or index at a tag or digest; one asked for by digest has that digest. Errors are those of
// Client.Head.
func (r *Repository) Manifest(ctx context.Context, reference string) (Manifest, error) {
	req, err := r.request(ctx, http.MethodGet, "manifests/"+reference)
	if err != nil {
		return Manifest{}, err
	}
	req.Header.Set("Accept", manifestTypes)
	b, header, err := r.read(req, MaxManifest)
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{Bytes: b, MediaType: mediaTypeOf(header), Digest: digestOf(b)}
	if isDigest(reference) && m.Digest != reference {
		return Manifest{}, fmt.Errorf("manifest %s of %s has digest %s", reference, r, m.Digest)
	}
	return m, nil
}

// Blob reads a small blob, at most limit bytes, and checks its digest. Errors are those of Client.Head.
func (r *Repository) Blob(ctx context.Context, digest string, limit int64) ([]byte, error) {
	req, err := r.request(ctx, http.MethodGet, "blobs/"+digest)
	if err != nil {
		return nil, err
	}
	b, _, err := r.read(req, limit)
	if err != nil {
		return nil, err
	}
	if got := digestOf(b); got != digest {
		return nil, fmt.Errorf("blob %s of %s has digest %s", digest, r, got)
	}
	return b, nil
}

// Tags returns at most n of the repository's tags, in the registry's order. Errors are those of Client.Head.
func (r *Repository) Tags(ctx context.Context, n int) ([]string, error) {
	req, err := r.request(ctx, http.MethodGet, "tags/list")
	if err != nil {
		return nil, err
	}
	req.URL.RawQuery = url.Values{"n": {strconv.Itoa(n)}}.Encode()
	b, _, err := r.read(req, maxTagList)
	if err != nil {
		return nil, err
	}
	var list struct{ Tags []string }
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("tags of %s: %w", r, err)
	}
	return list.Tags[:min(n, len(list.Tags))], nil
}

func (r *Repository) request(ctx context.Context, method, rest string) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, method, r.URL(rest).String(), nil)
}

func (r *Repository) read(req *http.Request, limit int64) ([]byte, http.Header, error) {
	resp, err := r.Do(req, []int{http.StatusOK})
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, nil, &UnreachableError{Host: r.Host(), Err: err}
	}
	if n > limit {
		return nil, nil, fmt.Errorf("%s has more than %d bytes", redacted(req.URL), limit)
	}
	return b.Bytes(), resp.Header, nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// isDigest says whether s is a sha256 digest; registries keep nothing else in practice.
func isDigest(s string) bool {
	digits, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(digits) == 64 && strings.Trim(digits, "0123456789abcdef") == ""
}

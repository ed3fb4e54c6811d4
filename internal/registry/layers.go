package registry

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Layer is one layer of an image that is there.
type Layer struct {
	DiffID      string            // digest before compression
	Annotations map[string]string // of its descriptor
}

// Layers returns the layers of the image at a tag or digest; of an index, those of all its images. A manifest that is there vouches
// for its blobs. What is there but no image, such as a signature, has none.
//
// Errors are those of Client.Head; others when the registry sends something unreadable.
func (r *Repository) Layers(ctx context.Context, reference string) ([]Layer, error) {
	m, err := r.Manifest(ctx, reference)
	if err != nil {
		return nil, err
	}
	if !m.MediaType.IsIndex() {
		return r.layers(ctx, m)
	}
	var index struct{ Manifests []descriptor }
	if err := json.Unmarshal(m.Bytes, &index); err != nil {
		return nil, fmt.Errorf("index of %s at %s: %w", r, reference, err)
	}
	var all []Layer
	for _, d := range index.Manifests {
		if !d.MediaType.IsImage() {
			continue
		}
		m, err := r.Manifest(ctx, d.Digest)
		if err != nil {
			return nil, err
		}
		some, err := r.layers(ctx, m)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

type descriptor struct {
	MediaType   types.MediaType
	Digest      string
	Size        int64
	Annotations map[string]string
}

func (r *Repository) layers(ctx context.Context, m Manifest) ([]Layer, error) {
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	if !m.MediaType.IsImage() {
		return nil, nil
	}
	if err := json.Unmarshal(m.Bytes, &manifest); err != nil {
		return nil, fmt.Errorf("manifest %s of %s: %w", m.Digest, r, err)
	}
	if !manifest.Config.MediaType.IsConfig() || manifest.Config.Size > MaxConfig {
		return nil, nil
	}
	text, err := r.Blob(ctx, manifest.Config.Digest, MaxConfig)
	if err != nil {
		return nil, err
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(text, &config); err != nil || len(config.RootFS.DiffIDs) != len(manifest.Layers) {
		return nil, nil // an artifact that looks like an image
	}
	layers := make([]Layer, len(manifest.Layers))
	for i, d := range manifest.Layers {
		layers[i] = Layer{config.RootFS.DiffIDs[i], d.Annotations}
	}
	return layers, nil
}

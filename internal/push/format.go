package push

import (
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/streamconf"
)

// Format is whose media types manifests have. The bytes of layers and configs are the same in both.
type Format string

// The formats. Docker's is for what was written before OCI's; it has neither annotations nor zstd.
const (
	OCI    Format = "oci"
	Docker Format = "docker"
)

// formatTypes are the media types of a format.
type formatTypes struct{ manifest, config, index types.MediaType }

func (f Format) types() formatTypes {
	if f == Docker {
		return formatTypes{types.DockerManifestSchema2, types.DockerConfigJSON, types.DockerManifestList}
	}
	return formatTypes{types.OCIManifestSchema1, types.OCIConfigJSON, types.OCIImageIndex}
}

// ociLayer is the OCI name of each layer media type: the bytes are the same.
var ociLayer = map[types.MediaType]types.MediaType{
	types.OCILayer: types.OCILayer, types.DockerLayer: types.OCILayer,
	types.OCIUncompressedLayer: types.OCIUncompressedLayer, types.DockerUncompressedLayer: types.OCIUncompressedLayer,
	types.OCILayerZStd: types.OCILayerZStd,
}

// dockerType is docker's name of an OCI layer media type; zstd has none.
var dockerType = map[types.MediaType]types.MediaType{
	types.OCILayer: types.DockerLayer, types.OCIUncompressedLayer: types.DockerUncompressedLayer,
}

// manifest is that of a member whose layers are all placed.
func (f Format) manifest(config v1.Descriptor, m *member) v1.Manifest {
	config.MediaType = f.types().config
	layers := make([]v1.Descriptor, len(m.placed))
	for i, d := range m.placed {
		if f == Docker {
			d.MediaType = dockerType[d.MediaType]
		} else if key := m.image.Layers[i].Key; key != "" {
			d.Annotations = map[string]string{streamconf.KeyAnnotation: key}
		}
		layers[i] = d
	}
	return v1.Manifest{SchemaVersion: 2, MediaType: f.types().manifest, Config: config, Layers: layers}
}

package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/streamconf"
)

// n2cImage is the JSON of nix2container. The names are upstream's, odd ones included.
type n2cImage struct {
	Version int               `json:"version"`
	Config  specs.ImageConfig `json:"image-config"`
	Layers  []n2cLayer        `json:"layers"`
	Arch    string            `json:"arch"`
	Created *time.Time        `json:"created"`
}

type n2cLayer struct {
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"` // 0 for a base image's layers
	DiffID    string    `json:"diff_ids"`
	Paths     []n2cPath `json:"paths"`
	MediaType string    `json:"mediatype"`
	LayerPath string    `json:"layer-path"`
	History   specs.History
}

type n2cPath struct {
	Path    string      `json:"path"`
	Options *n2cOptions `json:"options"`
}

type n2cOptions struct {
	Rewrite n2cRewrite `json:"rewrite"`
	Perms   []n2cPerm  `json:"perms"`
}

type n2cRewrite struct {
	Regex string `json:"regex"`
	Repl  string `json:"repl"`
}

type n2cPerm struct {
	Regex  string `json:"regex"`
	Mode   string `json:"mode"`   // octal; empty: as it is
	OrMode string `json:"orMode"` // octal, added
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	Uname  string `json:"uname"`
	Gname  string `json:"gname"`
}

// maxImageJSON is what 4096 layers of a hundred store paths each take, ten times over.
const maxImageJSON = 64 << 20

// parseN2C reads nix2container's JSON and checks what does not need the store.
func parseN2C(text []byte) (n2cImage, error) {
	var n n2cImage
	if err := json.Unmarshal(text, &n); err != nil {
		return n, err
	}
	if n.Version > 1 {
		return n, fmt.Errorf("it has version %d of nix2container's format, version 1 is known", n.Version)
	}
	if n.Version == 0 && n.Layers == nil && n.Arch == "" {
		return n, errors.New("it is JSON, but not of nix2container")
	}
	if n.Arch == "" {
		n.Arch = "amd64" // what nix2container assumed before it wrote this field
	}
	return n, nil
}

// openJSON opens what is JSON: an image of nix2container, or the conf.json of a stream image.
func openJSON(path string, o Options) (*Image, error) {
	text, err := readSmall(path, maxImageJSON)
	if err != nil {
		return nil, err
	}
	if streamconf.Is(text) {
		return openStreamConf(path, text, o)
	}
	return openNix2Container(path, text, o)
}

func openNix2Container(path string, text []byte, o Options) (*Image, error) {
	n, err := parseN2C(text)
	if err != nil {
		return nil, &NotImageError{path, err.Error()}
	}
	img := &Image{Family: handoff.Nix2Container, Platform: v1.Platform{OS: "linux", Architecture: n.Arch}}
	spec := specs.Image{Created: n.Created, Config: n.Config}
	spec.OS, spec.Architecture = "linux", n.Arch
	spec.RootFS.Type = "layers"
	spec.RootFS.DiffIDs = nil
	for i, l := range n.Layers {
		layer, err := l.open(o.Store)
		if err != nil {
			return nil, &NotImageError{path, fmt.Sprintf("layer %d: %v", i+1, err)}
		}
		img.Layers = append(img.Layers, layer)
		spec.RootFS.DiffIDs = append(spec.RootFS.DiffIDs, digestOf(layer.DiffID))
		spec.History = append(spec.History, l.History)
	}
	config, err := json.Marshal(spec) // the very struct nix2container marshals: the image ID is that of its own pushes
	if err != nil {
		return nil, &NotImageError{path, err.Error()}
	}
	img.config = fixedConfig(config)
	return img, nil
}

// layerTypes are the media types of layers, in OCI's words.
var layerTypes = map[string]types.MediaType{
	"":                                    types.OCIUncompressedLayer,
	string(types.OCIUncompressedLayer):    types.OCIUncompressedLayer,
	string(types.OCILayer):                types.OCILayer,
	string(types.OCILayerZStd):            types.OCILayerZStd,
	string(types.DockerUncompressedLayer): types.OCIUncompressedLayer,
	string(types.DockerLayer):             types.OCILayer,
}

// open makes the Layer of one entry. Nothing is read of the layer itself: its closure need not be in the store as long as
// nobody asks for its bytes.
func (l n2cLayer) open(store handoff.Store) (*Layer, error) {
	mediaType, known := layerTypes[l.MediaType]
	if !known {
		return nil, fmt.Errorf("its media type %.100q cannot be pushed", l.MediaType)
	}
	digest, err := parseDigest(l.Digest)
	if err != nil {
		return nil, fmt.Errorf("digest: %w", err)
	}
	diffID := digest
	if l.DiffID != "" {
		if diffID, err = parseDigest(l.DiffID); err != nil {
			return nil, fmt.Errorf("diff_ids: %w", err)
		}
	}
	layer := &Layer{Name: l.name(), DiffID: diffID}
	compressed := mediaType != types.OCIUncompressedLayer
	if !compressed {
		layer.Size = l.Size
		if digest != diffID {
			return nil, fmt.Errorf("it is not compressed, yet digest and diff_ids differ")
		}
	}
	switch {
	case l.LayerPath == "" && compressed:
		return nil, errors.New("it is compressed and has no layer-path")
	case l.LayerPath == "":
		if layer.source, err = newN2CSource(l.Paths, store); err != nil {
			return nil, err
		}
	default:
		if err := inStore(store, l.LayerPath); err != nil {
			return nil, fmt.Errorf("layer-path %.200q: %w", l.LayerPath, err)
		}
		file := &n2cFile{store: store, path: l.LayerPath, paths: l.Paths}
		layer.source = file
		if compressed {
			layer.Blob = &Blob{MediaType: mediaType, Digest: digest, Size: l.Size, open: func() (Content, error) { return file.open() }}
		}
	}
	return layer, nil
}

func (l n2cLayer) name() string {
	if l.LayerPath != "" {
		return l.LayerPath
	}
	var names []string
	for _, p := range l.Paths {
		names = append(names, p.Path)
	}
	return strings.Join(names, " ")
}

// n2cFile is a layer that is a file in the store, compressed or not.
type n2cFile struct {
	store handoff.Store
	path  string
	paths []n2cPath // that went into it, when nix2container says so
}

func (f *n2cFile) open() (*os.File, error) {
	file, err := physical(f.store, f.path)
	if err != nil {
		return nil, err
	}
	return os.Open(file)
}

package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"
)

// The types of nix2container's JSON files, with its odd names (types/types.go, 2026-03). An image's configuration has the
// fields of the OCI struct in their order; others are lost there too.
type (
	n2cImage struct {
		Version int        `json:"version"`
		Config  n2cConfig  `json:"image-config"`
		Layers  []n2cLayer `json:"layers"`
		Arch    string     `json:"arch"`
		Created time.Time  `json:"created"`
	}
	n2cConfig struct {
		User         string              `json:"User,omitempty"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
		Env          []string            `json:"Env,omitempty"`
		Entrypoint   []string            `json:"Entrypoint,omitempty"`
		Cmd          []string            `json:"Cmd,omitempty"`
		Volumes      map[string]struct{} `json:"Volumes,omitempty"`
		WorkingDir   string              `json:"WorkingDir,omitempty"`
		Labels       map[string]string   `json:"Labels,omitempty"`
		StopSignal   string              `json:"StopSignal,omitempty"`
	}
	n2cLayer struct {
		Digest    string     `json:"digest"`
		Size      int64      `json:"size"`
		DiffID    string     `json:"diff_ids"`
		Paths     []n2cPath  `json:"paths,omitempty"`
		MediaType string     `json:"mediatype"`
		LayerPath string     `json:"layer-path,omitempty"`
		History   n2cHistory // no tag upstream: the name keeps its capital
	}
	n2cPath struct {
		Path    string      `json:"path"`
		Options *n2cOptions `json:"options,omitempty"`
	}
	n2cOptions struct {
		Rewrite n2cRewrite `json:"rewrite"`
		Perms   []n2cPerm  `json:"perms,omitempty"`
	}
	n2cRewrite struct {
		Regex string `json:"regex"`
		Repl  string `json:"repl"`
	}
	n2cPerm struct {
		Regex string `json:"regex"`
		Mode  string `json:"mode"`
		UID   int    `json:"uid"`
		GID   int    `json:"gid"`
		Uname string `json:"uname"`
		Gname string `json:"gname"`
	}
	n2cHistory struct {
		Created   *time.Time `json:"created,omitempty"`
		CreatedBy string     `json:"created_by,omitempty"`
		Author    string     `json:"author,omitempty"`
		Comment   string     `json:"comment,omitempty"`
	}
)

// layersSpec are the arguments of nix2container.buildLayer.
type layersSpec struct {
	CopyToRoot   []string     `json:"copyToRoot"` // their prefix is cut off in the layer
	Ignore       string       `json:"ignore"`
	Parents      []string     `json:"layers"` // folders of other layers: what they have is left out
	Perms        []n2cPermFor `json:"perms"`
	MaxLayers    int          `json:"maxLayers"`
	Reproducible bool         `json:"reproducible"` // false: the tar is kept, for paths that another build would make otherwise
	Metadata     n2cHistory   `json:"metadata"`
}

type n2cPermFor struct {
	Path string `json:"path"`
	n2cPerm
}

// buildLayers writes out/layers.json. The graph is the closure of deps and copyToRoot.
func buildLayers(t target, spec layersSpec) error {
	if err := os.Mkdir(t.out, 0o755); err != nil {
		return err
	}
	layers, err := t.layers(spec)
	if err != nil {
		return err
	}
	return writeN2C(filepath.Join(t.out, "layers.json"), layers)
}

func (t target) layers(spec layersSpec) ([]n2cLayer, error) {
	var parents []n2cPath
	for _, dir := range spec.Parents {
		var layers []n2cLayer
		if err := readN2C(t.store.physical(filepath.Join(dir, "layers.json")), &layers); err != nil {
			return nil, err
		}
		for _, l := range layers {
			parents = append(parents, l.Paths...)
		}
	}
	sorted, err := byPopularity(t.graph)
	if err != nil {
		return nil, err
	}
	var paths []string
	options := map[string]n2cPath{}
	for _, p := range sorted {
		path := n2cPath{Path: p, Options: spec.options(p)}
		inParent := slices.ContainsFunc(parents, func(other n2cPath) bool { return reflect.DeepEqual(other, path) })
		if p != spec.Ignore && !inParent {
			paths = append(paths, p)
			options[p] = path
		}
	}
	layers := []n2cLayer{}
	for _, group := range cut(paths, spec.MaxLayers) {
		layer := n2cLayer{MediaType: "application/vnd.oci.image.layer.v1.tar", History: spec.Metadata}
		for _, p := range group {
			layer.Paths = append(layer.Paths, options[p])
		}
		if err := t.pack(&layer, spec.Reproducible); err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	return layers, nil
}

// options of a store path; nil when it has none.
func (s layersSpec) options(path string) *n2cOptions {
	var o n2cOptions
	for _, p := range s.Perms {
		if p.Path == path {
			o.Perms = append(o.Perms, p.n2cPerm)
		}
	}
	if slices.Contains(s.CopyToRoot, path) {
		o.Rewrite = n2cRewrite{Regex: "^" + path}
	}
	if o.Perms == nil && o.Rewrite.Regex == "" {
		return nil
	}
	return &o
}

// pack fills in the layer's digest and size.
func (t target) pack(layer *n2cLayer, reproducible bool) error {
	hash := sha256.New()
	size := counter(0)
	w := io.MultiWriter(hash, &size)
	var kept *os.File
	if !reproducible {
		var err error
		if kept, err = os.CreateTemp(t.out, "layer"); err != nil {
			return err
		}
		defer kept.Close()
		w = io.MultiWriter(w, kept)
	}
	if err := t.store.n2cTar(w, layer.Paths); err != nil {
		return err
	}
	layer.Digest = fmt.Sprintf("sha256:%x", hash.Sum(nil))
	layer.DiffID, layer.Size = layer.Digest, int64(size)
	if kept == nil {
		return nil
	}
	layer.LayerPath = filepath.Join(t.out, fmt.Sprintf("%x.tar", hash.Sum(nil)))
	if err := kept.Close(); err != nil {
		return err
	}
	return os.Rename(kept.Name(), layer.LayerPath)
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// imageSpec are the arguments of nix2container.buildImage.
type imageSpec struct {
	Config  string   `json:"config"` // path of the configuration's JSON
	Layers  []string `json:"layers"` // folders that buildLayers wrote, lowest first
	Arch    string   `json:"arch"`
	Created string   `json:"created"`
}

// buildImage writes image.json.
func buildImage(t target, spec imageSpec) error {
	image, err := t.image(spec)
	if err != nil {
		return err
	}
	return writeN2C(t.out, image)
}

func (t target) image(spec imageSpec) (*n2cImage, error) {
	created, err := parseTime(spec.Created)
	if err != nil {
		return nil, err
	}
	image := &n2cImage{Version: 1, Layers: []n2cLayer{}, Arch: spec.Arch, Created: created}
	if err := readN2C(t.store.physical(spec.Config), &image.Config); err != nil {
		return nil, err
	}
	for _, dir := range spec.Layers {
		var layers []n2cLayer
		if err := readN2C(t.store.physical(filepath.Join(dir, "layers.json")), &layers); err != nil {
			return nil, err
		}
		for _, l := range layers {
			if !slices.ContainsFunc(image.Layers, func(other n2cLayer) bool { return other.Digest == l.Digest }) {
				image.Layers = append(image.Layers, l)
			}
		}
	}
	return image, nil
}

func readN2C(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writeN2C(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

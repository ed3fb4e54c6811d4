package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flakeship/flakeship/internal/handoff"
)

// blobs are the files of an OCI layout, by digest.
type blobs interface {
	// content opens one of its files, such as index.json, and tells its size.
	content(name string) (Content, int64, error)
}

// layoutDir is an OCI layout that is a folder.
type layoutDir struct {
	root    *os.Root      // of a folder outside of the store: links do not lead out of it
	logical string        // of a store path, whose files may be links to others in the store
	store   handoff.Store // of logical
}

func (d *layoutDir) content(name string) (Content, int64, error) {
	var f *os.File
	var err error
	if d.root != nil {
		f, err = d.root.Open(name)
	} else {
		var at string
		if at, err = physical(d.store, d.logical+"/"+name); err == nil {
			f, err = os.Open(at)
		}
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// Close frees the folder.
func (d *layoutDir) Close() error {
	if d.root == nil {
		return nil
	}
	return d.root.Close()
}

// openLayout opens a folder in the form of an OCI image layout.
func openLayout(dir string, o Options) (*Image, error) {
	d := &layoutDir{store: o.Store}
	inStoreDir := o.Store.Root + o.Store.Dir + "/"
	if clean := filepath.Clean(dir); strings.HasPrefix(clean, inStoreDir) {
		d.logical = strings.TrimPrefix(clean, o.Store.Root)
	} else {
		var err error
		if d.root, err = os.OpenRoot(dir); err != nil {
			return nil, err
		}
	}
	img, err := openOCI(d, o)
	if err != nil {
		d.Close()
		if errors.Is(err, os.ErrNotExist) {
			err = errors.New("it is a folder that is no OCI layout: " + err.Error())
		}
		return nil, &NotImageError{dir, err.Error()}
	}
	img.Path = dir
	img.closers = append(img.closers, d)
	return img, nil
}

// maxNested bounds how deep an index may lead to others.
const maxNested = 4

// openOCI opens the image of an OCI layout.
func openOCI(b blobs, o Options) (*Image, error) {
	text, err := readFile(b, "index.json", maxManifest)
	if err != nil {
		return nil, err
	}
	var manifest v1.Manifest
	for range maxNested {
		var index v1.IndexManifest
		if err := json.Unmarshal(text, &index); err != nil {
			return nil, fmt.Errorf("its index: %w", err)
		}
		d, err := chooseDescriptor(index.Manifests, o)
		if err != nil {
			return nil, err
		}
		if text, err = readBlob(b, d.Digest, maxManifest); err != nil {
			return nil, err
		}
		if d.MediaType.IsIndex() {
			continue
		}
		if err := json.Unmarshal(text, &manifest); err != nil {
			return nil, fmt.Errorf("its manifest: %w", err)
		}
		return imageOf(b, manifest)
	}
	return nil, errors.New("its index leads to too many others")
}

// chooseDescriptor picks the one image of an index or, of several, the one with the wanted name and platform.
func chooseDescriptor(all []v1.Descriptor, o Options) (v1.Descriptor, error) {
	all = slices.DeleteFunc(slices.Clone(all), func(d v1.Descriptor) bool { return !d.MediaType.IsImage() && !d.MediaType.IsIndex() })
	var names []string
	for _, d := range all {
		name := d.Annotations["io.containerd.image.name"]
		if name == "" {
			name = d.Annotations[specs.AnnotationRefName]
		}
		names = append(names, name)
	}
	found := all
	if len(all) > 1 {
		if some := pick(all, func(i int) bool { return o.named(names[i], true) }); len(some) > 0 {
			found = some
		}
	}
	if len(found) > 1 && o.Platform.Architecture != "" {
		found = pick(found, func(i int) bool { return found[i].Platform != nil && found[i].Platform.Satisfies(o.Platform) })
	}
	if len(found) != 1 {
		return v1.Descriptor{}, severalError(len(all), names)
	}
	return found[0], nil
}

func pick[T any](all []T, want func(int) bool) (some []T) {
	for i, item := range all {
		if want(i) {
			some = append(some, item)
		}
	}
	return some
}

// severalError says that a file has not one image but none or several, and none of the wanted name.
func severalError(count int, names []string) error {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "" })
	err := fmt.Sprintf("it holds %d images, not one", count)
	if len(names) > 0 {
		more := ""
		if len(names) > 5 {
			names, more = names[:5], " and others"
		}
		err += ", and not one of this name: it has " + fmt.Sprintf("%.300s", strings.Join(names, ", ")) + more
	}
	return errors.New(err)
}

// named says whether what an image is called in its file is the wanted name, with any of the wanted tags, or else alone. An OCI
// layout may have the tag alone.
func (o Options) named(ref string, bareTag bool) bool {
	for _, tag := range o.Tags {
		if ref == o.Name+":"+tag || strings.HasSuffix(ref, "/"+o.Name+":"+tag) || bareTag && ref == tag {
			return true
		}
	}
	return false
}

// imageOf is the image of a manifest. Its layers are sent as they are: they have digests already.
func imageOf(b blobs, manifest v1.Manifest) (*Image, error) {
	config, err := readBlob(b, manifest.Config.Digest, maxConfig)
	if err != nil {
		return nil, err
	}
	parsed, err := parseConfig(config)
	if err != nil {
		return nil, fmt.Errorf("its config: %w", err)
	}
	if len(parsed.diffIDs) != len(manifest.Layers) {
		return nil, fmt.Errorf("its manifest lists %d layers, its config %d", len(manifest.Layers), len(parsed.diffIDs))
	}
	img := &Image{Family: handoff.OCILayout, Platform: parsed.platform, Annotations: manifest.Annotations, config: fixedConfig(config)}
	for i, d := range manifest.Layers {
		mediaType, known := layerTypes[string(d.MediaType)]
		if !known {
			return nil, fmt.Errorf("layer %d: its media type %.100q cannot be pushed", i+1, d.MediaType)
		}
		name, err := blobName(d.Digest)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		open := func() (Content, error) {
			f, _, err := b.content(name)
			return f, err
		}
		layer := &Layer{Name: d.Digest.String(), DiffID: parsed.diffIDs[i], Size: d.Size, source: contentLayer(func() (Content, int64, error) { return b.content(name) })}
		if mediaType != types.OCIUncompressedLayer {
			layer.Size, layer.Blob = 0, &Blob{MediaType: mediaType, Digest: d.Digest, Size: d.Size, open: open}
		}
		img.Layers = append(img.Layers, layer)
	}
	return img, nil
}

// contentLayer is a layer that is a file, compressed or not.
type contentLayer func() (Content, int64, error)

func (open contentLayer) writeTar(w io.Writer) error {
	f, size, err := open()
	if err != nil {
		return err
	}
	defer f.Close()
	return copyPlain(w, io.NewSectionReader(f, 0, size), size)
}

// blobName is where a layout keeps a blob.
func blobName(digest v1.Hash) (string, error) {
	if _, err := parseDigest(digest.String()); err != nil {
		return "", err
	}
	return "blobs/sha256/" + digest.Hex, nil
}

// readBlob reads a small blob and checks its digest.
func readBlob(b blobs, digest v1.Hash, limit int64) ([]byte, error) {
	name, err := blobName(digest)
	if err != nil {
		return nil, err
	}
	text, err := readFile(b, name, limit)
	if err == nil && hash256(text) != digest.String() {
		err = fmt.Errorf("%s has digest %s", name, hash256(text))
	}
	return text, err
}

// readFile reads a small file.
func readFile(b blobs, name string, limit int64) ([]byte, error) {
	f, size, err := b.content(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%.200q has %d bytes, more than %d", name, size, limit)
	}
	return io.ReadAll(io.NewSectionReader(f, 0, size))
}

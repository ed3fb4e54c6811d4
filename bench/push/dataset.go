package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/image"
)

// dataset is what is pushed: images, and the same with one of them changed.
type dataset struct {
	name    string
	images  []item
	changed item // in the place of the first
}

// item is one image: as Nix builds it, and as a docker-archive of the same layers for tools that read nothing else.
type item struct {
	name, path string
	archive    string
	script     []string // prints the archive when there is none; "imagetool" is the program of that name
}

// storePath is a path in a store below dir, which is what makes push-images take its hash for the tag.
func storePath(dir, name string) string {
	return filepath.Join(dir, "nix/store", fmt.Sprintf("%x", sha256.Sum256([]byte(name)))[:32]+"-"+name)
}

// logical is path without the folder its store is in.
func logical(dir, path string) string { return strings.TrimPrefix(path, dir) }

// archives are docker-archives with six layers that all share and one of their own.
func archives(dir string, c corpus, count, shared, own int) (dataset, error) {
	d := dataset{name: fmt.Sprintf("%d archives of %d MiB, %d MiB of it shared", count, (shared+own)>>20, shared>>20)}
	var common [][]byte
	for i := range 6 {
		common = append(common, layer(c, i*shared/6, shared/6))
	}
	for i := range count + 1 {
		name := fmt.Sprintf("svc%d", i%count)
		path := storePath(dir, fmt.Sprintf("%s-%d.tar", name, i/count))
		if err := writeArchive(path, append(common[:6:6], layer(c, shared+1_000_003*i, own))); err != nil {
			return d, err
		}
		if it := (item{name: name, path: path, archive: path}); i < count {
			d.images = append(d.images, it)
		} else {
			d.changed = it
		}
	}
	return d, nil
}

// layer is a tar of one file.
func layer(c corpus, offset, size int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b) // into memory: it cannot fail
	w.WriteHeader(&tar.Header{Name: fmt.Sprintf("content-%d", offset), Mode: 0o644, Size: int64(size), Typeflag: tar.TypeReg})
	w.Write(c.piece(offset, size))
	w.Close()
	return b.Bytes()
}

// writeArchive writes a docker-archive.
func writeArchive(path string, layers [][]byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buffered := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(buffered)
	add := func(name string, content []byte) error {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg})
		if err == nil {
			_, err = w.Write(content)
		}
		return err
	}
	var names, ids []string
	for i, l := range layers {
		names = append(names, fmt.Sprintf("%d/layer.tar", i))
		ids = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(l)))
		if err := add(names[i], l); err != nil {
			return err
		}
	}
	config, _ := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	manifest, _ := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{}, "Layers": names}})
	return errors.Join(add("config.json", config), add("manifest.json", manifest), w.Close(), buffered.Flush())
}

// put writes a file into the store below dir and returns its path there.
func put(dir, name string, content []byte, mode os.FileMode) (string, error) {
	path := storePath(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return logical(dir, path), os.WriteFile(path, content, mode)
}

// stream is one streamLayeredImage with a store path in each of its layers.
func stream(dir string, c corpus, layers, size int) (dataset, error) {
	d := dataset{name: fmt.Sprintf("a streamLayeredImage of %d layers, %d MiB", layers, layers*size>>20)}
	empty, err := put(dir, "customisation", nil, 0o444)
	if err != nil {
		return d, err
	}
	var none bytes.Buffer
	tar.NewWriter(&none).Close()
	if err := errors.Join(os.Remove(dir+empty), os.MkdirAll(dir+empty, 0o755), os.WriteFile(dir+empty+"/layer.tar", none.Bytes(), 0o444),
		os.WriteFile(dir+empty+"/checksum", fmt.Appendf(nil, "%x\n", sha256.Sum256(none.Bytes())), 0o444)); err != nil {
		return d, err
	}
	for version := range 2 {
		var paths [][]string
		for i := range layers {
			n := i
			if version == 1 && i == layers-1 {
				n = layers // the last one changed
			}
			path, err := put(dir, fmt.Sprintf("part%d", n), c.piece(n*1_000_003, size), 0o444)
			if err != nil {
				return d, err
			}
			paths = append(paths, []string{path})
		}
		conf, err := json.Marshal(map[string]any{"architecture": "amd64", "config": map[string]any{}, "created": "1970-01-01T00:00:01Z",
			"customisation_layer": empty, "from_image": nil, "store_dir": "/nix/store", "store_layers": paths, "repo_tag": "app:latest"})
		if err != nil {
			return d, err
		}
		confPath, err := put(dir, fmt.Sprintf("app%d-conf.json", version), conf, 0o444)
		if err != nil {
			return d, err
		}
		script, err := put(dir, fmt.Sprintf("stream-app%d", version), []byte("#!/bin/sh\nexec stream "+confPath+" \"$@\"\n"), 0o555)
		if err != nil {
			return d, err
		}
		it := item{name: "app", path: dir + script, script: []string{"imagetool", "stream", "--root", dir, confPath}}
		if version == 0 {
			d.images = []item{it}
		} else {
			d.changed = it
		}
	}
	return d, nil
}

// nix2container are images with layers that all share and two of their own.
func nix2container(dir string, c corpus, images, shared, size int) (dataset, error) {
	d := dataset{name: fmt.Sprintf("%d nix2container images, %d layers shared and 2 of their own, %d MiB in all", images, shared, (shared+2*images)*size>>20)}
	made := map[int]any{} // layers, by number
	for i := range images + 1 {
		var layers []any
		for n := range shared + 2 {
			if n >= shared {
				n += 2 * i
			}
			if made[n] == nil {
				path, err := put(dir, fmt.Sprintf("n2c%d", n), c.piece(n*2_000_003, size), 0o444)
				if err != nil {
					return d, err
				}
				if made[n], err = n2cLayer(dir, path); err != nil {
					return d, err
				}
			}
			layers = append(layers, made[n])
		}
		name := fmt.Sprintf("n2c%d", i%images)
		text, err := json.Marshal(map[string]any{"version": 1, "image-config": map[string]any{}, "arch": "amd64", "created": "0001-01-01T00:00:00Z", "layers": layers})
		if err != nil {
			return d, err
		}
		path, err := put(dir, fmt.Sprintf("%s-%d.json", name, i/images), text, 0o444)
		if err != nil {
			return d, err
		}
		it := item{name: name, path: dir + path, archive: filepath.Join(dir, fmt.Sprintf("%s-%d.tar", name, i/images))}
		if err := flatten(it); err != nil {
			return d, err
		}
		if i < images {
			d.images = append(d.images, it)
		} else {
			d.changed = it
		}
	}
	return d, nil
}

// n2cLayer describes the layer of one store path. Its digest is what writing it against a wrong one says.
func n2cLayer(dir, path string) (any, error) {
	describe := func(digest string, size int64) map[string]any {
		return map[string]any{"digest": digest, "diff_ids": digest, "size": size, "paths": []any{map[string]any{"path": path}},
			"mediatype": "application/vnd.oci.image.layer.v1.tar", "History": map[string]any{"created_by": "nix2container"}}
	}
	const wrong = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	text, err := json.Marshal(map[string]any{"version": 1, "arch": "amd64", "layers": []any{describe(wrong, 0)}})
	if err != nil {
		return nil, err
	}
	probe, err := put(dir, "probe.json", text, 0o644)
	if err != nil {
		return nil, err
	}
	img, err := image.Open(dir+probe, image.Options{Store: handoff.Store{Dir: "/nix/store", Root: dir}})
	if err != nil {
		return nil, err
	}
	defer img.Close()
	var size counted
	found := new(image.DigestError)
	if err := img.Layers[0].WriteTar(&size); !errors.As(err, &found) {
		return nil, fmt.Errorf("the digest of %s: %w", path, err)
	}
	return describe(found.Got.String(), int64(size)), nil
}

type counted int64

func (c *counted) Write(p []byte) (int, error) {
	*c += counted(len(p))
	return len(p), nil
}

// flatten writes an image's docker-archive.
func flatten(it item) error {
	img, err := image.Open(it.path, image.Options{Store: image.StoreOf(it.path)})
	if err != nil {
		return err
	}
	defer img.Close()
	var layers [][]byte
	for _, l := range img.Layers {
		var b bytes.Buffer
		if err := l.WriteTar(&b); err != nil {
			return err
		}
		if l.DiffID == (v1.Hash{}) {
			return io.ErrUnexpectedEOF
		}
		layers = append(layers, b.Bytes())
	}
	return writeArchive(it.archive, layers)
}

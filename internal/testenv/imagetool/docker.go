package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// archive is a docker-archive in memory: the images here are small.
type archive struct {
	members  map[string]archived // by name
	layers   []string            // names of the layers, lowest first
	config   object
	configID string // the configuration's member, without .json
}

type archived struct {
	head    *tar.Header
	content []byte
}

// openArchive reads a docker-archive, plain or compressed, to be the base of another image.
func (s store) openArchive(path string) (*archive, error) {
	f, err := os.Open(s.physical(path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plain, err := decompress(f)
	if err != nil {
		return nil, err
	}
	a := &archive{members: map[string]archived{}}
	for r := tar.NewReader(plain); ; {
		head, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		a.members[strings.TrimPrefix(head.Name, "./")] = archived{head, content}
	}
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(a.members["manifest.json"].content, &manifest); err != nil || len(manifest) == 0 {
		return nil, fmt.Errorf("%s: no usable manifest.json: %v", path, err)
	}
	config, err := parseJSON(a.members[manifest[0].Config].content)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", path, manifest[0].Config, err)
	}
	a.layers, a.configID = manifest[0].Layers, strings.TrimSuffix(manifest[0].Config, ".json")
	a.config, _ = config.(object)
	return a, nil
}

// copyLayers adds the base's layers to a stream, under their old names and with their old headers.
func (a *archive) copyLayers(out *tarWriter) ([]layerInfo, error) {
	rootfs, _ := a.config.get("rootfs").(object)
	diffIDs, _ := rootfs.get("diff_ids").([]any)
	if len(diffIDs) != len(a.layers) {
		return nil, fmt.Errorf("%d layers, %d diff IDs", len(a.layers), len(diffIDs))
	}
	var layers []layerInfo
	for i, name := range a.layers {
		m, ok := a.members[name]
		if !ok {
			return nil, fmt.Errorf("layer %s is not in the archive", name)
		}
		h := header{name: name, mode: m.head.Mode, mtime: m.head.ModTime.Unix(),
			uid: m.head.Uid, gid: m.head.Gid, uname: m.head.Uname, gname: m.head.Gname}
		if err := out.addBytes(h, m.content); err != nil {
			return nil, err
		}
		id, _ := diffIDs[i].(string)
		layers = append(layers, layerInfo{hash: strings.TrimPrefix(id, "sha256:"), path: name, paths: []string{name}})
	}
	return layers, nil
}

// env is the base's environment.
func (a *archive) env() []any {
	config, _ := a.config.get("config").(object)
	env, _ := config.get("Env").([]any)
	return env
}

// overlay puts the base's environment under that of config; of two entries for one variable the last wins, in the place of
// the first. Nothing else is taken over.
func (a *archive) overlay(config object) object {
	mine, _ := config.get("Env").([]any)
	var merged []any
	at := map[string]int{}
	for _, entry := range append(append([]any{}, a.env()...), mine...) {
		text, _ := entry.(string)
		key, _, _ := strings.Cut(text, "=")
		if i, seen := at[key]; seen {
			merged[i] = text
			continue
		}
		at[key] = len(merged)
		merged = append(merged, text)
	}
	if len(merged) == 0 {
		return config
	}
	return config.with("Env", merged)
}

// paths are the names of everything in the base's layers, as "/nix/store/...".
func (a *archive) paths() (map[string]bool, error) {
	paths := map[string]bool{}
	for _, layer := range a.layers {
		r := tar.NewReader(bytes.NewReader(a.members[layer].content))
		for {
			head, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", layer, err)
			}
			paths["/"+strings.Trim(strings.TrimPrefix(head.Name, "."), "/")] = true
		}
	}
	return paths, nil
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// compress copies r to w: gz as pigz -nT does (no name, no time), zstd, or none. Equal input gives equal output.
func compress(w io.Writer, r io.Reader, how string) error {
	var c io.WriteCloser
	switch how {
	case "none":
		_, err := io.Copy(w, r)
		return err
	case "gz":
		c = gzip.NewWriter(w)
	case "zstd":
		// One at a time: how blocks fall depends on the number of workers.
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		c = z
	default:
		return fmt.Errorf("compress: %q is not one of gz, zstd, none", how)
	}
	if _, err := io.Copy(c, r); err != nil {
		return err
	}
	return c.Close()
}

// decompress looks at the first bytes, not at a name.
func decompress(r io.Reader) (io.Reader, error) {
	magic := make([]byte, 4)
	n, err := io.ReadFull(r, magic)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	whole := io.MultiReader(bytes.NewReader(magic[:n]), r)
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(whole)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstd.NewReader(whole)
	}
	return whole, nil
}

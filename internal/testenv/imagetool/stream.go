package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// streamConf is conf.json, what nixpkgs' stream_layered_image.py reads.
type streamConf struct {
	Architecture       string
	Created            string
	MTime              string // absent in older nixpkgs: created counts
	UID, GID           number
	Uname, Gname       string
	StoreDir           string     `json:"store_dir"`
	StoreLayers        [][]string `json:"store_layers"`
	CustomisationLayer string     `json:"customisation_layer"`
	FromImage          string     `json:"from_image"`
	RepoTag            string     `json:"repo_tag"`
}

// number is written as a number or as a text of digits.
type number int

func (n *number) UnmarshalJSON(text []byte) error {
	i, err := strconv.Atoi(strings.Trim(string(text), `"`))
	*n = number(i)
	return err
}

// layerInfo is a layer of the finished image.
type layerInfo struct {
	hash  string // sha256 of the layer's tar, in hex: its diff ID
	path  string // member of the archive
	paths []string
}

// stream prints the docker-archive that conf.json describes, as the script does under CPython 3.11. Like the script it
// reads each store path twice: the first time for the layer's hash, which names the member.
func (s store) stream(w io.Writer, conf []byte, repoTag string) error {
	c := streamConf{Uname: "root", Gname: "root", StoreDir: storeDir}
	if err := json.Unmarshal(conf, &c); err != nil {
		return fmt.Errorf("conf.json: %w", err)
	}
	ordered, err := parseJSON(conf)
	if err != nil {
		return fmt.Errorf("conf.json: %w", err)
	}
	config, _ := ordered.(object).get("config").(object)
	created, err := parseTime(c.Created)
	if err != nil {
		return err
	}
	mtime := created
	if c.MTime != "" {
		if mtime, err = parseTime(c.MTime); err != nil {
			return err
		}
	}
	if repoTag == "" {
		repoTag = c.RepoTag
	}

	out := &tarWriter{w: w}
	var layers []layerInfo
	if c.FromImage != "" {
		base, err := s.openArchive(c.FromImage)
		if err != nil {
			return fmt.Errorf("base image: %w", err)
		}
		if layers, err = base.copyLayers(out); err != nil {
			return fmt.Errorf("base image: %w", err)
		}
		config = base.overlay(config)
	}
	owner := header{mtime: mtime.Unix(), uid: int(c.UID), gid: int(c.GID), uname: c.Uname, gname: c.Gname}
	for _, paths := range c.StoreLayers {
		hash := sha256.New()
		size, err := s.storeLayer(hash, paths, c.StoreDir, owner)
		if err != nil {
			return err
		}
		layer := layerInfo{hash: hex.EncodeToString(hash.Sum(nil)), paths: paths}
		layer.path = layer.hash + "/layer.tar"
		pipe, feed := io.Pipe()
		go func() {
			_, err := s.storeLayer(feed, paths, c.StoreDir, owner)
			feed.CloseWithError(err)
		}()
		err = out.add(header{name: layer.path, kind: '0', mode: 0o644, size: size, mtime: mtime.Unix()}, pipe)
		pipe.Close()
		if err != nil {
			return err
		}
		layers = append(layers, layer)
	}
	layer, err := s.customisationLayer(out, c.CustomisationLayer, mtime)
	if err != nil {
		return fmt.Errorf("customisation layer: %w", err)
	}
	layers = append(layers, layer)

	var diffIDs, members []string
	history := []any{}
	for _, l := range layers {
		diffIDs = append(diffIDs, "sha256:"+l.hash)
		members = append(members, l.path)
		history = append(history, object{{"created", isoFormat(created)}, {"comment", "store paths: " + pythonList(l.paths)}})
	}
	image := pythonStyle.print(object{
		{"created", isoFormat(created)},
		{"architecture", c.Architecture},
		{"os", "linux"},
		{"config", config},
		{"rootfs", object{{"diff_ids", diffIDs}, {"type", "layers"}}},
		{"history", history},
	})
	name := fmt.Sprintf("%x.json", sha256.Sum256(image))
	file := header{name: name, mode: 0o644, mtime: mtime.Unix()}
	if err := out.addBytes(file, image); err != nil {
		return err
	}
	file.name = "manifest.json"
	manifest := pythonStyle.print([]any{object{{"Config", name}, {"RepoTags", []string{repoTag}}, {"Layers", members}}})
	if err := out.addBytes(file, manifest); err != nil {
		return err
	}
	return out.close()
}

// storeLayer writes a layer of store paths and returns its size.
func (s store) storeLayer(w io.Writer, paths []string, dir string, owner header) (int64, error) {
	t := &tarWriter{w: w}
	for _, name := range []string{"/nix", "/nix/store"} {
		h := owner
		h.name, h.kind, h.mode = name, '5', 0o755
		if err := t.add(h, nil); err != nil {
			return 0, err
		}
	}
	for _, path := range paths {
		if !strings.HasPrefix(path, dir) {
			return 0, fmt.Errorf("%s is not below %s", path, dir)
		}
		members, err := s.tree(path)
		if err != nil {
			return 0, err
		}
		for _, m := range members {
			if err := s.addMember(t, m, m.path, owner); err != nil {
				return 0, err
			}
		}
	}
	err := t.close()
	return t.n, err
}

// addMember writes a file, folder or link under another name and owner.
func (s store) addMember(t *tarWriter, m member, name string, owner header) error {
	h, err := describe(m.info, m.link)
	if err != nil {
		return err
	}
	h.name, h.mtime, h.uid, h.gid, h.uname, h.gname = name, owner.mtime, owner.uid, owner.gid, owner.uname, owner.gname
	if h.kind != '0' {
		return t.add(h, nil)
	}
	f, err := os.Open(s.physical(m.path))
	if err != nil {
		return err
	}
	defer f.Close()
	return t.add(h, f)
}

// customisationLayer copies the layer that was made beforehand, with the hash that was noted beside it. The script takes
// the member's owner from the file; here it is root always, so that the bytes do not depend on who runs it.
func (s store) customisationLayer(out *tarWriter, dir string, mtime time.Time) (layerInfo, error) {
	checksum, err := os.ReadFile(s.physical(filepath.Join(dir, "checksum")))
	if err != nil {
		return layerInfo{}, err
	}
	layer := layerInfo{hash: strings.TrimSpace(string(checksum)), paths: []string{dir}}
	if len(layer.hash) != 64 {
		return layerInfo{}, fmt.Errorf("%s/checksum is no sha256", dir)
	}
	layer.path = layer.hash + "/layer.tar"
	f, err := os.Open(s.physical(filepath.Join(dir, "layer.tar")))
	if err != nil {
		return layerInfo{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return layerInfo{}, err
	}
	h, err := describe(info, "")
	if err != nil {
		return layerInfo{}, err
	}
	h.name, h.mtime, h.uname, h.gname = layer.path, mtime.Unix(), "root", "root"
	return layer, out.add(h, f)
}

func parseTime(text string) (time.Time, error) {
	if text == "now" {
		return time.Now().UTC(), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("time %q: %w", text, err)
	}
	return t, nil
}

// isoFormat is Python's datetime.isoformat.
func isoFormat(t time.Time) string {
	if t.Nanosecond() >= 1000 {
		return t.Format("2006-01-02T15:04:05.000000-07:00")
	}
	return t.Format("2006-01-02T15:04:05-07:00")
}

// pythonList is Python's repr of a list of texts without quotes or control characters.
func pythonList(items []string) string {
	var b bytes.Buffer
	for i, item := range items {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("'" + item + "'")
	}
	return "[" + b.String() + "]"
}

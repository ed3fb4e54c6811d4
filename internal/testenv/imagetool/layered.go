package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// customisationSpec is the part of streamLayeredImage outside the store.
type customisationSpec struct {
	Contents []string `json:"contents"` // store paths whose trees are joined at /
}

// buildCustomisation writes layer.tar and its checksum: symbolic links at / to what the contents have, as symlinkJoin makes
// them, in GNU tar's format.
func buildCustomisation(t target, spec customisationSpec) error {
	root := &joined{folders: map[string]bool{"/": true}, links: map[string]string{}}
	for _, item := range spec.Contents {
		if err := root.join(t.store, item); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	w := &tarWriter{w: &b, gnu: true}
	names := slices.Concat(slices.Collect(maps.Keys(root.folders)), slices.Collect(maps.Keys(root.links)))
	slices.SortFunc(names, func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) })
	for _, name := range names {
		h := header{name: "." + name, kind: '5', mode: 0o755, mtime: 1, uname: "root", gname: "root"}
		if link, ok := root.links[name]; ok {
			h.kind, h.mode, h.link = '2', 0o777, link
		}
		if err := w.add(h, nil); err != nil {
			return err
		}
	}
	if err := w.close(); err != nil {
		return err
	}
	if err := os.Mkdir(t.out, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(t.out, "layer.tar"), b.Bytes(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(t.out, "checksum"), []byte(sha256Hex(b.Bytes())+"\n"), 0o644)
}

// joined is several trees in one: folders of their own, links to everything else. Names are absolute.
type joined struct {
	folders map[string]bool
	links   map[string]string
}

func (j *joined) parents(name string) {
	for dir := path.Dir(name); !j.folders[dir]; dir = path.Dir(dir) {
		j.folders[dir] = true
	}
}

func (j *joined) join(s store, item string) error {
	members, err := s.tree(item)
	if err != nil {
		return err
	}
	for _, m := range members {
		name := path.Clean("/" + strings.TrimPrefix(m.path, item))
		if m.info.IsDir() {
			j.folders[name] = true
			continue
		}
		if old, taken := j.links[name]; taken && old != m.path {
			return fmt.Errorf("%s comes from %s and from %s", name, old, m.path)
		}
		j.parents(name)
		j.links[name] = m.path
	}
	return nil
}

// confSpec is what streamLayeredImage knows when it writes conf.json.
type confSpec struct {
	Base               json.RawMessage `json:"base"` // architecture and config
	Name               string          `json:"name"`
	Tag                string          `json:"tag"` // empty: the hash of the output
	Created            string          `json:"created"`
	MTime              string          `json:"mtime"`
	FromImage          *string         `json:"fromImage"`
	CustomisationLayer string          `json:"customisationLayer"`
	Exclude            []string        `json:"exclude"` // in the closure because of how the image is made, not part of it
	MaxLayers          int             `json:"maxLayers"`
}

// buildConf writes conf.json. The graph is the closure of base and customisation layer.
func buildConf(t target, spec confSpec) error {
	used := 1 // the customisation layer
	if spec.FromImage != nil {
		base, err := t.store.openArchive(*spec.FromImage)
		if err != nil {
			return fmt.Errorf("base image: %w", err)
		}
		used += len(base.layers)
	}
	if used >= spec.MaxLayers {
		return fmt.Errorf("maxLayers is %d: %d are taken before the contents", spec.MaxLayers, used)
	}
	paths, err := byPopularity(t.graph)
	if err != nil {
		return err
	}
	paths = slices.DeleteFunc(paths, func(p string) bool { return slices.Contains(spec.Exclude, p) })
	layers := []any{}
	for _, group := range cut(paths, spec.MaxLayers-used) {
		layers = append(layers, group)
	}
	tag := spec.Tag
	if tag == "" {
		tag = hashPart(t.out)
	}
	created, err := isoTime(spec.Created)
	if err != nil {
		return err
	}
	mtime, err := isoTime(spec.MTime)
	if err != nil {
		return err
	}
	base, err := parseJSON(spec.Base)
	if err != nil {
		return err
	}
	var fromImage any
	if spec.FromImage != nil {
		fromImage = *spec.FromImage
	}
	conf, _ := base.(object)
	for _, f := range []field{
		{"store_dir", storeDir}, {"from_image", fromImage}, {"store_layers", layers}, {"customisation_layer", spec.CustomisationLayer},
		{"repo_tag", spec.Name + ":" + tag}, {"created", created}, {"mtime", mtime},
		{"uid", "0"}, {"gid", "0"}, {"uname", "root"}, {"gname", "root"},
	} {
		conf = conf.with(f.key, f.value)
	}
	return os.WriteFile(t.out, append(jqStyle.print(conf), '\n'), 0o644)
}

// isoTime is what date -Iseconds makes of a time.
func isoTime(text string) (string, error) {
	if text == "now" {
		return text, nil
	}
	created, err := parseTime(text)
	return isoFormat(created), err
}

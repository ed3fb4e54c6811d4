package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// archiveSpec are the arguments of dockerTools.buildImage.
type archiveSpec struct {
	Name       string          `json:"name"`
	Tag        string          `json:"tag"`      // empty: the hash of the output
	BaseJSON   json.RawMessage `json:"baseJson"` // created, config, architecture, os, and the stray preferLocalBuild
	CopyToRoot []string        `json:"copyToRoot"`
	FromImage  string          `json:"fromImage"` // empty: none
	Compressor string          `json:"compressor"`
	LayerDrv   string          `json:"layer"` // path in the graph that is not part of the image: what holds baseJson
}

// buildArchive writes a docker-archive the way buildImage lays it out: folders named by the hash of the layer's json file,
// with VERSION, json and layer.tar in them, and repositories beside the manifest. The graph is the closure of the
// configuration and of copyToRoot, which all goes into one layer.
func buildArchive(t target, spec archiveSpec) error {
	tag := spec.Tag
	if tag == "" {
		tag = hashPart(t.out)
	}
	parsed, err := parseJSON(spec.BaseJSON)
	if err != nil {
		return err
	}
	base, _ := parsed.(object)
	files := map[string][]byte{}
	var layers []string
	present := map[string]bool{}
	env := []any{}
	parent := ""
	if spec.FromImage != "" {
		from, err := t.store.openArchive(spec.FromImage)
		if err != nil {
			return fmt.Errorf("base image: %w", err)
		}
		if present, err = from.paths(); err != nil {
			return fmt.Errorf("base image: %w", err)
		}
		for name, m := range from.members {
			if strings.Contains(name, "/") && !strings.HasSuffix(name, "/") {
				files[name] = m.content
			}
		}
		layers, env, parent = from.layers, append(env, from.env()...), from.configID
	}

	tarball, err := archiveLayer(t, spec, present)
	if err != nil {
		return err
	}
	// Upstream's checksum is a tarsum; nothing reads it.
	about := base.with("checksum", "sha256:"+sha256Hex(tarball))
	if parent != "" {
		about = about.with("parent", parent)
	}
	id := sha256Hex(append(jshonStyle.print(about), '\n'))
	about = about.with("id", id).with("Size", len(tarball))
	files[id+"/json"] = append(jshonStyle.print(about), '\n')
	files[id+"/VERSION"] = []byte("1.0")
	files[id+"/layer.tar"] = tarball
	layers = append(slices.Clone(layers), id+"/layer.tar")

	config, _ := base.get("config").(object)
	if mine, ok := config.get("Env").([]any); ok {
		env = append(env, mine...)
	}
	var diffIDs []string
	history := []any{}
	for _, layer := range layers {
		diffIDs = append(diffIDs, "sha256:"+sha256Hex(files[layer]))
		history = append(history, object{{"created", base.get("created")}})
	}
	image := base.with("config", config.with("Env", env)).
		with("rootfs", object{{"diff_ids", diffIDs}, {"type", "layers"}}).with("history", history)
	text := append(jqStyle.print(image), '\n')
	name := sha256Hex(text) + ".json"
	files[name] = text
	files["manifest.json"] = append(jqStyle.print([]any{object{
		{"RepoTags", []string{spec.Name + ":" + tag}}, {"Layers", layers}, {"Config", name}}}), '\n')
	files["repositories"] = append(jshonStyle.print(object{{spec.Name, object{{tag, id}}}}), '\n')
	return writeArchive(t.out, files, spec.Compressor)
}

// archiveLayer is the one new layer: the contents merged at /, then every store path the configuration needs and the base
// does not have. GNU tar drops the leading slash of what it appends: names with and without "./" are both in one layer.
func archiveLayer(t target, spec archiveSpec, present map[string]bool) ([]byte, error) {
	var b bytes.Buffer
	w := &tarWriter{w: &b, gnu: true}
	owner := header{mtime: 1, uname: "root", gname: "root"}
	folder := func(name string, mode int64) error {
		h := owner
		h.name, h.kind, h.mode = name, '5', mode
		return w.add(h, nil)
	}
	if err := folder("./", 0o755); err != nil {
		return nil, err
	}
	merged := map[string]member{}
	for _, item := range spec.CopyToRoot {
		members, err := t.store.tree(item)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			if name := path.Clean("/" + strings.TrimPrefix(m.path, item)); name != "/" {
				merged[name] = m
			}
		}
	}
	names := slices.SortedFunc(maps.Keys(merged), func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	})
	for _, name := range names {
		if err := t.store.addMember(w, merged[name], "."+name, owner); err != nil {
			return nil, err
		}
	}
	var closure []member
	for _, n := range t.graph {
		if n.Path == spec.LayerDrv || slices.Contains(spec.CopyToRoot, n.Path) && !referenced(t.graph, n.Path) {
			continue
		}
		members, err := t.store.tree(n.Path)
		if err != nil {
			return nil, err
		}
		closure = append(closure, members...)
	}
	closure = slices.DeleteFunc(closure, func(m member) bool { return present[m.path] })
	slices.SortFunc(closure, func(a, b member) int { return strings.Compare(a.path, b.path) })
	if len(closure) > 0 && !present[storeDir] {
		for _, name := range []string{"./nix", "./nix/store"} {
			if err := folder(name, 0o555); err != nil {
				return nil, err
			}
		}
	}
	for _, m := range closure {
		if err := t.store.addMember(w, m, strings.TrimPrefix(m.path, "/"), owner); err != nil {
			return nil, err
		}
	}
	if err := w.close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// referenced says whether another path of the graph needs this one where it is.
func referenced(graph []node, path string) bool {
	return slices.ContainsFunc(graph, func(n node) bool { return n.Path != path && slices.Contains(n.References, path) })
}

// writeArchive packs files as GNU tar --sort=name does, folders included, all read-only.
func writeArchive(out string, files map[string][]byte, compressor string) error {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	names := slices.Collect(maps.Keys(files))
	for name := range files {
		if dir := path.Dir(name); dir != "." && !slices.Contains(names, dir+"/") {
			names = append(names, dir+"/")
		}
	}
	slices.Sort(names)
	var b bytes.Buffer
	w := &tarWriter{w: &b, gnu: true}
	head := header{name: "./", kind: '5', mode: 0o555, mtime: 1, uname: "root", gname: "root"}
	if err := w.add(head, nil); err != nil {
		return err
	}
	for _, name := range names {
		head.name, head.kind, head.mode, head.size = name, '0', 0o444, int64(len(files[name]))
		if strings.HasSuffix(name, "/") {
			head.kind, head.mode = '5', 0o555
		}
		if err := w.add(head, bytes.NewReader(files[name])); err != nil {
			return err
		}
	}
	if err := w.close(); err != nil {
		return err
	}
	if err := compress(f, &b, compressor); err != nil {
		return err
	}
	return f.Close()
}

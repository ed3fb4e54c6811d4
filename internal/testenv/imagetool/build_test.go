package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	hello = "/nix/store/pazrn4zbp9k98h1qbfqcpipd2rcpgx32-hello-1.0"
	tree  = "/nix/store/p8szpqpx1vlllmdg2y00wfch3wrxiwaz-tree-2.1"
	moved = "/nix/store/8knqqhv0y7wqiz9wa78kl7avr9p43ank-root-copy"
)

var closure = []node{
	{Path: moved, References: []string{hello, moved}},
	{Path: tree},
	{Path: hello, References: []string{hello}},
}

func TestByPopularity(t *testing.T) {
	tests := []struct {
		name  string
		graph []node
		want  []string
		err   string
	}{
		{"nothing", nil, nil, ""},
		{"what others need comes first, then names", closure, []string{hello, moved, tree}, ""},
		{"counts add up along the way", []node{
			{"a", []string{"b"}}, {"b", []string{"c"}}, {"c", nil}, {"d", []string{"e"}}, {"e", nil}},
			[]string{"c", "b", "e", "a", "d"}, ""},
		{"a circle", []node{{"a", []string{"b"}}, {"b", []string{"a"}}}, nil, "in a circle"},
		{"a hole", []node{{"a", []string{"b"}}}, nil, "a refers to b, which is not in it"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := byPopularity(test.graph)
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			if msg := fmt.Sprint(err); test.err == "" && err != nil || !strings.Contains(msg, test.err) {
				t.Errorf("error is %v, want %q", err, test.err)
			}
		})
	}
}

func TestCut(t *testing.T) {
	for limit, want := range map[int][][]string{
		1: {{"a", "b", "c"}},
		2: {{"a"}, {"b", "c"}},
		3: {{"a"}, {"b"}, {"c"}},
		9: {{"a"}, {"b"}, {"c"}},
	} {
		if d := cmp.Diff(want, cut([]string{"a", "b", "c"}, limit)); d != "" {
			t.Errorf("cut(a b c, %d): -want +got\n%s", limit, d)
		}
	}
}

// buildImage's layout, in each compression, with and without a base image.
func TestArchive(t *testing.T) {
	s := goldenStore(t)
	base := filepath.Join(storeDir, strings.Repeat("b", 32)+"-docker-image-base.tar.gz")
	build := func(out string, spec archiveSpec, graph []node) {
		t.Helper()
		if err := buildArchive(target{out: s.physical(out), graph: graph, store: s}, spec); err != nil {
			t.Fatal(err)
		}
	}
	config := func(env string) json.RawMessage {
		return json.RawMessage(`{"architecture":"amd64","config":{"Env":["` + env + `"]},"created":"1970-01-01T00:00:01Z","os":"linux","preferLocalBuild":true}`)
	}
	build(base, archiveSpec{Name: "base", BaseJSON: config("A=1"), CopyToRoot: []string{moved}, Compressor: "gz"}, closure[:1:1])

	for compressor, magic := range map[string]string{"none": "./\x00", "gz": "\x1f\x8b", "zstd": "\x28\xb5\x2f\xfd"} {
		t.Run(compressor, func(t *testing.T) {
			out := filepath.Join(storeDir, strings.Repeat("c", 32)+"-"+compressor)
			build(out, archiveSpec{Name: "app", BaseJSON: config("B=2"), FromImage: base, Compressor: compressor}, closure[1:])
			if !bytes.HasPrefix(read(t, s.physical(out)), []byte(magic)) {
				t.Errorf("begins %q, want %q", read(t, s.physical(out))[:4], magic)
			}
			a, err := s.openArchive(out)
			if err != nil {
				t.Fatal(err)
			}
			checkArchive(t, a)
			if d := cmp.Diff([]any{"A=1", "B=2"}, a.env()); d != "" {
				t.Errorf("Env: -want +got\n%s", d)
			}
			if want := `"RepoTags": [
      "app:` + strings.Repeat("c", 32) + `"`; !bytes.Contains(a.members["manifest.json"].content, []byte(want)) {
				t.Errorf("manifest.json is %s", a.members["manifest.json"].content)
			}
			if len(a.layers) != 2 {
				t.Fatalf("layers are %q, want the base's and one", a.layers)
			}
			lower, upper := layerNames(t, a, 0), layerNames(t, a, 1)
			if !slices.Contains(lower, "./bin/hello") || slices.Contains(upper, "./bin/hello") {
				t.Errorf("bin/hello belongs to the base alone: %q, %q", lower, upper)
			}
			if name := strings.TrimPrefix(hello, "/") + "/bin/hello"; !slices.Contains(upper, name) {
				t.Errorf("%s is not in the new layer: %q", name, upper)
			}
		})
	}
}

// checkArchive checks what holds for every archive of buildImage.
func checkArchive(t *testing.T, a *archive) {
	t.Helper()
	if got := sha256Hex(a.members[a.configID+".json"].content); got != a.configID {
		t.Errorf("the configuration is named %s, its hash is %s", a.configID, got)
	}
	rootfs, _ := a.config.get("rootfs").(object)
	for i, id := range rootfs.get("diff_ids").([]any) {
		dir := filepath.Dir(a.layers[i])
		if want := "sha256:" + sha256Hex(a.members[a.layers[i]].content); id != want {
			t.Errorf("diff ID %d is %s, the layer's hash is %s", i, id, want)
		}
		about, err := parseJSON(a.members[dir+"/json"].content)
		if err != nil {
			t.Fatal(err)
		}
		// The folder's name is the hash of json as it was before id and Size were put in.
		bare := slices.DeleteFunc(about.(object), func(f field) bool { return f.key == "id" || f.key == "Size" })
		if got := sha256Hex(append(jshonStyle.print(bare), '\n')); got != dir {
			t.Errorf("layer folder %s is not the hash %s of its json", dir, got)
		}
		if got := string(a.members[dir+"/VERSION"].content); got != "1.0" {
			t.Errorf("VERSION is %q", got)
		}
	}
	if _, ok := a.members["repositories"]; !ok {
		t.Error("no repositories")
	}
	if _, ok := a.members[filepath.Dir(a.layers[0])+"/"]; !ok {
		t.Error("folders are no members")
	}
}

func layerNames(t *testing.T, a *archive, i int) []string {
	t.Helper()
	var names []string
	for r := tar.NewReader(bytes.NewReader(a.members[a.layers[i]].content)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

// GNU tar's long names are read back by another implementation.
func TestGNULongNames(t *testing.T) {
	var b bytes.Buffer
	w := &tarWriter{w: &b, gnu: true}
	long := strings.Repeat("long/", 30)
	if err := w.add(header{name: long + "name", link: long, kind: '2', mode: 0o777}, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	h, err := tar.NewReader(&b).Next()
	if err != nil {
		t.Fatal(err)
	}
	if h.Name != long+"name" || h.Linkname != long {
		t.Errorf("read back as %q -> %q", h.Name, h.Linkname)
	}
}

func TestConf(t *testing.T) {
	s := store{root: t.TempDir()}
	out := filepath.Join(s.root, strings.Repeat("c", 32)+"-app-conf.json")
	spec := confSpec{
		Base: json.RawMessage(`{"architecture":"arm64","config":{},"os":"linux"}`), Name: "app",
		Created: "1970-01-01T00:00:01Z", MTime: "1970-01-01T00:00:01Z",
		CustomisationLayer: tree, Exclude: []string{tree}, MaxLayers: 2,
	}
	if err := buildConf(target{out: out, graph: closure, store: s}, spec); err != nil {
		t.Fatal(err)
	}
	var got streamConf
	if err := json.Unmarshal(read(t, out), &got); err != nil {
		t.Fatal(err)
	}
	want := streamConf{
		Architecture: "arm64", Created: "1970-01-01T00:00:01+00:00", MTime: "1970-01-01T00:00:01+00:00", Uname: "root", Gname: "root",
		StoreDir: storeDir, StoreLayers: [][]string{{hello, moved}}, CustomisationLayer: tree, RepoTag: "app:" + strings.Repeat("c", 32),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("conf.json: -want +got\n%s", d)
	}
	spec.MaxLayers = 1
	if err := buildConf(target{out: out, graph: closure, store: s}, spec); err == nil {
		t.Error("no error, though the customisation layer leaves no room for the contents")
	}
}

func TestCustomisationLinksContents(t *testing.T) {
	s := goldenStore(t)
	out := filepath.Join(t.TempDir(), "out")
	if err := buildCustomisation(target{out: out, store: s}, customisationSpec{Contents: []string{moved, hello}}); err == nil {
		t.Error("no error, though both contents have bin/hello")
	}
	if err := buildCustomisation(target{out: out, store: s}, customisationSpec{Contents: []string{moved}}); err != nil {
		t.Fatal(err)
	}
	layer := read(t, filepath.Join(out, "layer.tar"))
	if got := strings.TrimSpace(string(read(t, filepath.Join(out, "checksum")))); got != sha256Hex(layer) {
		t.Errorf("checksum is %s, the layer's is %s", got, sha256Hex(layer))
	}
	links := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		links[h.Name] = h.Linkname
	}
	want := map[string]string{
		"./": "", "./bin/": "", "./bin/hello": moved + "/bin/hello", "./bin/run": moved + "/bin/run",
		"./etc/": "", "./etc/app/": "", "./etc/app/conf": moved + "/etc/app/conf",
	}
	if d := cmp.Diff(want, links); d != "" {
		t.Errorf("members: -want +got\n%s", d)
	}
}

// A layer leaves out what its parents have; one that is not reproducible keeps its tar.
func TestLayersOnParents(t *testing.T) {
	s := goldenStore(t)
	dir := func(name string) target { return target{out: filepath.Join(s.root, name), graph: closure, store: s} }
	if err := buildLayers(dir("one"), layersSpec{MaxLayers: 1, Reproducible: true}); err != nil {
		t.Fatal(err)
	}
	two := dir("two")
	if err := buildLayers(two, layersSpec{MaxLayers: 1, CopyToRoot: []string{tree}, Parents: []string{"/one"}}); err != nil {
		t.Fatal(err)
	}
	var layers []n2cLayer
	if err := readN2C(filepath.Join(two.out, "layers.json"), &layers); err != nil {
		t.Fatal(err)
	}
	if len(layers) != 1 || len(layers[0].Paths) != 1 || layers[0].Paths[0].Path != tree {
		t.Fatalf("layers are %+v, want one with %s, which is at / here and was not in the parent", layers, tree)
	}
	if got := "sha256:" + sha256Hex(read(t, layers[0].LayerPath)); got != layers[0].Digest {
		t.Errorf("the kept tar's digest is %s, layers.json has %s", got, layers[0].Digest)
	}
	files, err := os.ReadDir(two.out)
	if err != nil || len(files) != 2 {
		t.Errorf("the folder has %v, %v; want layers.json and one tar", files, err)
	}
}

func TestBadCommands(t *testing.T) {
	for _, args := range [][]string{nil, {"nosuch"}, {"compress"}, {"compress", "xz"}, {"stream", "a", "b"}, {"stream", "/nosuch"}, {"archive"}} {
		if err := run(append([]string{"imagetool"}, args...), strings.NewReader(""), io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

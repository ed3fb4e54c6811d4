package image

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/flakeship/flakeship/internal/handoff"
)

// goldenStore unpacks the store paths the golden files were made of, as nix-store --import would, below a folder of the test.
func goldenStore(t testing.TB) handoff.Store {
	t.Helper()
	f, err := os.Open("testdata/golden/store-paths.export.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	export, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	store := handoff.Store{Dir: "/nix/store", Root: root}
	if err := os.MkdirAll(filepath.Join(root, "nix/store"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { makeWritable(root) })
	unpackExport(t, root, export)
	return store
}

// makeWritable lets the test's folder be removed: store paths are read-only.
func makeWritable(root string) {
	filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(p, 0o755)
		}
		return nil
	})
}

// export reads the serialisation of nix-store --export: NARs, each followed by its path, references and deriver.
type export struct {
	t testing.TB
	b []byte
}

func unpackExport(t testing.TB, root string, b []byte) {
	x := &export{t, b}
	for x.number() == 1 {
		nar := filepath.Join(root, "unpacked")
		x.want("nix-archive-1")
		x.node(nar)
		if magic := x.number(); magic != 0x4558494e {
			t.Fatalf("export magic = %x", magic)
		}
		p := x.text()
		for range x.number() {
			x.text() // references
		}
		x.text() // deriver
		x.number()
		if err := os.Rename(nar, root+p); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(root + p); err == nil && info.IsDir() {
			os.Chmod(root+p, 0o555)
		}
	}
}

func (x *export) number() uint64 {
	if len(x.b) < 8 {
		x.t.Fatal("export is cut short")
	}
	n := binary.LittleEndian.Uint64(x.b)
	x.b = x.b[8:]
	return n
}

func (x *export) text() string {
	n := int(x.number())
	s := string(x.b[:n])
	x.b = x.b[(n+7)/8*8:]
	return s
}

func (x *export) want(s string) {
	x.t.Helper()
	if got := x.text(); got != s {
		x.t.Fatalf("export has %q, want %q", got, s)
	}
}

func (x *export) node(at string) {
	check := func(err error) {
		if err != nil {
			x.t.Fatal(err)
		}
	}
	x.want("(")
	x.want("type")
	switch x.text() {
	case "symlink":
		x.want("target")
		check(os.Symlink(x.text(), at))
		x.want(")")
	case "regular":
		mode := os.FileMode(0o444)
		tag := x.text()
		if tag == "executable" {
			mode = 0o555
			x.want("")
			tag = x.text()
		}
		content := ""
		if tag == "contents" {
			content = x.text()
			tag = x.text()
		}
		check(os.WriteFile(at, []byte(content), 0o644))
		check(os.Chmod(at, mode))
		if tag != ")" {
			x.t.Fatalf("file ends with %q", tag)
		}
	case "directory":
		check(os.Mkdir(at, 0o755))
		for tag := x.text(); tag != ")"; tag = x.text() {
			x.want("(")
			x.want("name")
			name := x.text()
			x.want("node")
			x.node(filepath.Join(at, name))
			x.want(")")
		}
		if filepath.Base(at) != "unpacked" { // a read-only folder cannot be renamed by everybody
			check(os.Chmod(at, 0o555))
		}
	}
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/golden", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// put writes a file of the store.
func put(t testing.TB, s handoff.Store, name, text string, mode os.FileMode) string {
	t.Helper()
	p := s.Root + name
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return p
}

// goldenScript is a stream script like makeWrapper's, for the golden conf.json.
func goldenScript(t testing.TB, s handoff.Store) string {
	conf := "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-golden-conf.json"
	put(t, s, conf, string(golden(t, "stream/conf.json")), 0o444)
	return put(t, s, "/nix/store/1123456789abcdfghijklmnpqrsvwxyz-stream-golden", "#! /bin/sh -e\nexec \"/nix/store/2123456789abcdfghijklmnpqrsvwxyz-stream\" "+conf+" \"$@\"\n", 0o555)
}

func open(t testing.TB, path string, s handoff.Store) *Image {
	t.Helper()
	img, err := Open(path, Options{Store: s, Temp: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// writeAll writes every layer, returns their diffIDs and sizes, and fails the test when one cannot be written.
func writeAll(t testing.TB, img *Image) (ids []v1.Hash, sizes []int64) {
	t.Helper()
	for i, l := range img.Layers {
		var n counter
		n.w = io.Discard
		err := l.WriteTar(&n)
		if errors.Is(err, ErrAgain) {
			n.n = 0
			err = l.WriteTar(&n)
		}
		if err != nil {
			t.Fatalf("layer %d: %v", i+1, err)
		}
		ids, sizes = append(ids, l.DiffID), append(sizes, n.n)
	}
	return ids, sizes
}

func hexes(ids []v1.Hash) (texts []string) {
	for _, id := range ids {
		texts = append(texts, id.String())
	}
	return texts
}

// A stream image is what nixpkgs' script prints under CPython, byte for byte: layers, config and the whole archive.
func TestStreamIsWhatTheScriptPrints(t *testing.T) {
	var want struct {
		Config     string   `json:"config_digest"`
		DiffIDs    []string `json:"diff_ids"`
		LayerSizes []int64  `json:"layer_sizes"`
	}
	if err := json.Unmarshal(golden(t, "stream/want.json"), &want); err != nil {
		t.Fatal(err)
	}
	store := goldenStore(t)
	script := goldenScript(t, store)
	img := open(t, script, store)
	if img.Family != handoff.Stream || img.Platform.Architecture != "amd64" || img.Platform.OS != "linux" {
		t.Errorf("opened as %s for %s", img.Family, img.Platform)
	}
	ids, sizes := writeAll(t, img)
	if diff := cmp.Diff(want.DiffIDs, hexes(ids)); diff != "" {
		t.Errorf("diffIDs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want.LayerSizes, sizes); diff != "" {
		t.Errorf("sizes (-want +got):\n%s", diff)
	}
	config, err := img.Config(ids)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(golden(t, "stream/config.json")), string(config)); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if got := hash256(config); got != want.Config {
		t.Errorf("config digest = %s, want %s", got, want.Config)
	}
}

// A nix2container layer is written again with the digest and size it had when nix2container made it.
func TestNix2ContainerLayersAreWrittenAgain(t *testing.T) {
	store := goldenStore(t)
	text := golden(t, "nix2container/image.json")
	var want n2cImage
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	img := open(t, put(t, store, "/nix/store/3123456789abcdfghijklmnpqrsvwxyz-image-golden.json", string(text), 0o444), store)
	if img.Family != handoff.Nix2Container {
		t.Errorf("opened as %s", img.Family)
	}
	ids, sizes := writeAll(t, img)
	for i, l := range want.Layers {
		if ids[i].String() != l.Digest || sizes[i] != l.Size {
			t.Errorf("layer %d = %s, %d bytes, want %s, %d", i+1, ids[i], sizes[i], l.Digest, l.Size)
		}
	}
	config, err := img.Config(ids)
	if err != nil {
		t.Fatal(err)
	}
	const wantConfig = `{"created":"2024-05-06T07:08:09Z","architecture":"amd64","os":"linux","config":{` +
		`"Env":["A=\u003c1\u003e\u00262"],"Entrypoint":["/nix/store/pazrn4zbp9k98h1qbfqcpipd2rcpgx32-hello-1.0/bin/hello"],` +
		`"Labels":{"org.opencontainers.image.title":"golden"}},"rootfs":{"type":"layers","diff_ids":["` +
		`sha256:ea45857cb837b44b4924704b6aa067c64ddf36d2e5ffa3d523abd1c098be2870","` +
		`sha256:e173c2afbb46580b1425aa8dfff0c45a04a1ae26125842d1125f644a22cc59c1","` +
		`sha256:4231f3f9a1e8531896628a543d32f8950184e3723d787f8c31444b4e03ce9e6f"]},` +
		`"history":[{"created_by":"golden"},{"created_by":"golden"},{"created_by":"golden"}]}`
	if diff := cmp.Diff(wantConfig, string(config)); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

// Layers made by older nix2container versions are recognised by trying how these wrote them.
func TestNix2ContainerOlderVersions(t *testing.T) {
	store := goldenStore(t)
	var first n2cImage
	if err := json.Unmarshal(golden(t, "nix2container/image.json"), &first); err != nil {
		t.Fatal(err)
	}
	layer := first.Layers[0] // the one with perms
	for _, variant := range []n2cVariant{{mtime0: true}, {gnameBug: true}, {mtime0: true, gnameBug: true, noParents: true}} {
		source, err := newN2CSource(layer.Paths, store)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if err := source.write(sum, variant); err != nil {
			t.Fatal(err)
		}
		l := &Layer{Name: "old", DiffID: hash(sum.Sum(nil)), source: source}
		if l.DiffID.String() == layer.Digest {
			t.Fatalf("%+v writes the same bytes as the present version", variant)
		}
		if err := l.WriteTar(io.Discard); !errors.Is(err, ErrAgain) {
			t.Errorf("%+v: first WriteTar = %v, want ErrAgain", variant, err)
		}
		if err := l.WriteTar(io.Discard); err != nil {
			t.Errorf("%+v: second WriteTar = %v", variant, err)
		}
	}
}

// A store path that is not what it was when the image was made is noticed.
func TestNix2ContainerLayerThatLies(t *testing.T) {
	store := goldenStore(t)
	text := strings.Replace(string(golden(t, "nix2container/image.json")), "sha256:4231", "sha256:4232", 2)
	img := open(t, put(t, store, "/nix/store/3123456789abcdfghijklmnpqrsvwxyz-image-golden.json", text, 0o444), store)
	err := img.Layers[2].WriteTar(io.Discard)
	wrong := new(DigestError)
	if !errors.As(err, &wrong) || !strings.Contains(wrong.Layer, "-hello-1.0") {
		t.Errorf("WriteTar = %v, want a *DigestError that names the store path", err)
	}
}

package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/streamconf"
)

// entry is a member of an archive a test makes.
type entry struct {
	name, content string
	kind          byte // 0: a file
	link          string
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.content)), Typeflag: tar.TypeReg, Linkname: e.link}
		if e.kind != 0 {
			h.Typeflag = e.kind
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped9(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func zstded(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(b, nil)
}

// Two layers and the config that names them.
const (
	layerA = "layer a, not a real tar"
	layerB = "layer b, longer than the other one"
)

func configOf(layers ...string) string {
	var ids []string
	for _, l := range layers {
		ids = append(ids, hash256([]byte(l)))
	}
	b, err := json.Marshal(map[string]any{"architecture": "arm64", "os": "linux", "variant": "v8", "preferLocalBuild": true,
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func manifestOf(config string, layers ...string) string {
	b, err := json.Marshal([]archiveManifest{{Config: config, RepoTags: []string{"a:b"}, Layers: layers}})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// layouts are how archives are laid out in the wild.
func layouts(t testing.TB) map[string][]byte {
	config := configOf(layerA, layerB)
	id := func(s string) string { return strings.TrimPrefix(hash256([]byte(s)), "sha256:") }
	return map[string][]byte{
		"buildImage: folders named by the layer's description, sorted": tarOf(t,
			entry{name: "./", kind: tar.TypeDir},
			entry{name: "./1111/", kind: tar.TypeDir}, entry{name: "./1111/VERSION", content: "1.0"}, entry{name: "./1111/json", content: "{}"},
			entry{name: "./1111/layer.tar", content: layerA},
			entry{name: "./2222/", kind: tar.TypeDir}, entry{name: "./2222/layer.tar", content: layerB},
			entry{name: "./c0ffee.json", content: config},
			entry{name: "./manifest.json", content: manifestOf("c0ffee.json", "1111/layer.tar", "2222/layer.tar")},
			entry{name: "./repositories", content: "{}"}),
		"buildLayeredImage: folders named by digest, manifest last": tarOf(t,
			entry{name: id(layerA) + "/layer.tar", content: layerA}, entry{name: id(layerB) + "/layer.tar", content: layerB},
			entry{name: id(config) + ".json", content: config},
			entry{name: "manifest.json", content: manifestOf(id(config)+".json", id(layerA)+"/layer.tar", id(layerB)+"/layer.tar")}),
		"docker 25: blobs by digest": tarOf(t,
			entry{name: "blobs/sha256/" + id(config), content: config},
			entry{name: "blobs/sha256/" + id(layerA), content: layerA}, entry{name: "blobs/sha256/" + id(layerB), content: layerB},
			entry{name: "manifest.json", content: manifestOf("blobs/sha256/"+id(config), "blobs/sha256/"+id(layerA), "blobs/sha256/"+id(layerB))}),
		"docker 24: a layer is a link to another image's": tarOf(t,
			entry{name: "1111/layer.tar", content: layerA}, entry{name: "2222/layer.tar", kind: tar.TypeSymlink, link: "../3333/layer.tar"},
			entry{name: "3333/layer.tar", content: layerB}, entry{name: "c.json", content: config},
			entry{name: "manifest.json", content: manifestOf("c.json", "1111/layer.tar", "2222/layer.tar")}),
		"docker 25 with containerd: layers compressed inside": tarOf(t,
			entry{name: "c.json", content: config}, entry{name: "blobs/sha256/1", content: string(gzipped9([]byte(layerA)))},
			entry{name: "blobs/sha256/2", content: string(zstded([]byte(layerB)))},
			entry{name: "manifest.json", content: manifestOf("c.json", "blobs/sha256/1", "blobs/sha256/2")}),
	}
}

func write(t testing.TB, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar.gz") // the name promises nothing
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestArchiveLayouts(t *testing.T) {
	for name, layout := range layouts(t) {
		for packing, pack := range map[string]func([]byte) []byte{
			"plain": func(b []byte) []byte { return b }, "gzip": gzipped9, "zstd": zstded,
		} {
			t.Run(name+", "+packing, func(t *testing.T) {
				temp := t.TempDir()
				img, err := Open(write(t, pack(layout)), Options{Temp: temp})
				if err != nil {
					t.Fatal(err)
				}
				defer img.Close()
				if img.Family != handoff.DockerArchive || img.Platform.String() != "linux/arm64/v8" {
					t.Errorf("opened as %s for %s", img.Family, img.Platform)
				}
				var got, ids []string
				for i := len(img.Layers) - 1; i >= 0; i-- { // in any order
					var b bytes.Buffer
					if err := img.Layers[i].WriteTar(&b); err != nil {
						t.Fatal(err)
					}
					got = append(got, b.String())
					ids = append(ids, img.Layers[i].DiffID.String())
				}
				if diff := cmp.Diff([]string{layerB, layerA}, got); diff != "" {
					t.Errorf("layers (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]string{hash256([]byte(layerB)), hash256([]byte(layerA))}, ids); diff != "" {
					t.Errorf("diffIDs (-want +got):\n%s", diff)
				}
				config, err := img.Config([]v1.Hash{img.Layers[0].DiffID, img.Layers[1].DiffID})
				if err != nil || string(config) != configOf(layerA, layerB) {
					t.Errorf("Config = %s, %v, want the archive's own bytes", config, err)
				}
				if left, _ := os.ReadDir(temp); len(left) > 0 {
					t.Errorf("the temporary folder has %v", left)
				}
			})
		}
	}
}

// What is no image is refused with one sentence that says why, whatever the packing.
func TestNoImage(t *testing.T) {
	config := configOf(layerA)
	whole := tarOf(t, entry{name: "a/layer.tar", content: strings.Repeat(layerA, 1000)}, entry{name: "c.json", content: config},
		entry{name: "manifest.json", content: manifestOf("c.json", "a/layer.tar")})
	manifest := func(text string) []byte {
		return tarOf(t, entry{name: "a/layer.tar", content: layerA}, entry{name: "c.json", content: config}, entry{name: "manifest.json", content: text})
	}
	for _, test := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"empty", nil, "neither an archive"},
		{"text", []byte("hello"), "neither an archive"},
		{"a script", []byte("#!/bin/sh\nexec /nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello/bin/hello"), "names no conf.json"},
		{"a script of two", []byte("#!/bin/sh\n/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a-conf.json /nix/store/0123456789abcdfghijklmnpqrsvwxyz-b-conf.json"), "2 files called conf.json"},
		{"JSON", []byte("{}"), "not of nix2container"},
		{"broken JSON", []byte("{"), "unexpected end"},
		{"nix2container of the future", []byte(`{"version":2,"arch":"amd64"}`), "version 2"},
		{"foreign layers", []byte(`{"version":1,"arch":"amd64","layers":[{"mediatype":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}]}`), "cannot be pushed"},
		{"a layer without digest", []byte(`{"version":1,"arch":"amd64","layers":[{}]}`), "no sha256 digest"},
		{"a layer that is a file of the machine", []byte(`{"version":1,"arch":"amd64","layers":[{"digest":"` + hash256(nil) + `","layer-path":"/etc/passwd"}]}`), "not a path in /nix/store"},
		{"a layer that leaves the store", []byte(`{"version":1,"arch":"amd64","layers":[{"digest":"` + hash256(nil) + `","paths":[{"path":"/nix/store/../../etc"}]}]}`), "not a path in /nix/store"},
		{"an expression that is none", []byte(`{"version":1,"arch":"amd64","layers":[{"digest":"` + hash256(nil) + `","paths":[{"path":"/nix/store/a","options":{"rewrite":{"regex":"("}}}]}]}`), "rewrite"},
		{"a tar of something else", tarOf(t, entry{name: "README", content: "hi"}), `no "manifest.json"`},
		{"cut short", whole[:len(whole)/2], "cut short"},
		{"cut short, gzip", gzipped9(whole)[:60], "cut short"},
		{"cut short, zstd", zstded(whole)[:60], "cut short"},
		{"no layer", manifest(manifestOf("c.json", "b/layer.tar")), `no "b/layer.tar"`},
		{"no config", manifest(manifestOf("d.json", "a/layer.tar")), `no "d.json"`},
		{"more layers than digests", manifest(manifestOf("c.json", "a/layer.tar", "a/layer.tar")), "2 layers, the config 1"},
		{"a layer outside of the archive", manifest(manifestOf("c.json", "../../etc/passwd")), "no \"../../etc/passwd\""},
		{"two images", manifest(`[{"Config":"c.json"},{"Config":"c.json"}]`), "2 images"},
		{"no images", manifest(`[]`), "0 images"},
		{"manifest that is no list", manifest(`{}`), "manifest.json"},
		{"config that is no JSON", tarOf(t, entry{name: "c.json", content: "x"}, entry{name: "manifest.json", content: manifestOf("c.json")}), "config"},
		{"config that lists nonsense", tarOf(t, entry{name: "c.json", content: `{"rootfs":{"diff_ids":["sha256:zz"]}}`}, entry{name: "manifest.json", content: manifestOf("c.json", "a")}), "no sha256 digest"},
		{"two manifests", tarOf(t, entry{name: "c.json", content: config}, entry{name: "manifest.json", content: "[]"}, entry{name: "./manifest.json", content: "[]"}), "twice"},
		{"two configs", tarOf(t, entry{name: "c.json", content: config}, entry{name: "c.json", content: config}, entry{name: "manifest.json", content: manifestOf("c.json", "a")}), "twice"},
		{"links in a circle", tarOf(t, entry{name: "manifest.json", kind: tar.TypeSymlink, link: "manifest.json"}), "too many links"},
		{"a manifest that fills the memory", tarOf(t, entry{name: "manifest.json", content: strings.Repeat(" ", maxManifest+1)}), "more than"},
		{"a link out of the archive", tarOf(t, entry{name: "manifest.json", kind: tar.TypeSymlink, link: "/etc/passwd"}), "no \"manifest.json\""},
	} {
		t.Run(test.name, func(t *testing.T) {
			img, err := Open(write(t, test.content), Options{})
			if err == nil {
				img.Close()
				t.Fatal("it was opened")
			}
			if refused := new(NotImageError); !errors.As(err, &refused) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open = %v, want a *NotImageError about %q", err, test.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("Open = %q: several lines", err)
			}
		})
	}
	if _, err := Open(t.TempDir(), Options{}); !errors.As(err, new(*NotImageError)) {
		t.Errorf("Open of a folder = %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of nothing = %v", err)
	}
}

func TestLayerThatLies(t *testing.T) {
	file := write(t, tarOf(t, entry{name: "a/layer.tar", content: "other"}, entry{name: "c.json", content: configOf(layerA)},
		entry{name: "manifest.json", content: manifestOf("c.json", "a/layer.tar")}))
	img, err := Open(file, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if err := img.Layers[0].WriteTar(io.Discard); !errors.As(err, new(*DigestError)) {
		t.Errorf("WriteTar = %v, want *DigestError", err)
	}
}

// A million members and a bomb end early, in little memory.
func TestHostileArchives(t *testing.T) {
	var many bytes.Buffer
	block := tarOf(t, entry{name: "x"})[:512]
	for range maxMembers + 1 {
		many.Write(block)
	}
	if _, err := Open(write(t, many.Bytes()), Options{}); err == nil || !strings.Contains(err.Error(), "members") {
		t.Errorf("Open of too many members = %v", err)
	}

	// Names of a mebibyte each shrink to nothing: what is kept of them is bounded.
	long := entry{name: strings.Repeat("n", 1<<20-100)}
	var names bytes.Buffer
	for range maxNames>>20 + 1 {
		one := tarOf(t, long)
		names.Write(one[:len(one)-1024])
	}
	if _, err := Open(write(t, gzipped9(names.Bytes())), Options{}); err == nil || !strings.Contains(err.Error(), "MiB of names") {
		t.Errorf("Open of long names = %v", err)
	}

	bomb := &limited{r: zeroReader{}, close: func() error { return nil }, left: 1000}
	if n, err := io.Copy(io.Discard, bomb); err == nil || n != 1000 {
		t.Errorf("a bomb gave %d bytes, %v", n, err)
	}
	header := tarOf(t, entry{name: "a"})[:512]
	copy(header[124:136], "77777777777\x00") // 8 GiB that are not there
	sum := 0
	copy(header[148:156], "        ")
	for _, c := range header {
		sum += int(c)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
	if _, err := Open(write(t, header), Options{}); err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("Open of an absurd size = %v", err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func FuzzOpenArchive(f *testing.F) {
	oci := f.TempDir()
	ociLayout(f, oci, map[string]v1.Image{"latest": ociImage(f, "arm64")})
	f.Add(tarOfDir(f, oci))
	for _, layout := range layouts(f) {
		f.Add(layout)
		f.Add(gzipped9(layout))
		f.Add(zstded(layout))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		file, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file.Name())
		if _, err := file.Write(content); err != nil {
			t.Fatal(err)
		}
		file.Close()
		img, err := openArchive(file.Name(), Options{Temp: dir})
		if err != nil {
			return
		}
		defer img.Close()
		for _, l := range img.Layers {
			err := l.WriteTar(io.Discard)
			if wrong := new(DigestError); err == nil && l.DiffID.Hex == "" || errors.As(err, &wrong) && wrong.Want == wrong.Got {
				t.Errorf("WriteTar = %v for %s", err, l.DiffID)
			}
		}
	})
}

func FuzzStreamConf(f *testing.F) {
	f.Add(golden(f, "stream/conf.json"))
	f.Add([]byte(`{"created":"now","uid":1,"store_layers":[[]],"config":{"Env":["A=1"]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		conf, err := streamconf.Parse(text, time.Unix(1, 0))
		if err != nil {
			return
		}
		s := &streamImage{conf: conf}
		if config, err := s.config(nil); err == nil && !json.Valid(bytes.ReplaceAll(config, []byte("Infinity"), []byte("0"))) {
			t.Errorf("config is no JSON: %s", config)
		}
		for _, layer := range conf.StoreLayers {
			for _, p := range layer {
				if strings.Contains(p, "..") && filepath.Clean(p) != p || !strings.HasPrefix(p, conf.StoreDir) {
					t.Errorf("%q got through", p)
				}
			}
		}
	})
}

func FuzzNix2Container(f *testing.F) {
	f.Add(golden(f, "nix2container/image.json"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := parseN2C(text)
		if err != nil {
			return
		}
		for _, l := range n.Layers {
			layer, err := l.open(handoff.Store{Dir: "/nix/store", Root: "/nonexistent"})
			if err != nil {
				continue
			}
			if layer.DiffID.Algorithm != "sha256" {
				t.Errorf("a layer without digest got through: %+v", l)
			}
		}
	})
}

package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/handoff"
)

// ociImage is an image of one gzipped layer and one plain one.
func ociImage(t testing.TB, arch string) v1.Image {
	t.Helper()
	img := mutate.Annotations(mutate.MediaType(empty.Image, types.OCIManifestSchema1), map[string]string{"org.example.arch": arch}).(v1.Image)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.Architecture, file.OS = arch, "linux"
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	packed := gzippedLayer{static.NewLayer(gzipped9([]byte(layerA+arch)), types.OCILayer), layerA + arch}
	if img, err = mutate.AppendLayers(img, packed, static.NewLayer([]byte(layerB), types.OCIUncompressedLayer)); err != nil {
		t.Fatal(err)
	}
	return img
}

// gzippedLayer is a static layer that knows what is inside it.
type gzippedLayer struct {
	v1.Layer
	inside string
}

func (l gzippedLayer) DiffID() (v1.Hash, error) { return v1.NewHash(hash256([]byte(l.inside))) }

// ociLayout writes a layout of some images into dir.
func ociLayout(t testing.TB, dir string, images map[string]v1.Image) layout.Path {
	t.Helper()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for name, img := range images {
		if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": name})); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// tarOfDir is a folder as an archive.
func tarOfDir(t testing.TB, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOCILayouts(t *testing.T) {
	store := handoff.Store{Dir: "/nix/store", Root: t.TempDir()}
	folder := t.TempDir()
	ociLayout(t, folder, map[string]v1.Image{"latest": ociImage(t, "arm64")})
	inStore := store.Root + "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-layout"
	ociLayout(t, inStore, map[string]v1.Image{"latest": ociImage(t, "arm64")})
	// Nix deduplicates by links between store paths: these lead to where the root will be.
	blobsDir := "/nix/store/1123456789abcdfghijklmnpqrsvwxyz-blobs"
	if err := os.Rename(inStore+"/blobs", store.Root+blobsDir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(blobsDir, inStore+"/blobs"); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"a folder": folder, "a folder in a store": inStore, "a tar": write(t, tarOfDir(t, folder)),
		"a tar, gzip": write(t, gzipped9(tarOfDir(t, folder))), "a tar, zstd": write(t, zstded(tarOfDir(t, folder))),
	} {
		t.Run(name, func(t *testing.T) {
			img := open(t, file, store)
			if img.Family != handoff.OCILayout || img.Platform.Architecture != "arm64" || img.Annotations["org.example.arch"] != "arm64" || len(img.Layers) != 2 {
				t.Fatalf("opened as %+v", img)
			}
			ids, _ := writeAll(t, img)
			if ids[0].String() != hash256([]byte(layerA+"arm64")) || ids[1].String() != hash256([]byte(layerB)) {
				t.Errorf("diffIDs %v", ids)
			}
			blob := img.Layers[0].Blob
			if blob == nil || blob.MediaType != types.OCILayer || img.Layers[1].Blob != nil {
				t.Fatalf("blobs %+v, %+v", blob, img.Layers[1].Blob)
			}
			f, err := blob.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			content, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
			if err != nil || hash256(content) != blob.Digest.String() {
				t.Errorf("the blob is %d bytes, %s, %v; want %s", len(content), hash256(content), err, blob.Digest)
			}
			config, err := img.Config(ids)
			want, _ := ociImage(t, "arm64").RawConfigFile()
			if err != nil || !bytes.Equal(config, want) {
				t.Errorf("config %s, %v, want %s", config, err, want)
			}
		})
	}
}

// Of several images in one file the name and the platform choose.
func TestSeveralImagesInOneFile(t *testing.T) {
	id := func(config string) string { return strings.TrimPrefix(hash256([]byte(config)), "sha256:") + ".json" }
	one, two := configOf(layerA), configOf(layerB)
	merged := write(t, tarOf(t, entry{name: "a/layer.tar", content: layerA}, entry{name: "b/layer.tar", content: layerB},
		entry{name: id(one), content: one}, entry{name: id(two), content: two},
		entry{name: "manifest.json", content: `[{"Config":"` + id(one) + `","RepoTags":["api:v1","api:v2"],"Layers":["a/layer.tar"]},` +
			`{"Config":"` + id(two) + `","RepoTags":["web:v1"],"Layers":["b/layer.tar"]}]`}))
	folder := t.TempDir()
	p := ociLayout(t, folder, map[string]v1.Image{"api:v1": ociImage(t, "amd64")})
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: ociImage(t, "amd64"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: ociImage(t, "arm64"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	if err := p.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "web:v1"})); err != nil {
		t.Fatal(err)
	}
	arm := v1.Platform{OS: "linux", Architecture: "arm64"}
	for _, test := range []struct {
		file string
		o    Options
		want string // first layer
	}{
		{merged, Options{Name: "api", Tags: []string{"x", "v2"}}, layerA},
		{merged, Options{Name: "web", Tags: []string{"other"}}, layerB}, // the only one of its name
		{folder, Options{Name: "api", Tags: []string{"v1"}}, layerA + "amd64"},
		{folder, Options{Name: "web", Tags: []string{"v1"}, Platform: arm}, layerA + "arm64"},
	} {
		img, err := Open(test.file, test.o)
		if err != nil {
			t.Errorf("%+v: %v", test.o, err)
			continue
		}
		if got := img.Layers[0].DiffID.String(); got != hash256([]byte(test.want)) {
			t.Errorf("%+v opened another image", test.o)
		}
		img.Close()
	}
	for _, test := range []struct {
		file string
		o    Options
		want string
	}{
		{merged, Options{}, "2 images, not one, and not one of this name: it has api:v1, api:v2, web:v1"},
		{merged, Options{Name: "shop", Tags: []string{"v1"}}, "not one of this name"},
		{folder, Options{Name: "web", Tags: []string{"v1"}}, "2 images"}, // of which platform?
		{folder, Options{Name: "web", Tags: []string{"v1"}, Platform: v1.Platform{OS: "linux", Architecture: "s390x"}}, "2 images"},
	} {
		img, err := Open(test.file, test.o)
		if err == nil {
			img.Close()
		}
		if !errors.As(err, new(*NotImageError)) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.o, err, test.want)
		}
	}
}

func TestHostileLayouts(t *testing.T) {
	blob := func(dir string, match func(text string) bool) string {
		t.Helper()
		found := ""
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && strings.Contains(p, "/blobs/") {
				if text, _ := os.ReadFile(p); match(string(text)) {
					found = p
				}
			}
			return nil
		})
		if found == "" {
			t.Fatal("no such blob")
		}
		return found
	}
	replace := func(file, old, now string) {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, bytes.Replace(text, []byte(old), []byte(now), 1), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	isConfig := func(text string) bool { return strings.Contains(text, "rootfs") }
	for name, test := range map[string]struct {
		spoil func(dir string)
		want  string
	}{
		"empty":                  {func(dir string) { os.RemoveAll(dir + "/index.json") }, "no OCI layout"},
		"no image":               {func(dir string) { os.WriteFile(dir+"/index.json", []byte(`{"manifests":[]}`), 0o644) }, "0 images"},
		"no JSON":                {func(dir string) { os.WriteFile(dir+"/index.json", []byte(`{`), 0o644) }, "its index"},
		"an absent blob":         {func(dir string) { os.Remove(blob(dir, isConfig)) }, "no such file"},
		"a config that lies":     {func(dir string) { replace(blob(dir, isConfig), "arm64", "amd64") }, "has digest"},
		"an index as folder":     {func(dir string) { os.Remove(dir + "/index.json"); os.Mkdir(dir+"/index.json", 0o755) }, "no file"},
		"an enormous index":      {func(dir string) { os.Truncate(dir+"/index.json", 1<<40) }, "more than"},
		"a digest with a path":   {func(dir string) { replace(dir+"/index.json", "sha256:", "../../:") }, "its index"},
		"a link out of it":       {func(dir string) { p := blob(dir, isConfig); os.Remove(p); os.Symlink("/etc/passwd", p) }, "escapes"},
		"an index in a circle":   {func(dir string) { replace(dir+"/index.json", "image.manifest.v1", "image.index.v1") }, "0 images"},
		"a media type of others": {func(dir string) { replace(dir+"/index.json", "vnd.oci.image.manifest.v1+json", "x") }, "0 images"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ociLayout(t, dir, map[string]v1.Image{"latest": ociImage(t, "arm64")})
			test.spoil(dir)
			img, err := Open(dir, Options{})
			if err == nil {
				img.Close()
			}
			if !errors.As(err, new(*NotImageError)) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open = %v, want %q", err, test.want)
			}
		})
	}

	// A layer that lies is noticed when it is read.
	dir := t.TempDir()
	ociLayout(t, dir, map[string]v1.Image{"latest": ociImage(t, "arm64")})
	replace(blob(dir, func(text string) bool { return text == layerB }), "layer b", "layer c")
	if err := open(t, dir, handoff.Store{}).Layers[1].WriteTar(io.Discard); !errors.As(err, new(*DigestError)) {
		t.Errorf("a layer that lies: %v", err)
	}
}

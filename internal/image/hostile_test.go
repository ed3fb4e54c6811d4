package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/handoff"
)

// header is the first block of a member, changed and with a checksum that is right again.
func header(t testing.TB, e entry, change func(block []byte)) []byte {
	t.Helper()
	block := tarOf(t, e)[:512]
	change(block)
	copy(block[148:156], "        ")
	sum := 0
	for _, c := range block {
		sum += int(c)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return block
}

// bomb is a zstd frame of some thirty kilobytes that unpacks to start and more than a gibibyte of zeros.
func bomb(start []byte) []byte {
	block := func(kind, size, last int) []byte {
		n := size<<3 | kind<<1 | last
		return []byte{byte(n), byte(n >> 8), byte(n >> 16)}
	}
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3} // its window is a mebibyte
	frame = append(append(frame, block(0, len(start), 0)...), start...)
	for range 8300 {
		frame = append(append(frame, block(1, 128<<10, 0)...), 0)
	}
	return append(append(frame, block(1, 1, 1)...), 0)
}

// Wherever a file is compressed that unpacks without end, it is given up.
func TestBombs(t *testing.T) {
	const want = "implausibly many bytes"
	big := header(t, entry{name: "big"}, func(block []byte) { copy(block[124:136], "77777777777\x00") })
	if _, err := Open(write(t, bomb(big)), Options{}); !errors.As(err, new(*NotImageError)) || !strings.Contains(err.Error(), want) {
		t.Errorf("an archive: %v", err)
	}

	store := handoff.Store{Dir: "/nix/store", Root: t.TempDir()}
	const file = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-layer"
	put(t, store, file, string(bomb(big)), 0o444)
	n2c := fmt.Sprintf(`{"version":1,"arch":"amd64","layers":[{"digest":%q,"diff_ids":%q,"mediatype":%q,"layer-path":%q}]}`,
		hash256(bomb(big)), hash256([]byte(layerA)), types.OCILayerZStd, file)
	folder := t.TempDir()
	oci, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), gzippedLayer{static.NewLayer(bomb(big), types.OCILayerZStd), layerA})
	if err != nil {
		t.Fatal(err)
	}
	ociLayout(t, folder, map[string]v1.Image{"latest": mutate.ConfigMediaType(oci, types.OCIConfigJSON)})
	for name, path := range map[string]string{
		"a layer in an archive":    write(t, tarOf(t, entry{name: "1", content: string(bomb(big))}, entry{name: "c.json", content: configOf(layerA)}, entry{name: "manifest.json", content: manifestOf("c.json", "1")})),
		"a layer of nix2container": put(t, store, "/nix/store/1123456789abcdfghijklmnpqrsvwxyz-image.json", n2c, 0o444),
		"a layer in a layout":      folder,
	} {
		img := open(t, path, store)
		if err := img.Layers[0].WriteTar(io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What an archive says of its members is not believed.
func TestHostileMembers(t *testing.T) {
	manifest := entry{name: "manifest.json", content: manifestOf("c.json", "a/layer.tar")}
	config := entry{name: "c.json", content: configOf(layerA)}
	layer := entry{name: "a/layer.tar", content: layerA}
	// In the form of GNU tar a member of a few bytes may stand for a file of a tebibyte, most of it holes.
	sparse := func(name string) []byte {
		records := ""
		for _, r := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=" + name, "GNU.sparse.realsize=1099511627776"} {
			records += fmt.Sprintf("%d %s\n", len(r)+4, r)
		}
		pax := tarOf(t, entry{name: "PaxHeaders/x", content: records})
		copy(pax, header(t, entry{name: "PaxHeaders/x", content: records}, func(block []byte) { block[156] = tar.TypeXHeader }))
		body := tarOf(t, entry{name: "GNUSparseFile.0/x", content: "1\n0\n1\n" + strings.Repeat("\x00", 506) + "x"})
		return append(pax[:len(pax)-1024], body[:len(body)-1024]...)
	}
	members := func(entries ...entry) []byte {
		b := tarOf(t, entries...)
		return b[:len(b)-1024]
	}
	for name, test := range map[string]struct {
		content []byte
		want    string
	}{
		"a config that is a link to a file of the machine": {tarOf(t, layer, entry{name: "c.json", kind: tar.TypeSymlink, link: "/etc/passwd"}, manifest), `no "c.json"`},
		"and by many steps up":                             {tarOf(t, layer, entry{name: "c.json", kind: tar.TypeSymlink, link: "../../../../etc/passwd"}, manifest), `no "c.json"`},
		"a hard link to one":                               {tarOf(t, layer, entry{name: "c.json", kind: tar.TypeLink, link: "/etc/passwd"}, manifest), `no "c.json"`},
		"a layer that is such a link":                      {tarOf(t, entry{name: "a/layer.tar", kind: tar.TypeSymlink, link: "/etc/passwd"}, config, manifest), `no "a/layer.tar"`},
		"a layer that is a folder":                         {tarOf(t, entry{name: "a/layer.tar", kind: tar.TypeDir}, config, manifest), `no "a/layer.tar"`},
		"a layer that is a device":                         {tarOf(t, entry{name: "a/layer.tar", kind: tar.TypeChar}, config, manifest), `no "a/layer.tar"`},
		"a manifest that leads to one of two":              {tarOf(t, layer, config, entry{name: "manifest.json", kind: tar.TypeSymlink, link: "m"}, entry{name: "m", content: manifest.content}, entry{name: "m", content: "[]"}), "twice"},
		"a config that leads to one of two":                {tarOf(t, layer, entry{name: "c.json", kind: tar.TypeSymlink, link: "c"}, entry{name: "c", content: config.content}, entry{name: "c", content: "{}"}, manifest), "twice"},
		"a sparse config":                                  {append(append(members(layer), sparse("c.json")...), tarOf(t, manifest)...), "sparse"},
		"a sparse layer":                                   {append(append(members(config), sparse("a/layer.tar")...), tarOf(t, manifest)...), "sparse"},
		"a member of four exbibytes":                       {append(header(t, layer, func(b []byte) { copy(b[124:136], "\x80\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00") }), tarOf(t, config, manifest)...), "cut short"},
		"a member of less than nothing":                    {append(header(t, layer, func(b []byte) { copy(b[124:136], strings.Repeat("\xff", 12)) }), tarOf(t, config, manifest)...), "invalid tar header"},
	} {
		for packing, pack := range map[string]func([]byte) []byte{"plain": func(b []byte) []byte { return b }, "gzip": gzipped9} {
			img, err := Open(write(t, pack(test.content)), Options{Temp: t.TempDir()})
			if err == nil {
				img.Close()
			}
			if !errors.As(err, new(*NotImageError)) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s, %s: %v, want %q", name, packing, err, test.want)
			}
		}
	}

	// Of two members of a layer's name the first is read, and checked like any other.
	for first, second := range map[string]string{layerA: "other", "other": layerA} {
		img := open(t, write(t, tarOf(t, entry{name: "a/layer.tar", content: first}, entry{name: "a/layer.tar", content: second}, config, manifest)), handoff.Store{})
		if err := img.Layers[0].WriteTar(io.Discard); errors.As(err, new(*DigestError)) != (first == "other") {
			t.Errorf("a layer that is there twice, first as %q: %v", first, err)
		}
	}
}

// A compressed archive is read to its end, where its checksum is, before it is taken for an image.
func TestBrokenAtItsVeryEnd(t *testing.T) {
	archive := layouts(t)["docker 25: blobs by digest"]
	for packing, test := range map[string]struct {
		packed   []byte
		checksum int // bytes from the end
	}{"gzip": {gzipped9(archive), 8}, "zstd": {zstded(archive), 4}} {
		wrong := slices.Clone(test.packed)
		wrong[len(wrong)-test.checksum] ^= 1
		for name, content := range map[string][]byte{"a wrong checksum": wrong, "one byte less": test.packed[:len(test.packed)-1]} {
			if img, err := Open(write(t, content), Options{}); !errors.As(err, new(*NotImageError)) {
				t.Errorf("%s, %s: %+v, %v", packing, name, img, err)
			}
		}
	}
}

// What docker 25 and newer save has all of an OCI layout beside the manifest.json that says what was saved.
func TestDockerSavesBoth(t *testing.T) {
	id := func(s string) string { return strings.TrimPrefix(hash256([]byte(s)), "sha256:") }
	config := configOf(layerA, layerB)
	manifest := strings.Replace(manifestOf("blobs/sha256/"+id(config), "blobs/sha256/"+id(layerA), "blobs/sha256/"+id(layerB)), `"Layers"`,
		`"LayerSources":{"`+hash256([]byte(layerA))+`":{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":24,"digest":"`+hash256([]byte(layerA))+`"}},"Layers"`, 1)
	img := open(t, write(t, tarOf(t,
		entry{name: "blobs/", kind: tar.TypeDir}, entry{name: "blobs/sha256/", kind: tar.TypeDir},
		entry{name: "blobs/sha256/" + id(config), content: config}, entry{name: "blobs/sha256/" + id(layerA), content: layerA}, entry{name: "blobs/sha256/" + id(layerB), content: layerB},
		entry{name: "index.json", content: `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"` + hash256(nil) + `","size":0}]}`},
		entry{name: "manifest.json", content: manifest}, entry{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`},
		entry{name: "repositories", content: "{}"})), handoff.Store{})
	if ids, _ := writeAll(t, img); img.Family != handoff.DockerArchive || len(ids) != 2 || ids[1].String() != hash256([]byte(layerB)) {
		t.Errorf("opened as %s with layers %v", img.Family, ids)
	}
}

// The layer on top of a stream image has its digest in the store, and a base image's in its config: both are checked.
func TestStreamLayersThatLie(t *testing.T) {
	for _, test := range []struct {
		file, text string
		layer      int
		want       string
	}{
		{"/nix/store/cccccccccccccccccccccccccccccccc-custom/checksum", strings.Repeat("0", 64) + "\n", 3, "-custom"},
		{"/nix/store/cccccccccccccccccccccccccccccccc-custom/layer.tar", "changed", 3, "-custom"},
	} {
		store := handoff.Store{Dir: "/nix/store", Root: t.TempDir()}
		script := onBase(t, store)
		if err := os.Remove(store.Root + test.file); err != nil {
			t.Fatal(err)
		}
		put(t, store, test.file, test.text, 0o444)
		wrong := new(DigestError)
		if err := open(t, script, store).Layers[test.layer].WriteTar(io.Discard); !errors.As(err, &wrong) || !strings.Contains(wrong.Layer, test.want) {
			t.Errorf("%s: %v", test.file, err)
		}
	}
	store := handoff.Store{Dir: "/nix/store", Root: t.TempDir()}
	script := onBase(t, store)
	const base = "/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-base.tar.gz"
	if err := os.Remove(store.Root + base); err != nil {
		t.Fatal(err)
	}
	put(t, store, base, string(gzipped9(tarOf(t, entry{name: "l1/layer.tar", content: "other"}, entry{name: "c.json", content: configOf("one")}, entry{name: "manifest.json", content: manifestOf("c.json", "l1/layer.tar")}))), 0o444)
	if err := open(t, script, store).Layers[0].WriteTar(io.Discard); !errors.As(err, new(*DigestError)) {
		t.Errorf("a base image's layer: %v", err)
	}
}

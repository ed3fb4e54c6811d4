package image

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/handoff"
)

// The shapes nix2container's JSON has had and is to have, beside those of the golden file.
func TestNix2ContainerShapes(t *testing.T) {
	store := handoff.Store{Dir: "/nix/store", Root: t.TempDir()}
	const dir = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-layers"
	content := strings.Repeat("a layer ", 100)
	put(t, store, dir+"/plain", content, 0o444)
	put(t, store, dir+"/gzip", string(gzipped9([]byte(content))), 0o444)
	put(t, store, dir+"/zstd", string(zstded([]byte(content))), 0o444)
	plain, packed, zipped := hash256([]byte(content)), hash256(gzipped9([]byte(content))), hash256(zstded([]byte(content)))
	for name, test := range map[string]struct {
		text   string
		layers int
		blob   types.MediaType // of the first layer, when it is kept as it is
	}{
		"no layers yet":        {`{"version":1,"image-config":{},"layers":null,"arch":"amd64"}`, 0, ""},
		"an empty list":        {`{"version":1,"layers":[],"arch":"amd64","created":null}`, 0, ""},
		"no version, no arch":  {`{"layers":[{"digest":"` + plain + `","diff_ids":"` + plain + `","layer-path":"` + dir + `/plain"}]}`, 1, ""},
		"no diff_ids":          {`{"version":1,"arch":"amd64","layers":[{"digest":"` + plain + `","layer-path":"` + dir + `/plain"}]}`, 1, ""},
		"gzip at build time":   {`{"version":1,"arch":"amd64","layers":[{"digest":"` + packed + `","diff_ids":"` + plain + `","size":7,"mediatype":"application/vnd.oci.image.layer.v1.tar+gzip","layer-path":"` + dir + `/gzip"}]}`, 1, types.OCILayer},
		"zstd at build time":   {`{"version":1,"arch":"amd64","layers":[{"digest":"` + zipped + `","diff_ids":"` + plain + `","mediatype":"application/vnd.oci.image.layer.v1.tar+zstd","layer-path":"` + dir + `/zstd"}]}`, 1, types.OCILayerZStd},
		"a base without size":  {`{"version":1,"arch":"amd64","layers":[{"digest":"` + packed + `","diff_ids":"` + plain + `","size":0,"mediatype":"application/vnd.docker.image.rootfs.diff.tar.gzip","layer-path":"` + dir + `/gzip"}]}`, 1, types.OCILayer},
		"fields of the future": {`{"version":1,"arch":"amd64","future":{"a":1},"layers":[{"digest":"` + plain + `","diff_ids":"` + plain + `","layer-path":"` + dir + `/plain","annotations":{}}]}`, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			img := open(t, put(t, store, "/nix/store/1123456789abcdfghijklmnpqrsvwxyz-image.json", test.text, 0o644), store)
			if len(img.Layers) != test.layers {
				t.Fatalf("%d layers, want %d", len(img.Layers), test.layers)
			}
			ids, _ := writeAll(t, img)
			config, err := img.Config(ids)
			if err != nil || !json.Valid(config) {
				t.Fatalf("config %s, %v", config, err)
			}
			if test.layers == 0 {
				return
			}
			if l := img.Layers[0]; l.DiffID.String() != plain || (l.Blob != nil) != (test.blob != "") || l.Blob != nil && l.Blob.MediaType != test.blob {
				t.Errorf("layer %+v, blob %+v", l, l.Blob)
			}
		})
	}

	// What is inside a compressed layer is checked, not its digest alone.
	lying := `{"version":1,"arch":"amd64","layers":[{"digest":"` + packed + `","diff_ids":"` + zipped + `","mediatype":"application/vnd.oci.image.layer.v1.tar+gzip","layer-path":"` + dir + `/gzip"}]}`
	img := open(t, put(t, store, "/nix/store/1123456789abcdfghijklmnpqrsvwxyz-image.json", lying, 0o644), store)
	if err := img.Layers[0].WriteTar(io.Discard); err == nil || !strings.Contains(err.Error(), dir+"/gzip") {
		t.Errorf("a layer that lies: %v", err)
	}
}

// A layer of many store paths that is not what the image says names some of them.
func TestDigestErrorIsShort(t *testing.T) {
	err := &DigestError{Layer: strings.Repeat("/nix/store/x ", 100)}
	if text := err.Error(); !strings.Contains(text, "/nix/store/x and 97 more has digest") || len(text) > 200 {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}

package push

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

// Images of unusual shapes are pushed like any other: one without layers, one that has a layer twice.
func TestUnusualShapes(t *testing.T) {
	server := distribution.Start(t)
	root := t.TempDir()
	again := layer(t, 1, 5000)
	images := []Image{
		{Name: "none", Tag: nixHash(1), Path: archive(t, "amd64")},
		{Name: "null", Tag: nixHash(2), Store: handoff.Store{Dir: "/nix/store", Root: root},
			Path: root + storeFile(t, root, storePath("j", "image.json"), []byte(`{"version":1,"image-config":{},"layers":null,"arch":"amd64"}`))},
		{Name: "twice", Tag: nixHash(3), Path: archive(t, "amd64", again, layer(t, 2, 100), again)},
	}
	for _, want := range [][]outcome{{
		{"none", handoff.PushUploaded, handoff.Layers{}, true, 1},
		{"null", handoff.PushUploaded, handoff.Layers{}, true, 1},
		{"twice", handoff.PushUploaded, handoff.Layers{Uploaded: 2, Reused: 1}, true, 1},
	}, {
		{"none", handoff.PushUnchanged, handoff.Layers{}, false, 1},
		{"null", handoff.PushUnchanged, handoff.Layers{}, false, 1},
		{"twice", handoff.PushUnchanged, handoff.Layers{Reused: 3}, false, 1},
	}} {
		pushed, err := Images(t.Context(), images, Options{Client: client(&wire{}), Registry: server.Host})
		if err != nil {
			t.Fatal(err)
		}
		checkPulled(t, pushed)
		if diff := cmp.Diff(want, outcomes(pushed)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	server.Check(t)
}

// Of a file with several images each goes where its name says.
func TestSeveralImagesOfOneFile(t *testing.T) {
	host := distribution.Start(t).Host
	base, api, web := layer(t, 1, 5000), layer(t, 2, 100), layer(t, 3, 100)
	id := func(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }
	config := func(layers ...[]byte) []byte {
		var ids []string
		for _, l := range layers {
			ids = append(ids, id(l))
		}
		text, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	file := filepath.Join(t.TempDir(), "merged.tar")
	if err := os.WriteFile(file, tarOf(t, map[string][]byte{
		"base/layer.tar": base, "api/layer.tar": api, "web/layer.tar": web, "1.json": config(base, api), "2.json": config(base, web),
		"manifest.json": []byte(`[{"Config":"1.json","RepoTags":["api:v1"],"Layers":["base/layer.tar","api/layer.tar"]},` +
			`{"Config":"2.json","RepoTags":["registry.example.org/team/web:v1"],"Layers":["base/layer.tar","web/layer.tar"]}]`),
	}, "base/layer.tar", "api/layer.tar", "web/layer.tar", "1.json", "2.json", "manifest.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	pushed, err := Images(t.Context(), []Image{{Name: "api", Tag: "v1", Path: file}, {Name: "web", Tag: nixHash(1), ImageTag: "v1", Path: file}}, Options{Client: client(&wire{}), Registry: host})
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, pushed)
	total := handoff.Layers{}
	for i, want := range [][]byte{config(base, api), config(base, web)} {
		if got := manifestOf(t, pushed[i]).Config.Digest.String(); got != id(want) {
			t.Errorf("%s has config %s, want %s", pushed[i].Name, got, id(want))
		}
		l := pushed[i].Layers
		total.Mounted, total.Uploaded = total.Mounted+l.Mounted, total.Uploaded+l.Uploaded
	}
	if total != (handoff.Layers{Mounted: 1, Uploaded: 3}) {
		t.Errorf("layers %+v", total)
	}
}

// A layer that was compressed when it was built, in a way that docker's format has no name for, is compressed anew for it.
func TestZstdFromDiskInDockersFormat(t *testing.T) {
	host := distribution.Start(t).Host
	root := t.TempDir()
	plain := layer(t, 1, 5000)
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := w.EncodeAll(plain, nil)
	sum := func(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }
	text := fmt.Sprintf(`{"version":1,"arch":"amd64","layers":[{"digest":%q,"diff_ids":%q,"mediatype":%q,"layer-path":%q}]}`,
		sum(packed), sum(plain), types.OCILayerZStd, storeFile(t, root, storePath("z", "layer")+"/1.tar.zst", packed))
	image := Image{Name: "api", Tag: nixHash(1), Path: root + storeFile(t, root, storePath("j", "image.json"), []byte(text)), Store: handoff.Store{Dir: "/nix/store", Root: root}}
	for format, want := range map[Format]types.MediaType{Docker: types.DockerLayer, OCI: types.OCILayerZStd} {
		image.Name = string(format)
		pushed, err := Images(t.Context(), []Image{image}, Options{Client: client(&wire{}), Registry: host, Format: format, NoLearn: true})
		if err != nil {
			t.Fatal(err)
		}
		if format == Docker {
			checkPulled(t, pushed) // validate reads no zstd
		}
		if m := manifestOf(t, pushed[0]); m.Layers[0].MediaType != want || (m.Layers[0].Digest.String() == sum(packed)) != (format == OCI) {
			t.Errorf("%s: layers %+v", format, m.Layers)
		}
	}
}

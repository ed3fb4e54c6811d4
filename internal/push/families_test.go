package push

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/handoff"
)

// storeFile writes a file of a chroot store and returns its logical path.
func storeFile(t testing.TB, root, path string, content []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(root+path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// storePath is a store path whose hash is made of one letter.
func storePath(letter, name string) string {
	return "/nix/store/" + strings.Repeat(letter, 32) + "-" + name
}

// stream makes a stream image of store paths and returns its script.
func stream(t testing.TB, root, letter string, layers ...[]string) string {
	t.Helper()
	custom := layer(t, 99, 100)
	storeFile(t, root, storePath("c", "custom")+"/layer.tar", custom)
	storeFile(t, root, storePath("c", "custom")+"/checksum", fmt.Appendf(nil, "%x\n", sha256.Sum256(custom)))
	conf, err := json.Marshal(map[string]any{"architecture": "amd64", "config": map[string]any{"Env": []string{"A=1"}, "Entrypoint": greeting(layers[0][0])}, "created": "1970-01-01T00:00:01Z",
		"customisation_layer": storePath("c", "custom"), "from_image": nil, "store_dir": "/nix/store", "store_layers": layers, "repo_tag": "a:b"})
	if err != nil {
		t.Fatal(err)
	}
	name := storeFile(t, root, storePath(letter, "api-conf.json"), conf)
	return root + storeFile(t, root, storePath(letter, "stream-api"), []byte("#!/bin/sh\nexec python3 stream.py "+name+" \"$@\"\n"))
}

// greeting is the entrypoint of an image with busybox in a folder.
func greeting(dir string) []string { return []string{dir + "/bin/busybox", "echo", "it runs"} }

// A stream image that is there is recognised without reading the store paths it is made of; under a tag that says nothing
// about its content they are read, and still nothing is written.
func TestStreamThatIsThereIsNotRead(t *testing.T) {
	host, _ := strictRegistry(t)
	root := t.TempDir()
	store := handoff.Store{Dir: "/nix/store", Root: root}
	lib, app := storePath("l", "lib"), storePath("m", "app")
	storeFile(t, root, lib+"/lib.so", noise(1, 50_000))
	storeFile(t, root, app+"/bin/app", noise(2, 1000))
	images := []Image{{Name: "api", Tag: nixHash(1), ImageTag: "v1", Path: stream(t, root, "s", []string{lib}, []string{app}), Store: store}}
	push := func() handoff.PushedImage {
		t.Helper()
		pushed, err := Images(t.Context(), images, Options{Client: client(&wire{}), Registry: host})
		if err != nil {
			t.Fatal(err)
		}
		checkPulled(t, pushed)
		return pushed[0]
	}
	first := push()
	if first.Layers != (handoff.Layers{Uploaded: 3}) || len(first.Tags) != 2 {
		t.Errorf("pushed %+v", first)
	}
	images[0].Tag, images[0].ImageTag = "v1", ""
	if again := push(); again.State != handoff.PushUnchanged || again.Uploaded != 0 || again.Digest != first.Digest || again.Layers.Reused != 3 {
		t.Errorf("by its tag v1: %+v", again)
	}

	// One layer changed: the other is found by its digest.
	newer := storePath("n", "app")
	storeFile(t, root, newer+"/bin/app", noise(3, 1000))
	images[0] = Image{Name: "api", Tag: nixHash(2), Path: stream(t, root, "t", []string{lib}, []string{newer}), Store: store}
	if changed := push(); changed.Layers != (handoff.Layers{Reused: 2, Uploaded: 1}) {
		t.Errorf("changed: %+v", changed)
	}

	for _, p := range []string{lib, newer} {
		if err := os.RemoveAll(root + p); err != nil {
			t.Fatal(err)
		}
	}
	if again := push(); again.State != handoff.PushUnchanged {
		t.Errorf("without its closure: %+v", again)
	}
}

// A nix2container image needs its closure only for layers the registry lacks; layers that were compressed when they were
// built are sent as they are, and plain ones compressed.
func TestNix2Container(t *testing.T) {
	host, _ := strictRegistry(t)
	root := t.TempDir()
	store := handoff.Store{Dir: "/nix/store", Root: root}
	plain, packed := layer(t, 1, 3000), layer(t, 2, 3000)
	var z bytes.Buffer
	w, _ := gzip.NewWriterLevel(&z, 9)
	w.Write(packed)
	w.Close()
	sum := func(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }
	blob := storeFile(t, root, storePath("b", "base")+"/blob", z.Bytes())
	tarball := storeFile(t, root, storePath("d", "layers")+"/1.tar", plain)
	describe := func(diffID string) []byte {
		b, err := json.Marshal(map[string]any{"version": 1, "arch": "amd64", "layers": []map[string]any{
			{"digest": sum(z.Bytes()), "diff_ids": diffID, "mediatype": types.DockerLayer, "layer-path": blob},
			{"digest": sum(plain), "diff_ids": sum(plain), "size": len(plain), "mediatype": types.OCIUncompressedLayer, "layer-path": tarball},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	images := []Image{{Name: "api", Tag: nixHash(1), Path: root + storeFile(t, root, storePath("j", "image.json"), describe(sum(packed))), Store: store}}
	pushed, err := Images(t.Context(), images, Options{Client: client(&wire{}), Registry: host})
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, pushed)
	ref, _ := name.NewDigest(pushed[0].Repository + "@" + pushed[0].Digest)
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if m.Layers[0].Digest.String() != sum(z.Bytes()) || m.Layers[0].Size != int64(z.Len()) || m.Layers[0].MediaType != types.OCILayer || m.Layers[1].MediaType != types.OCILayer {
		t.Errorf("layers %+v", m.Layers)
	}

	for _, p := range []string{blob, tarball} {
		if err := os.Remove(root + p); err != nil {
			t.Fatal(err)
		}
	}
	images[0].Tag = nixHash(2)
	if again, err := Images(t.Context(), images, Options{Client: client(&wire{}), Registry: host}); err != nil || again[0].Layers != (handoff.Layers{Reused: 2}) {
		t.Errorf("without its closure: %+v, %v", again, err)
	}

	// What is inside the compressed layer is checked too.
	storeFile(t, root, blob, z.Bytes())
	storeFile(t, root, tarball, plain)
	images[0] = Image{Name: "lying", Tag: nixHash(3), Path: root + storeFile(t, root, storePath("k", "image.json"), describe(sum(nil))), Store: store}
	if got, err := Images(t.Context(), images, Options{Client: client(&wire{}), Registry: host}); err == nil || !strings.Contains(err.Error(), "the image says "+sum(nil)) {
		t.Errorf("a lying layer: %+v, %v", got, err)
	}
}

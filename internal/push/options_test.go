package push

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/streamconf"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

// manifestOf is what the registry has of a pushed image.
func manifestOf(t testing.TB, p handoff.PushedImage) *v1.Manifest {
	t.Helper()
	ref, err := name.NewDigest(p.Repository + "@" + p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func pushOne(t testing.TB, o Options, images ...Image) handoff.PushedImage {
	t.Helper()
	o.Client = client(&wire{})
	pushed, err := Images(t.Context(), images, o)
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, pushed)
	return pushed[0]
}

// Docker's media types and OCI's are of the same blobs: from one to the other nothing is sent but manifests.
func TestDockerFormat(t *testing.T) {
	host := distribution.Start(t).Host
	api := Image{Name: "api", Tag: nixHash(1), System: "x86_64-linux", Path: archive(t, "amd64", layer(t, 1, 5000))}
	first := pushOne(t, Options{Registry: host}, api)
	docker := pushOne(t, Options{Registry: host, Format: Docker}, api)
	if docker.MediaType != string(types.DockerManifestSchema2) || docker.Layers != (handoff.Layers{Reused: 1}) || docker.Uploaded > 2000 {
		t.Errorf("pushed %+v", docker)
	}
	oci, m := manifestOf(t, first), manifestOf(t, docker)
	if m.Config.MediaType != types.DockerConfigJSON || m.Layers[0].MediaType != types.DockerLayer ||
		m.Config.Digest != oci.Config.Digest || m.Layers[0].Digest != oci.Layers[0].Digest {
		t.Errorf("manifest %+v", m)
	}
	if again := pushOne(t, Options{Registry: host, Format: Docker}, api); again.State != handoff.PushUnchanged {
		t.Errorf("pushed again: %+v", again)
	}
	if back := pushOne(t, Options{Registry: host}, api); back.State != handoff.PushUnchanged || back.Digest != docker.Digest {
		t.Errorf("OCI's readers read docker's: %+v", back)
	}
	arm := Image{Name: "api", Tag: nixHash(2), System: "aarch64-linux", Path: archive(t, "arm64", layer(t, 1, 5000))}
	if list := pushOne(t, Options{Registry: host, Format: Docker}, api, arm); list.MediaType != string(types.DockerManifestList) {
		t.Errorf("several systems: %+v", list)
	}

	// A layer that is there as zstd is none for docker.
	web := Image{Name: "web", Tag: nixHash(3), Path: archive(t, "amd64", layer(t, 2, 5000))}
	o := Options{Registry: host, Compression: Zstd, Client: client(&wire{})}
	if _, err := Images(t.Context(), []Image{web}, o); err != nil {
		t.Fatal(err)
	}
	if p := pushOne(t, Options{Registry: host, Format: Docker}, web); p.Layers != (handoff.Layers{Uploaded: 1}) {
		t.Errorf("from zstd: %+v", p)
	}
}

// The layers of a stream image carry their keys: another image that has them is pushed without reading them from the store.
func TestLayersAreKnownByTheirKeys(t *testing.T) {
	host := distribution.Start(t).Host
	root := t.TempDir()
	store := handoff.Store{Dir: "/nix/store", Root: root}
	lib, app, newer := storePath("l", "lib"), storePath("m", "app"), storePath("n", "app")
	for i, p := range []string{lib, app, newer} {
		storeFile(t, root, p+"/file", noise(uint64(i), 5000))
	}
	first := pushOne(t, Options{Registry: host}, Image{Name: "api", Tag: nixHash(1), Path: stream(t, root, "s", []string{lib}, []string{app}), Store: store})
	m := manifestOf(t, first)
	for i, l := range m.Layers {
		if l.Annotations[streamconf.KeyAnnotation] == "" {
			t.Errorf("layer %d: annotations %v", i+1, l.Annotations)
		}
	}
	if err := os.RemoveAll(root + lib); err != nil {
		t.Fatal(err)
	}
	images := []Image{
		{Name: "api", Tag: nixHash(2), Path: stream(t, root, "t", []string{lib}, []string{newer}), Store: store},
		{Name: "web", Tag: nixHash(3), Path: stream(t, root, "u", []string{lib}, []string{newer}), Store: store},
	}
	pushed, err := Images(t.Context(), images, Options{Registry: host, Client: client(&wire{})})
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, pushed)
	total := handoff.Layers{}
	for _, p := range pushed {
		total.Reused, total.Mounted, total.Uploaded = total.Reused+p.Layers.Reused, total.Mounted+p.Layers.Mounted, total.Uploaded+p.Layers.Uploaded
	}
	if want := (handoff.Layers{Reused: 2, Mounted: 3, Uploaded: 1}); total != want {
		t.Errorf("layers %+v, want %+v", total, want)
	}
	images[0].Tag = nixHash(4)
	if _, err := Images(t.Context(), images[:1], Options{Registry: host, Client: client(&wire{}), NoLearn: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without learning: %v, want the store path to be missed", err)
	}
}

// The conf.json of a stream image is enough where the registry has the layers. What is to be signed is read all the same.
func TestStreamByItsConfAlone(t *testing.T) {
	host := distribution.Start(t).Host
	root := t.TempDir()
	store := handoff.Store{Dir: "/nix/store", Root: root}
	lib := storePath("l", "lib")
	storeFile(t, root, lib+"/file", noise(1, 5000))
	pushOne(t, Options{Registry: host}, Image{Name: "api", Tag: nixHash(1), Path: stream(t, root, "s", []string{lib}), Store: store})
	text, err := os.ReadFile(root + storePath("s", "api-conf.json"))
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "conf.json")
	if err := os.WriteFile(conf, bytes.Replace(text, []byte("A=1"), []byte("A=2"), 1), 0o444); err != nil {
		t.Fatal(err)
	}
	alone := Image{Name: "api", Tag: nixHash(2), Path: conf, Store: handoff.Store{Dir: "/nix/store", Root: t.TempDir()}, LayerTags: []string{nixHash(1)}}
	for _, o := range []Options{{}, {NoLearn: true}, {Exec: true}} {
		o.Registry, o.Client = host, client(&wire{})
		pushed, err := Images(t.Context(), []Image{alone}, o)
		if err != nil {
			t.Fatal(err)
		}
		if pushed[0].Layers != (handoff.Layers{Reused: 2}) {
			t.Errorf("layers %+v", pushed[0].Layers)
		}
		checkPulled(t, pushed)
		alone.Tag = nixHash(3)
	}
	alone.Tag = nixHash(4)
	if _, err := Images(t.Context(), []Image{alone}, Options{Registry: host, Client: client(&wire{}), Check: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is to be signed: %v, want the store path to be missed", err)
	}
}

// A layer that is written is measured by its tar, not by what an image in the registry says of it.
func TestAnImageLiesAboutItsKeys(t *testing.T) {
	host, server := strictRegistry(t)
	root := t.TempDir()
	store := handoff.Store{Dir: "/nix/store", Root: root}
	lib, app := storePath("l", "lib"), storePath("m", "app")
	storeFile(t, root, lib+"/file", noise(1, 5000))
	storeFile(t, root, app+"/file", noise(2, 5000))
	first := pushOne(t, Options{Registry: host}, Image{Name: "api", Tag: nixHash(1), Path: stream(t, root, "s", []string{lib}, []string{app}), Store: store})
	layers := manifestOf(t, first).Layers
	swap := strings.NewReplacer(layers[0].Annotations[streamconf.KeyAnnotation], layers[1].Annotations[streamconf.KeyAnnotation],
		layers[1].Annotations[streamconf.KeyAnnotation], layers[0].Annotations[streamconf.KeyAnnotation])
	server.mu.Lock()
	for at, manifest := range server.manifests {
		server.manifests[at] = []byte(swap.Replace(string(manifest)))
	}
	server.mu.Unlock()

	images := []Image{
		{Name: "api", Tag: nixHash(2), Path: stream(t, root, "t", []string{lib}), Store: store},
		{Name: "web", Tag: nixHash(3), Path: stream(t, root, "u", []string{app}), Store: store},
	}
	noMounts := &wire{spoil: func(req *http.Request, _ int) (*http.Response, error) {
		if isMount(req) {
			return answer(http.StatusMethodNotAllowed)(req)
		}
		return nil, nil
	}}
	if _, err := Images(t.Context(), images, Options{Registry: host, Client: client(noMounts)}); !errors.As(err, new(*ClaimError)) {
		t.Errorf("err = %v", err)
	}
	pushOne(t, Options{Registry: host, NoLearn: true}, images...)
}

// Without learning, all layers are compressed, and still none is sent that is there.
func TestNoLearn(t *testing.T) {
	host := distribution.Start(t).Host
	api := Image{Name: "api", Tag: nixHash(1), Path: archive(t, "amd64", layer(t, 1, 5000), layer(t, 2, 5000))}
	first := pushOne(t, Options{Registry: host}, api)
	w := &wire{}
	pushed, err := Images(t.Context(), []Image{api}, Options{Registry: host, NoLearn: true, Client: client(w)})
	if err != nil {
		t.Fatal(err)
	}
	if p := pushed[0]; p.Digest != first.Digest || p.State != handoff.PushUnchanged || p.Layers != (handoff.Layers{Reused: 2}) {
		t.Errorf("pushed %+v", p)
	}
	if w.counts["GET manifests"] > 0 || w.counts["GET blobs"] > 0 {
		t.Errorf("requests %v", w.counts)
	}
}

// A registry that lost a layer of an image that is there: only who asks for each notices, and puts it right.
func TestVerifyReuse(t *testing.T) {
	server := distribution.Start(t)
	base := layer(t, 1, 5000)
	api := Image{Name: "api", Tag: nixHash(1), Path: archive(t, "amd64", base, layer(t, 2, 5000))}
	first := pushOne(t, Options{Registry: server.Host}, api)
	hex := manifestOf(t, first).Layers[0].Digest.Hex
	lose := func() {
		for _, dir := range []string{"repositories/api/_layers/sha256/" + hex, "blobs/sha256/" + hex[:2] + "/" + hex} {
			if err := os.RemoveAll(filepath.Join(server.Root, "docker/registry/v2", dir)); err != nil {
				t.Fatal(err)
			}
		}
	}
	lose()
	if _, err := Images(t.Context(), []Image{api}, Options{Registry: server.Host, Client: client(&wire{})}); err != nil {
		t.Fatal(err)
	}
	if got := pushOne(t, Options{Registry: server.Host, Verify: true}, api); got.Digest != first.Digest || got.Layers != (handoff.Layers{Reused: 1, Uploaded: 1}) {
		t.Errorf("pushed %+v", got)
	}
	lose()
	web := Image{Name: "api", Tag: nixHash(2), Path: archive(t, "amd64", base, layer(t, 3, 100))}
	if got := pushOne(t, Options{Registry: server.Host, Verify: true, LearnTags: []string{nixHash(1)}}, web); got.Layers != (handoff.Layers{Uploaded: 2}) {
		t.Errorf("pushed %+v", got)
	}
	if n := server.Check(t); n != 2 {
		t.Errorf("%d manifests, want 2", n)
	}
}

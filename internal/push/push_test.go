package push

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
	"github.com/flakeship/flakeship/internal/transport"
)

// TestMain keeps the machine's own credentials out.
func TestMain(m *testing.M) {
	home, err := os.MkdirTemp("", "push-test")
	if err != nil {
		panic(err)
	}
	for _, v := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG"} {
		os.Setenv(v, home)
	}
	os.Unsetenv("REGISTRY_AUTH_FILE")
	code := m.Run()
	os.RemoveAll(home)
	os.Exit(code)
}

// wire is a transport that counts requests and can spoil them.
type wire struct {
	mu     sync.Mutex
	counts map[string]int
	spoil  func(req *http.Request, n int) (*http.Response, error) // nil, nil: goes through
	n      int
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	kind := req.Method
	for _, part := range []string{"/blobs/uploads/", "/blobs/", "/manifests/", "/tags/list"} {
		if strings.Contains(req.URL.Path, part) {
			kind += " " + strings.Trim(part, "/")
			break
		}
	}
	if req.URL.Query().Has("mount") {
		kind = "mount"
	}
	w.mu.Lock()
	if w.counts == nil {
		w.counts = map[string]int{}
	}
	w.counts[kind]++
	w.n++
	n, spoil := w.n, w.spoil
	w.mu.Unlock()
	if spoil != nil {
		if resp, err := spoil(req, n); resp != nil || err != nil {
			return resp, err
		}
	}
	return http.DefaultTransport.RoundTrip(req)
}

// client is a fresh runner: it knows nothing.
func client(w *wire) *registry.Client {
	rt := transport.New(transport.Options{Base: w, RetryPost: true, Tries: 2})
	return registry.Open(registry.Options{Transport: rt, Push: true})
}

// noise is content that does not shrink.
func noise(seed uint64, size int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, size)
	rand.NewChaCha8(key).Read(b)
	return b
}

func tarOf(t testing.TB, files map[string][]byte, order ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range order {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		w.Write(files[name])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// layer is the tar of one file.
func layer(t testing.TB, seed uint64, size int) []byte {
	return tarOf(t, map[string][]byte{"f": noise(seed, size)}, "f")
}

// archive writes a docker-archive of these layers and returns its path.
func archive(t testing.TB, arch string, layers ...[]byte) string {
	t.Helper()
	files := map[string][]byte{}
	var order, names, ids []string
	for i, l := range layers {
		name := fmt.Sprintf("%d/layer.tar", i)
		files[name] = l
		order, names = append(order, name), append(names, name)
		ids = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(l)))
	}
	config, err := json.Marshal(map[string]any{"architecture": arch, "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "c.json", "Layers": names}})
	if err != nil {
		t.Fatal(err)
	}
	files["c.json"], files["manifest.json"] = config, manifest
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(file, tarOf(t, files, append(order, "c.json", "manifest.json")...), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// nixHash is a tag in the form of a Nix hash.
func nixHash(n int) string { return fmt.Sprintf("%032d", n) }

// outcome is what a test looks at of a result.
type outcome struct {
	Name     string
	State    handoff.PushState
	Layers   handoff.Layers
	AnySent  bool
	TagCount int
}

func outcomes(pushed []handoff.PushedImage) (got []outcome) {
	for _, p := range pushed {
		got = append(got, outcome{p.Name, p.State, p.Layers, p.Uploaded > 0, len(p.Tags)})
	}
	return got
}

// checkPulled pulls what a result names, as a runtime would, and checks every digest.
func checkPulled(t testing.TB, pushed []handoff.PushedImage) {
	t.Helper()
	for _, p := range pushed {
		ref, err := name.NewDigest(p.Repository + "@" + p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		d, err := remote.Get(ref)
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		if d.MediaType.IsIndex() {
			index, err := d.ImageIndex()
			if err == nil {
				err = validate.Index(index)
			}
			if err != nil {
				t.Errorf("%s: %v", p.Name, err)
			}
			continue
		}
		img, err := d.Image()
		if err == nil {
			err = validate.Image(img)
		}
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		for _, tag := range p.Tags {
			at, err := remote.Head(ref.Context().Tag(tag))
			if err != nil || at.Digest.String() != p.Digest {
				t.Errorf("%s:%s = %v, %v, want %s", p.Name, tag, at, err, p.Digest)
			}
		}
	}
}

const mib = 1 << 20

// Three services share a base. Each push is on a runner that has never seen anything.
func TestNothingIsSentTwice(t *testing.T) {
	host := distribution.Start(t).Host
	base, libs := layer(t, 1, mib), layer(t, 2, mib/2)
	apps := [][]byte{layer(t, 10, 1000), layer(t, 11, 1000), layer(t, 12, 1000)}
	var images []Image
	for i, app := range apps {
		images = append(images, Image{Name: fmt.Sprintf("svc%d", i), Tag: nixHash(i), System: "x86_64-linux", Path: archive(t, "amd64", base, libs, app)})
	}
	push := func(tags ...string) ([]handoff.PushedImage, map[string]int) {
		t.Helper()
		w := &wire{}
		pushed, err := Images(t.Context(), images, Options{Client: client(w), Registry: host + "/team", Tags: tags})
		if err != nil {
			t.Fatal(err)
		}
		checkPulled(t, pushed)
		return pushed, w.counts
	}

	cold, counts := push("main")
	total := int64(0)
	for _, p := range cold {
		if p.State != handoff.PushUploaded || p.Layers.Reused != 0 || p.Layers.Mounted+p.Layers.Uploaded != 3 {
			t.Errorf("cold: %+v", p)
		}
		total += p.Uploaded
	}
	if counts["mount"] != 4 || counts["PUT blobs/uploads"] != 5+3 { // two shared layers for two more repositories each; five layers and three configs
		t.Errorf("cold: %d mounts, %d uploads", counts["mount"], counts["PUT blobs/uploads"])
	}
	if total < 3*mib/2 || total > 3*mib/2+100_000 {
		t.Errorf("cold: %d bytes sent, want each layer once", total)
	}

	same, counts := push("main")
	for i, p := range same {
		if p.State != handoff.PushUnchanged || p.Uploaded != 0 || p.Digest != cold[i].Digest || p.Layers.Reused != 3 {
			t.Errorf("unchanged: %+v", p)
		}
	}
	if writes := counts["POST blobs/uploads"] + counts["PUT manifests"] + counts["PUT blobs/uploads"]; writes > 0 || counts["HEAD blobs"] > 0 {
		t.Errorf("unchanged: requests %v", counts)
	}

	images[1].Path, images[1].Tag = archive(t, "amd64", base, libs, layer(t, 20, 2000)), nixHash(100)
	changed, _ := push("main")
	want := []outcome{
		{"svc0", handoff.PushUnchanged, handoff.Layers{Reused: 3}, false, 2},
		{"svc1", handoff.PushUploaded, handoff.Layers{Reused: 2, Uploaded: 1}, true, 2},
		{"svc2", handoff.PushUnchanged, handoff.Layers{Reused: 3}, false, 2},
	}
	if diff := cmp.Diff(want, outcomes(changed)); diff != "" {
		t.Errorf("one changed (-want +got):\n%s", diff)
	}
	if changed[1].Uploaded > 10_000 {
		t.Errorf("one changed: %d bytes sent", changed[1].Uploaded)
	}

	// Without any tag that moves, older images are found all the same.
	images[2].Path, images[2].Tag = archive(t, "amd64", base, libs, layer(t, 21, 2000)), nixHash(101)
	changed, _ = push()
	if got := changed[2].Layers; got != (handoff.Layers{Reused: 2, Uploaded: 1}) {
		t.Errorf("one changed, no tags: %+v", got)
	}

	// The first image of a new service takes over what images have that an earlier step left alone.
	for i := range images {
		images[i].Present, images[i].Digest, images[i].Path = true, changed[i].Digest, ""
	}
	images = append(images, Image{Name: "svc3", Tag: nixHash(3), System: "x86_64-linux", Path: archive(t, "amd64", base, libs, layer(t, 22, 100))})
	added, _ := push("main")
	want = []outcome{
		{"svc0", handoff.PushUnchanged, handoff.Layers{}, false, 2},
		{"svc1", handoff.PushUnchanged, handoff.Layers{}, false, 2},
		{"svc2", handoff.PushUnchanged, handoff.Layers{}, true, 2}, // its tag main moved
		{"svc3", handoff.PushUploaded, handoff.Layers{Mounted: 2, Uploaded: 1}, true, 2},
	}
	if diff := cmp.Diff(want, outcomes(added)); diff != "" {
		t.Errorf("a new service (-want +got):\n%s", diff)
	}
}

// Each compression makes an image that runtimes can read; what is there in another compression is reused.
func TestCompressions(t *testing.T) {
	host := distribution.Start(t).Host
	text := tarOf(t, map[string][]byte{"f": bytes.Repeat([]byte("text "), 100_000)}, "f")
	for i, test := range []struct {
		compression Compression
		level       int
		mediaType   types.MediaType
	}{{"", 0, types.OCILayer}, {Gzip, 9, types.OCILayer}, {Zstd, 0, types.OCILayerZStd}, {Zstd, 19, types.OCILayerZStd}, {None, 0, types.OCIUncompressedLayer}} {
		images := []Image{{Name: fmt.Sprintf("c%d", i), Tag: nixHash(i), Path: archive(t, "amd64", text)}}
		o := Options{Client: client(&wire{}), Registry: host, Compression: test.compression, Level: test.level}
		pushed, err := Images(t.Context(), images, o)
		if err != nil {
			t.Fatal(err)
		}
		if test.mediaType == types.OCILayer { // validate reads nothing else
			checkPulled(t, pushed)
		}
		ref, _ := name.NewDigest(pushed[0].Repository + "@" + pushed[0].Digest)
		img, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Layers[0].MediaType; got != test.mediaType {
			t.Errorf("%s: media type %s, want %s", test.compression, got, test.mediaType)
		}
		if small := m.Layers[0].Size < 50_000; small != (test.compression != None) {
			t.Errorf("%s: %d bytes", test.compression, m.Layers[0].Size)
		}
		images[0].Tag = "another"
		o.Client, o.Compression, o.Level, o.LearnTags = client(&wire{}), Gzip, 0, []string{nixHash(i)}
		again, err := Images(t.Context(), images, o)
		if err != nil || again[0].Layers != (handoff.Layers{Reused: 1}) {
			t.Errorf("%s, pushed again: %+v, %v", test.compression, again, err)
		}
	}
	if Gzip.CheckLevel(10) == nil || Zstd.CheckLevel(22) != nil || None.CheckLevel(1) == nil {
		t.Error("levels are not checked")
	}
}

// Images of one name for several systems become one index; each is there by its own hash too.
func TestSystemsAreJoined(t *testing.T) {
	host := distribution.Start(t).Host
	images := []Image{
		{Name: "api", Tag: nixHash(1), System: "x86_64-linux", Path: archive(t, "amd64", layer(t, 1, 1000))},
		{Name: "api", Tag: nixHash(2), System: "aarch64-linux", Path: archive(t, "arm64", layer(t, 2, 1000))},
	}
	push := func() handoff.PushedImage {
		t.Helper()
		pushed, err := Images(t.Context(), images, Options{Client: client(&wire{}), Registry: host, Tags: []string{"main"}})
		if err != nil {
			t.Fatal(err)
		}
		checkPulled(t, pushed)
		return pushed[0]
	}
	first := push()
	if first.MediaType != string(types.OCIImageIndex) || !cmp.Equal(first.Systems, []string{"aarch64-linux", "x86_64-linux"}) || len(first.Tag) != 32 {
		t.Errorf("pushed %+v", first)
	}
	ref, _ := name.NewTag(host + "/api:main")
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := remote.Image(ref, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := img.ConfigFile(); err != nil || c.Architecture != arch {
			t.Errorf("for %s: %v, %v", arch, c, err)
		}
	}
	if again := push(); again.State != handoff.PushUnchanged || again.Uploaded != 0 || again.Digest != first.Digest {
		t.Errorf("pushed again: %+v", again)
	}
	// One of them was left alone by an earlier step, the other is new.
	images[0] = Image{Name: "api", Tag: nixHash(1), System: "x86_64-linux", Present: true}
	images[1].Tag, images[1].Path = nixHash(3), archive(t, "arm64", layer(t, 2, 1000), layer(t, 3, 1000))
	if changed := push(); changed.State != handoff.PushUploaded || changed.Digest == first.Digest || changed.Layers != (handoff.Layers{Reused: 1, Uploaded: 1}) {
		t.Errorf("one system changed: %+v", changed)
	}
}

// A layer that is not what the image says, or an image that is missing, is told before anything refers to it; the others
// get in, and shared tags stay where they are.
func TestOneImageFails(t *testing.T) {
	host := distribution.Start(t).Host
	lying := archive(t, "amd64", layer(t, 1, 1000))
	b, err := os.ReadFile(lying)
	if err != nil {
		t.Fatal(err)
	}
	b[600]++ // inside the layer's file
	if err := os.WriteFile(lying, b, 0o644); err != nil {
		t.Fatal(err)
	}
	images := []Image{
		{Name: "good", Tag: nixHash(1), Path: archive(t, "amd64", layer(t, 2, 1000))},
		{Name: "lying", Tag: nixHash(2), Path: lying},
		{Name: "none", Tag: nixHash(3), Path: "/nonexistent"},
		{Name: "stale", Tag: nixHash(4), Present: true, Digest: "sha256:" + strings.Repeat("0", 64)},
	}
	var done []string
	o := Options{Client: client(&wire{}), Registry: host, Tags: []string{"main"}, Done: func(p handoff.PushedImage, _ time.Duration) { done = append(done, p.Name) }}
	pushed, err := Images(t.Context(), images, o)
	if !errors.As(err, new(*image.DigestError)) || !errors.Is(err, os.ErrNotExist) || !errors.As(err, new(*StaleError)) {
		t.Errorf("err = %v", err)
	}
	want := []outcome{
		{"good", handoff.PushUploaded, handoff.Layers{Uploaded: 1}, true, 1},
		{"lying", handoff.PushFailed, handoff.Layers{}, false, 0},
		{"none", handoff.PushFailed, handoff.Layers{}, false, 0},
		{"stale", handoff.PushFailed, handoff.Layers{}, false, 0},
	}
	if diff := cmp.Diff(want, outcomes(pushed)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, p := range pushed[1:] {
		if p.Error == "" || p.Error == "not reached" {
			t.Errorf("%s: error %q", p.Name, p.Error)
		}
	}
	if len(done) != 4 {
		t.Errorf("told of %v", done)
	}
	for _, ref := range []string{"/lying:" + nixHash(2), "/good:main"} {
		if _, err := client(&wire{}).Head(t.Context(), host+ref); !errors.Is(err, registry.ErrAbsent) {
			t.Errorf("%s is in the registry: %v", ref, err)
		}
	}
}

// A registry may have collected a layer that one of its manifests still names. What was learned is then wrong, and is put right.
func TestCollectedLayerIsSentAgain(t *testing.T) {
	server := distribution.Start(t)
	host, root := server.Host, server.Root
	base := layer(t, 1, 5000)
	images := []Image{{Name: "api", Tag: nixHash(1), Path: archive(t, "amd64", base, layer(t, 2, 100))}}
	o := Options{Registry: host, Tags: []string{"main"}}
	o.Client = client(&wire{})
	first, err := Images(t.Context(), images, o)
	if err != nil {
		t.Fatal(err)
	}
	ref, _ := name.NewDigest(first[0].Repository + "@" + first[0].Digest)
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	hex := m.Layers[0].Digest.Hex
	for _, dir := range []string{"repositories/api/_layers/sha256/" + hex, "blobs/sha256/" + hex[:2] + "/" + hex} {
		if err := os.RemoveAll(filepath.Join(root, "docker/registry/v2", dir)); err != nil {
			t.Fatal(err)
		}
	}
	images[0].Tag, images[0].Path = nixHash(2), archive(t, "amd64", base, layer(t, 3, 100))
	o.Client = client(&wire{})
	second, err := Images(t.Context(), images, o)
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, second)
	if second[0].Layers != (handoff.Layers{Uploaded: 2}) {
		t.Errorf("layers %+v", second[0].Layers)
	}
}

// Wherever a request fails, once or for good, the registry stays right and the next run gets everything in.
func TestEveryRequestMayFail(t *testing.T) {
	failures := map[string]func(req *http.Request) (*http.Response, error){
		"connection lost": func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
		"500":             answer(http.StatusInternalServerError),
		"404":             answer(http.StatusNotFound),
	}
	base := layer(t, 1, 20_000)
	var images []Image
	for i := range 2 {
		images = append(images, Image{Name: fmt.Sprintf("svc%d", i), Tag: nixHash(i), Path: archive(t, "amd64", base, layer(t, uint64(10+i), 1000))})
	}
	for name, fail := range failures {
		for at := 1; ; at++ {
			host, server := strictRegistry(t)
			var reached atomic.Bool
			ctx, kill := context.WithTimeout(t.Context(), time.Minute)
			w := &wire{spoil: func(req *http.Request, n int) (*http.Response, error) {
				if n < at {
					return nil, nil
				}
				if reached.Store(true); n == at {
					return fail(req)
				}
				kill() // the run is over, as far as the registry can tell
				return nil, ctx.Err()
			}}
			_, err := Images(ctx, images, Options{Client: client(w), Registry: host, Tags: []string{"main"}})
			kill()
			if !reached.Load() {
				if at < 20 || err != nil {
					t.Errorf("%s: %v although nothing failed", name, err)
				}
				break
			}
			if server.broken() != "" {
				t.Fatalf("%s at request %d: %s", name, at, server.broken())
			}
			pushed, err := Images(t.Context(), images, Options{Client: client(&wire{}), Registry: host, Tags: []string{"main"}})
			if err != nil || server.broken() != "" {
				t.Fatalf("%s at request %d, run again: %v %s", name, at, err, server.broken())
			}
			if at%7 == 0 {
				checkPulled(t, pushed)
			}
		}
	}
}

func answer(status int) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		w.WriteHeader(status)
		resp := w.Result()
		resp.Request = req
		return resp, nil
	}
}

// A single failure is not even noticed.
func TestOneLostConnection(t *testing.T) {
	base := layer(t, 1, 20_000)
	images := []Image{{Name: "a", Tag: nixHash(1), Path: archive(t, "amd64", base)}, {Name: "b", Tag: nixHash(2), Path: archive(t, "amd64", base)}}
	for at := 1; at < 25; at += 3 {
		host, server := strictRegistry(t)
		w := &wire{spoil: func(req *http.Request, n int) (*http.Response, error) {
			if n != at {
				return nil, nil
			}
			if req.Body != nil {
				io.CopyN(io.Discard, req.Body, 1000) // half-way
			}
			return nil, io.ErrUnexpectedEOF
		}}
		pushed, err := Images(t.Context(), images, Options{Client: client(w), Registry: host})
		if err != nil || server.broken() != "" {
			t.Errorf("request %d lost: %v %s", at, err, server.broken())
			continue
		}
		checkPulled(t, pushed)
	}
}

func TestNamesAreChecked(t *testing.T) {
	w := &wire{}
	_, err := Images(t.Context(), []Image{
		{Name: "Upper", Tag: "x"}, {Name: "a", Tag: "-x"}, {Name: "b", Tag: "x", ImageTag: "a b"},
		{Name: "c", Tag: "x", System: "s"}, {Name: "c", Tag: "y", System: "s"},
	}, Options{Client: client(w), Registry: "h.example.org", Tags: []string{"a/b"}})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 5 || !errors.As(err, new(*NameError)) {
		t.Errorf("err = %v", err)
	}
	if w.n > 0 {
		t.Error("something was sent")
	}
}

func TestPlatforms(t *testing.T) {
	want := []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "arm", Variant: "v7"}}
	got := []v1.Platform{platformOf("x86_64-linux"), platformOf("aarch64-linux"), platformOf("armv7l-linux")}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

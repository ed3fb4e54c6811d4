package push

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/registry"
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
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name])), Typeflag: tar.TypeReg}); err != nil {
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
	return archiveOf(t, map[string]any{"architecture": arch}, layers...)
}

// archiveOf is archive with another config, whose layers and os are filled in.
func archiveOf(t testing.TB, about map[string]any, layers ...[]byte) string {
	t.Helper()
	files := map[string][]byte{}
	var order, names, ids []string
	for i, l := range layers {
		name := fmt.Sprintf("%d/layer.tar", i)
		files[name] = l
		order, names = append(order, name), append(names, name)
		ids = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(l)))
	}
	about["os"], about["rootfs"] = "linux", map[string]any{"type": "layers", "diff_ids": ids}
	config, err := json.Marshal(about)
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

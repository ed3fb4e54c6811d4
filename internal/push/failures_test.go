package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

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
	collect(t, root, "api", m.Layers[0].Digest.Hex)
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

// collect makes a registry lose a blob of a repository.
func collect(t *testing.T, root, repo, hex string) {
	t.Helper()
	for _, dir := range []string{"repositories/" + repo + "/_layers/sha256/" + hex, "blobs/sha256/" + hex[:2] + "/" + hex} {
		if err := os.RemoveAll(filepath.Join(root, "docker/registry/v2", dir)); err != nil {
			t.Fatal(err)
		}
	}
}

// So may a config be, which is not read where it is the same as on this machine.
func TestCollectedConfigIsSentAgain(t *testing.T) {
	server := distribution.Start(t)
	images := []Image{{Name: "api", Tag: nixHash(1), Path: archive(t, "amd64", layer(t, 1, 5000))}}
	o := Options{Registry: server.Host, Client: client(&wire{})}
	first, err := Images(t.Context(), images, o)
	if err != nil {
		t.Fatal(err)
	}
	ref, _ := name.NewDigest(first[0].Repository + "@" + first[0].Digest)
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	collect(t, server.Root, "api", config.Hex)
	o.Client, o.Annotations = client(&wire{}), map[string]string{"a": "b"} // another manifest of the same config
	second, err := Images(t.Context(), images, o)
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, second)
	collect(t, server.Root, "api", config.Hex)
	o.Client, o.Verify = client(&wire{}), true
	third, err := Images(t.Context(), images, o)
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, third)
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

// A registry that hangs does not keep a cancelled run.
func TestCancelled(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			<-release
		}
	}))
	defer server.Close()
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	start := time.Now()
	pushed, err := Images(ctx, []Image{{Name: "api", Tag: "v1", Path: archive(t, "amd64", layer(t, 1, 100))}},
		Options{Client: client(&wire{}), Registry: strings.TrimPrefix(server.URL, "http://")})
	if took := time.Since(start); !errors.Is(err, context.Canceled) || took > 30*time.Second {
		t.Errorf("Images = %v after %s", err, took)
	}
	if len(pushed) != 1 || pushed[0].State != handoff.PushFailed || pushed[0].Error == "" {
		t.Errorf("pushed %+v", pushed)
	}
}

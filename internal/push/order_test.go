package push

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
	"github.com/flakeship/flakeship/internal/transport"
)

// Layers are begun with the biggest of all images; one that several have, once.
func TestBiggestFirst(t *testing.T) {
	small, middle, big := layer(t, 1, 1000), layer(t, 2, 20_000), layer(t, 3, 300_000)
	r := newRun(Options{Client: client(&wire{}), Registry: "127.0.0.1:1"})
	groups, err := r.plan([]Image{
		{Name: "a", Tag: "v1", Path: archive(t, "amd64", small, middle)}, {Name: "b", Tag: "v1", Path: archive(t, "amd64", middle, big, small)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var members []*member
	for _, g := range groups {
		m := g.members[0]
		if m.image, err = r.open(t.Context(), m.Image); err != nil {
			t.Fatal(err)
		}
		defer g.close()
		members = append(members, m)
	}
	var got []string
	for _, task := range makeTasks(members) {
		got = append(got, fmt.Sprintf("%d bytes for %d", task.layer.Size, len(task.users)))
	}
	want := []string{fmt.Sprintf("%d bytes for 1", len(big)), fmt.Sprintf("%d bytes for 2", len(middle)), fmt.Sprintf("%d bytes for 2", len(small))}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// On the way to the registry each thing waits for what it names: blobs, config, manifest, index, and shared tags when all images are in.
func TestWhatIsWrittenLast(t *testing.T) {
	server := distribution.Start(t)
	var mu sync.Mutex
	var written []string
	host := front(t, server, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(w, r)
		if r.Method == http.MethodPut {
			mu.Lock()
			defer mu.Unlock()
			_, at, isManifest := strings.Cut(r.URL.Path, "/manifests/")
			switch {
			case !isManifest:
				at = "blob"
			case at != "main":
				at = "own"
			}
			written = append(written, strings.Split(r.URL.Path, "/")[2]+" "+at)
		}
	})
	images := []Image{
		{Name: "a", Tag: nixHash(1), System: "x86_64-linux", Path: archive(t, "amd64", layer(t, 1, 1000), layer(t, 2, 400_000))},
		{Name: "a", Tag: nixHash(2), System: "aarch64-linux", Path: archive(t, "arm64", layer(t, 3, 1000))},
		{Name: "b", Tag: nixHash(3), Path: archive(t, "amd64", layer(t, 4, 1000))},
	}
	if _, err := Images(t.Context(), images, Options{Client: faultClient(), Registry: host, Tags: []string{"main"}}); err != nil {
		t.Fatal(err)
	}
	if n := len(written); n < 2 || !strings.HasSuffix(written[n-1], " main") || !strings.HasSuffix(written[n-2], " main") {
		t.Errorf("in the end: %v", written)
	}
	last := map[string]int{}
	for i, w := range written {
		last[w] = i
	}
	for _, repo := range []string{"a", "b"} {
		if last[repo+" blob"] > last[repo+" own"] || last[repo+" own"] > last[repo+" main"] {
			t.Errorf("%s: %v", repo, written)
		}
	}
	server.Check(t)
}

// A dry run asks and sends nothing, attachments and indexes included.
func TestDryRunOnlyReads(t *testing.T) {
	server := distribution.Start(t)
	base := layer(t, 1, 50_000)
	images := []Image{
		{Name: "a", Tag: nixHash(1), System: "x86_64-linux", Path: archive(t, "amd64", base, layer(t, 2, 1000))},
		{Name: "a", Tag: nixHash(2), System: "aarch64-linux", Path: archive(t, "arm64", base)},
		{Name: "b", Tag: nixHash(3), Path: archive(t, "amd64", base)},
	}
	push := func(rt func(http.RoundTripper) http.RoundTripper) ([]handoff.PushedImage, map[string]int) {
		t.Helper()
		w := &wire{}
		c := registry.Open(registry.Options{Transport: rt(transport.New(transport.Options{Base: w, RetryPost: true})), Push: true})
		pushed, err := Images(t.Context(), images, Options{Client: c, Registry: server.Host, Tags: []string{"main"}, Attach: noted("sig", "one")})
		if err != nil {
			t.Fatal(err)
		}
		return pushed, w.counts
	}
	for _, state := range []handoff.PushState{handoff.PushUploaded, handoff.PushUnchanged} {
		dry, counts := push(DryRun)
		for kind := range counts {
			if !strings.HasPrefix(kind, "GET") && !strings.HasPrefix(kind, "HEAD") {
				t.Errorf("requests %v", counts)
			}
		}
		real, _ := push(func(rt http.RoundTripper) http.RoundTripper { return rt })
		for i := range real {
			if dry[i].State != state || real[i].State != state || dry[i].Digest != real[i].Digest || !cmp.Equal(dry[i].Tags, real[i].Tags) {
				t.Errorf("said %+v, did %+v", dry[i], real[i])
			}
		}
	}
}

// The annotations that are asked for are on an index and on each of its images.
func TestAnnotationsOfAnIndex(t *testing.T) {
	host := distribution.Start(t).Host
	images := []Image{
		{Name: "a", Tag: nixHash(1), System: "x86_64-linux", Path: archive(t, "amd64", layer(t, 1, 1000))},
		{Name: "a", Tag: nixHash(2), System: "aarch64-linux", Path: archive(t, "arm64", layer(t, 2, 1000))},
	}
	wanted := map[string]string{"org.opencontainers.image.revision": strings.Repeat("c", 40)}
	pushed, err := Images(t.Context(), images, Options{Client: client(&wire{}), Registry: host, Annotations: wanted})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewDigest(pushed[0].Repository + "@" + pushed[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	all, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(all.Annotations, wanted) || len(all.Manifests) != 2 {
		t.Errorf("index %+v", all)
	}
	for _, d := range all.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil || !cmp.Equal(m.Annotations, wanted) {
			t.Errorf("%s: %+v, %v", d.Platform, m, err)
		}
		if config, err := img.RawConfigFile(); err != nil || bytes.Contains(config, []byte("ccccc")) {
			t.Errorf("%s: config %s, %v", d.Platform, config, err)
		}
	}
}

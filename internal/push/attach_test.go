package push

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/streamconf"
)

// noted attaches a text of one kind to everything.
func noted(kind, text string) func(context.Context, Subject) ([]Attachment, error) {
	return func(context.Context, Subject) ([]Attachment, error) {
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text)))
		return []Attachment{{Kind: kind, ArtifactType: "application/vnd.example." + kind, Entries: []Entry{{
			Is:   func(d v1.Descriptor) bool { return d.Digest.String() == digest },
			Make: func() (Attached, error) { return Attached{MediaType: "text/plain", Content: []byte(text)}, nil },
		}}}}, nil
	}
}

// attachedTo lists what is attached to an image: each kind's texts by digest, and the artifact types of its referrers.
func attachedTo(t *testing.T, repository, digest string, kinds ...string) (texts map[string]int, referrers map[string]int) {
	t.Helper()
	texts, referrers = map[string]int{}, map[string]int{}
	ref, err := name.NewDigest(repository + "@" + digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		d, err := remote.Get(ref.Context().Tag(strings.Replace(digest, ":", "-", 1) + "." + kind))
		if err != nil {
			continue
		}
		m, err := v1.ParseManifest(strings.NewReader(string(d.Manifest)))
		if err != nil || m.Subject == nil || m.Subject.Digest.String() != digest {
			t.Fatalf("%s: %s, %v", kind, d.Manifest, err)
		}
		texts[kind] = len(m.Layers)
	}
	index, err := remote.Referrers(ref)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Manifests {
		referrers[d.ArtifactType]++
	}
	return texts, referrers
}

// What is attached by others, and what was before, stays; what is there is not written again.
func TestAttachmentsAreAdded(t *testing.T) {
	host, _ := strictRegistry(t)
	images := []Image{{Name: "api", Tag: nixHash(1), Path: archive(t, "amd64", layer(t, 1, 1000))}}
	push := func(kind, text string) handoff.PushedImage {
		t.Helper()
		pushed, err := Images(t.Context(), images, Options{Client: client(&wire{}), Registry: host, Attach: noted(kind, text)})
		if err != nil {
			t.Fatal(err)
		}
		return pushed[0]
	}
	first := push("sig", "one")
	for _, more := range [][2]string{{"sig", "two"}, {"att", "three"}} {
		if p := push(more[0], more[1]); p.Digest != first.Digest || p.State != handoff.PushUnchanged || p.Uploaded == 0 {
			t.Errorf("%v: %+v", more, p)
		}
	}
	for range 2 {
		if p := push("sig", "two"); p.Uploaded != 0 {
			t.Errorf("again: %+v", p)
		}
	}
	texts, referrers := attachedTo(t, first.Repository, first.Digest, "sig", "att")
	if diff := cmp.Diff(map[string]int{"sig": 2, "att": 1}, texts); diff != "" {
		t.Errorf("attached (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"application/vnd.example.sig": 1, "application/vnd.example.att": 1}, referrers); diff != "" {
		t.Errorf("referrers (-want +got):\n%s", diff)
	}
}

// Whenever a run ends: an image at its tag has its attachments, and another run writes what is missing.
func TestATagHasItsAttachments(t *testing.T) {
	path := archive(t, "amd64", layer(t, 1, 1000), layer(t, 2, 1000))
	for n := 1; ; n++ {
		host, registry := strictRegistry(t)
		images := []Image{{Name: "api", Tag: nixHash(1), Path: path}}
		ctx, cancel := context.WithCancel(t.Context())
		reached := false
		w := &wire{spoil: func(req *http.Request, i int) (*http.Response, error) {
			if i == n {
				reached = true
				cancel()
				return nil, context.Canceled
			}
			return nil, nil
		}}
		o := Options{Client: client(w), Registry: host, Attach: noted("sig", "one")}
		if _, err := Images(ctx, images, o); reached && !errors.Is(err, context.Canceled) {
			t.Fatalf("killed at request %d: %v", n, err)
		}
		cancel()
		check := func(when string) bool {
			ref, _ := name.NewTag(host + "/api:" + nixHash(1))
			d, err := remote.Head(ref)
			if err != nil {
				return false
			}
			texts, referrers := attachedTo(t, host+"/api", d.Digest.String(), "sig")
			if texts["sig"] != 1 || referrers["application/vnd.example.sig"] != 1 {
				t.Errorf("%s request %d the tag is there, with %v and the referrers %v", when, n, texts, referrers)
			}
			return true
		}
		check("killed at")
		if !reached {
			break // it needs fewer requests
		}
		o.Client = client(&wire{})
		if _, err := Images(t.Context(), images, o); err != nil {
			t.Fatalf("after it was killed at request %d: %v", n, err)
		}
		if !check("again after") || registry.broken() != "" {
			t.Errorf("after it was killed at request %d there is no tag; %s", n, registry.broken())
		}
	}
}

// Who may write to the registry may say of any layer that it is that of some store paths. What is signed does not rest on it.
func TestCheckedImagesRestOnNothingTheRegistrySays(t *testing.T) {
	host, _ := strictRegistry(t)
	root := t.TempDir()
	store := handoff.Store{Dir: "/nix/store", Root: root}
	lib := storePath("l", "lib")
	storeFile(t, root, lib+"/lib.so", noise(1, 1000))
	script := stream(t, root, "s", []string{lib})
	push := func(o Options, i Image) *v1.Manifest {
		t.Helper()
		o.Client, o.Registry = client(&wire{}), host
		pushed, err := Images(t.Context(), []Image{i}, o)
		if err != nil {
			t.Fatal(err)
		}
		d, err := name.NewDigest(pushed[0].Repository + "@" + pushed[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		img, err := remote.Image(d)
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	honest := push(Options{}, Image{Name: "honest", Tag: nixHash(1), Path: script, Store: store})

	// The same store paths with another content, as an attacker would plant them: at the image's own tag, and at one that is learned from.
	if err := os.Chmod(root+lib+"/lib.so", 0o644); err != nil {
		t.Fatal(err)
	}
	storeFile(t, root, lib+"/lib.so", noise(2, 1000))
	planted := push(Options{NoLearn: true, Tags: []string{"main"}}, Image{Name: "api", Tag: nixHash(2), Path: script, Store: store})
	if planted.Layers[0].Digest == honest.Layers[0].Digest || planted.Layers[0].Annotations[streamconf.KeyAnnotation] != honest.Layers[0].Annotations[streamconf.KeyAnnotation] {
		t.Fatalf("planted %+v", planted)
	}
	storeFile(t, root, lib+"/lib.so", noise(1, 1000))

	for _, tag := range []string{nixHash(2), nixHash(3)} {
		got := push(Options{Check: true, LearnTags: []string{"main"}}, Image{Name: "api", Tag: tag, Path: script, Store: store})
		if got.Layers[0].Digest != honest.Layers[0].Digest {
			t.Errorf("at %s the planted layer was taken", tag)
		}
		push(Options{NoLearn: true}, Image{Name: "api", Tag: tag, Path: script, Store: store})
	}
	// Without Check it would be: that is what makes a push fast.
	storeFile(t, root, lib+"/lib.so", noise(2, 1000))
	push(Options{NoLearn: true, Tags: []string{"main"}}, Image{Name: "fast", Tag: nixHash(4), Path: script, Store: store})
	storeFile(t, root, lib+"/lib.so", noise(1, 1000))
	if got := push(Options{LearnTags: []string{"main"}}, Image{Name: "fast", Tag: nixHash(5), Path: script, Store: store}); got.Layers[0].Digest == honest.Layers[0].Digest {
		t.Error("the layer's key was not used: this test shows nothing")
	}
}

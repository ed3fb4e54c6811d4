package push

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

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
	// Two shared layers are mounted into two more repositories each; five layers ask for themselves. Then three configs are sent too.
	if counts["mount"] != 4+5 || counts["PUT blobs/uploads"] != 5+3 || counts["POST blobs/uploads"] != 3 || counts["HEAD blobs"]+counts["HEAD manifests"] > 0 {
		t.Errorf("cold: requests %v", counts)
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
	// What is at the hash, which has the config that is on this machine, and what is at main; and how the registry wants to be spoken to.
	if reads := counts["GET manifests"]; reads != 2*3 || len(counts) != 2 {
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

// A registry on a host of its own that has no TLS is spoken to when it is named, and only then.
func TestInsecureRegistry(t *testing.T) {
	host, _ := strictRegistry(t)
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, host)
	}
	images := []Image{{Name: "api", Tag: "v1", Path: archive(t, "amd64", layer(t, 1, 100))}}
	for _, insecure := range [][]string{nil, {"registry.example.org:5000"}} {
		c := registry.Open(registry.Options{Transport: base, Push: true, Insecure: insecure})
		_, err := Images(t.Context(), images, Options{Client: c, Registry: "registry.example.org:5000"})
		if insecure == nil && !errors.Is(err, http.ErrSchemeMismatch) || insecure != nil && err != nil {
			t.Errorf("insecure %v: %v", insecure, err)
		}
	}
}

// Images that come without a system have that of their config; two of the same are one too many.
func TestSystemsOfTheConfig(t *testing.T) {
	host, _ := strictRegistry(t)
	images := []Image{
		{Name: "api", Tag: "v1-amd64", ImageTag: "v1", Path: archive(t, "amd64", layer(t, 1, 100))},
		{Name: "api", Tag: "v1-arm64", ImageTag: "v1", Path: archive(t, "arm64", layer(t, 1, 100))},
	}
	pushed, err := Images(t.Context(), images, Options{Client: client(&wire{}), Registry: host})
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, pushed)
	if p := pushed[0]; !cmp.Equal(p.Systems, []string{"x86_64-linux", "aarch64-linux"}) || len(p.Tags) != 2 || p.Layers.Uploaded+p.Layers.Reused != 2 {
		t.Errorf("pushed %+v", p)
	}
	images[1].Path = images[0].Path
	if _, err := Images(t.Context(), images, Options{Client: client(&wire{}), Registry: host}); !errors.As(err, new(*NameError)) {
		t.Errorf("twice for one system: %v", err)
	}
}

// Annotations are on the manifest, not in the config; an image that is there is written anew for those it lacks.
func TestAnnotations(t *testing.T) {
	host, _ := strictRegistry(t)
	images := []Image{{Name: "api", Tag: nixHash(1), Path: archive(t, "amd64", layer(t, 1, 1000))}}
	push := func(annotations map[string]string) (handoff.PushedImage, v1.Image) {
		t.Helper()
		pushed, err := Images(t.Context(), images, Options{Client: client(&wire{}), Registry: host, Annotations: annotations})
		if err != nil {
			t.Fatal(err)
		}
		checkPulled(t, pushed)
		ref, _ := name.NewDigest(pushed[0].Repository + "@" + pushed[0].Digest)
		img, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		return pushed[0], img
	}
	plain, before := push(nil)
	wanted := map[string]string{"org.opencontainers.image.source": "https://git.example.org/team/shop"}
	annotated, after := push(wanted)
	m, err := after.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wanted, m.Annotations); diff != "" || annotated.Digest == plain.Digest || annotated.Layers.Reused != 1 {
		t.Errorf("annotated: %+v, annotations (-want +got):\n%s", annotated, diff)
	}
	a, _ := before.ConfigName()
	if b, _ := after.ConfigName(); a != b {
		t.Errorf("the config was %s, is %s", a, b)
	}
	for _, same := range []map[string]string{wanted, nil} {
		if again, _ := push(same); again.State != handoff.PushUnchanged || again.Digest != annotated.Digest {
			t.Errorf("with %v again: %+v", same, again)
		}
	}
}

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/nix"
)

// A layer that a cache's image describes, and that is of another build here, is named with its store path and both digests. One
// that was described here is not read.
func TestLayersOfAnotherBuild(t *testing.T) {
	store := handoff.Store{Dir: "/nix/store", Root: t.TempDir()}
	path := func(name string) string { return "/nix/store/" + strings.Repeat("0", 32) + "-" + name }
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(store.Root+path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(store.Root+path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(path("data")+"/file", "content")
	digest := "sha256:" + strings.Repeat("ab", 32)
	describe := func() {
		write(path("image.json"), fmt.Sprintf(`{"version":1,"arch":"amd64","layers":[{"digest":%q,"diff_ids":%q,"size":2048,"mediatype":"application/vnd.oci.image.layer.v1.tar","paths":[{"path":%q}]}]}`, digest, digest, path("data")))
	}
	check := func(family handoff.Family, name string, fetched bool) (good []string, failure *handoff.Failure) {
		var mu sync.Mutex
		c := newChecks(store, func(out string) {
			mu.Lock()
			defer mu.Unlock()
			good = append(good, out)
		})
		built := []nix.Built{{Target: nix.Target{Image: nix.Image{Name: "app", Family: family, DrvPath: path("app.drv"), OutPath: path(name)}}, State: handoff.BuildBuilt}}
		c.begin(built[0].Target, fetched)
		c.settle(built)
		return good, built[0].Failure
	}
	describe()
	if good, failure := check(handoff.Nix2Container, "image.json", false); len(good) != 1 || failure != nil {
		t.Errorf("described here: %q, %v", good, failure)
	}
	good, failure := check(handoff.Nix2Container, "image.json", true)
	if len(good) != 0 || failure == nil || failure.Kind != handoff.FailureImage {
		t.Fatalf("described elsewhere: %q, %v", good, failure)
	}
	m := regexp.MustCompile(`^layer ` + path("data") + ` is not reproducible: its store paths here give (sha256:[0-9a-f]{64}), .* says ` + digest + `$`).FindStringSubmatch(failure.Reason)
	if m == nil {
		t.Fatalf("the reason is %q", failure.Reason)
	}
	digest = m[1]
	describe()
	if good, failure := check(handoff.Nix2Container, "image.json", true); len(good) != 1 || failure != nil {
		t.Errorf("described elsewhere, and the same: %q, %v", good, failure)
	}

	write(path("text"), "no image at all\n")
	if good, failure := check(handoff.DockerArchive, "text", false); len(good) != 0 || failure == nil || !strings.Contains(failure.Reason, "is no container image") {
		t.Errorf("a text: %q, %v", good, failure)
	}
	write(path("script"), "#!/bin/sh\nexec somebody-elses-tool\n")
	if good, failure := check(handoff.Stream, "script", false); len(good) != 1 || failure != nil {
		t.Errorf("a script of somebody's own: %q, %v", good, failure)
	}
}

// BenchmarkLayer is what reading a fetched layer costs: its tar is written anew and digested.
func BenchmarkLayer(b *testing.B) {
	store := handoff.Store{Dir: "/nix/store", Root: b.TempDir()}
	path := "/nix/store/" + strings.Repeat("0", 32) + "-data"
	if err := os.MkdirAll(store.Root+path, 0o755); err != nil {
		b.Fatal(err)
	}
	const size = 64 << 20
	if err := os.WriteFile(store.Root+path+"/file", make([]byte, size), 0o644); err != nil {
		b.Fatal(err)
	}
	open := func(digest string) *image.Layer {
		text := fmt.Sprintf(`{"version":1,"arch":"amd64","layers":[{"digest":%q,"diff_ids":%q,"size":1,"mediatype":"application/vnd.oci.image.layer.v1.tar","paths":[{"path":%q}]}]}`, digest, digest, path)
		if err := os.WriteFile(store.Root+path+".json", []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
		img, err := image.Open(store.Root+path+".json", image.Options{Store: store})
		if err != nil {
			b.Fatal(err)
		}
		return img.Layers[0]
	}
	var other *image.DigestError
	if err := open("sha256:" + strings.Repeat("ab", 32)).WriteTar(io.Discard); !errors.As(err, &other) {
		b.Fatal(err)
	}
	b.SetBytes(size)
	for b.Loop() {
		if err := compare(open(other.Got.String())); err != nil {
			b.Fatal(err)
		}
	}
}

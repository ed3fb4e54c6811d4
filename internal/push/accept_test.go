package push

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

// What other tools make of a push: crane's validation, skopeo's copy and umoci's unpacking accept images of every family, and the
// entrypoint of what was pulled runs.
func TestOtherToolsAcceptEveryFamily(t *testing.T) {
	host := distribution.Start(t).Host
	work := t.TempDir()
	root := t.TempDir()
	store := handoff.Store{Dir: "/nix/store", Root: root}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("a static busybox (Debian: apt-get install busybox-static): %v", err)
	}
	lib := storePath("l", "lib")
	storeFile(t, root, lib+"/f", noise(1, 1000))
	if err := os.Chmod(root+storeFile(t, root, lib+"/bin/busybox", busybox), 0o555); err != nil {
		t.Fatal(err)
	}
	plain := archiveOf(t, map[string]any{"architecture": runtime.GOARCH, "config": map[string]any{"Entrypoint": greeting("")}},
		tarOf(t, map[string][]byte{"bin/busybox": busybox}, "bin/busybox"), layer(t, 2, 1000))
	layout := filepath.Join(work, "layout")
	tool(t, work, "skopeo", "--insecure-policy", "copy", "--quiet", "docker-archive:"+plain, "oci:"+layout+":v1")
	tool(t, work, "skopeo", "--insecure-policy", "copy", "--quiet", "docker-archive:"+plain, "oci-archive:"+filepath.Join(work, "layout.tar")+":v1")
	script := filepath.Join(work, "stream")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec cat "+plain+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for family, i := range map[string]Image{
		"archive":     {Path: plain},
		"stream":      {Path: stream(t, root, "s", []string{lib}), Store: store},
		"n2c":         {Path: nix2container(t, root, store, lib), Store: store},
		"layout":      {Path: layout},
		"layout-tar":  {Path: filepath.Join(work, "layout.tar")},
		"exec-stream": {Path: script},
	} {
		for _, compression := range []Compression{Gzip, None} {
			t.Run(fmt.Sprint(family, ", ", compression), func(t *testing.T) {
				i := i
				i.Name, i.Tag = family+"-"+string(compression), nixHash(1)
				o := Options{Client: client(&wire{}), Registry: host, Compression: compression, Exec: family == "exec-stream", Temp: t.TempDir()}
				pushed, err := Images(t.Context(), []Image{i}, o)
				if err != nil {
					t.Fatal(err)
				}
				if compression == Gzip { // crane validates nothing else
					checkPulled(t, pushed)
				}
				pulled, bundle := filepath.Join(t.TempDir(), "pulled"), filepath.Join(t.TempDir(), "bundle")
				tool(t, work, "skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "docker://"+pushed[0].Repository+"@"+pushed[0].Digest, "oci:"+pulled+":v1")
				tool(t, work, "umoci", "unpack", "--rootless", "--image", pulled+":v1", bundle)
				if out := runBundle(t, bundle); out != "it runs\n" {
					t.Errorf("its entrypoint prints %q", out)
				}
			})
		}
	}

	// Layers that were compressed already are sent as they are.
	ref, err := name.NewTag(host + "/layout-gzip:" + nixHash(1))
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
	for _, d := range m.Layers {
		if _, err := os.Stat(filepath.Join(layout, "blobs/sha256", d.Digest.Hex)); err != nil {
			t.Errorf("layer %s is not the layout's: %v", v1.Hash(d.Digest), err)
		}
	}
}

// nix2container writes the JSON of an image of one layer, of one store path, and returns its path. The layer's digest is what writing
// it against a wrong one says.
func nix2container(t *testing.T, root string, store handoff.Store, path string) string {
	t.Helper()
	describe := func(digest string, size int) string {
		text, err := json.Marshal(map[string]any{"version": 1, "arch": runtime.GOARCH, "image-config": map[string]any{"Entrypoint": greeting(path)},
			"layers": []map[string]any{{"digest": digest, "diff_ids": digest, "size": size, "paths": []map[string]any{{"path": path}}, "mediatype": types.OCIUncompressedLayer}}})
		if err != nil {
			t.Fatal(err)
		}
		return root + storeFile(t, root, storePath("j", "image.json"), text)
	}
	img, err := image.Open(describe("sha256:"+strings.Repeat("0", 64), 0), image.Options{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	var tar bytes.Buffer
	wrong := new(image.DigestError)
	if err := img.Layers[0].WriteTar(&tar); !errors.As(err, &wrong) {
		t.Fatalf("WriteTar = %v", err)
	}
	return describe(wrong.Got.String(), tar.Len())
}

// runBundle runs what a bundle's config says to run, in its root folder, and returns what it prints.
func runBundle(t *testing.T, bundle string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct{ Process struct{ Args []string } }
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--user", "--map-root-user", "/usr/sbin/chroot", filepath.Join(bundle, "rootfs")}, config.Process.Args...)
	out, err := exec.Command("unshare", args...).CombinedOutput()
	if err != nil {
		t.Errorf("run %v: %v", config.Process.Args, err)
	}
	return string(out)
}

// tool runs a program with a home of the test's own.
func tool(t *testing.T, home, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_RUNTIME_DIR="+home, "TMPDIR="+home)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

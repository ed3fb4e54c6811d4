package push

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

// What other tools make of a push: crane's validation, skopeo's copy and umoci's unpacking accept images of every family.
func TestOtherToolsAcceptEveryFamily(t *testing.T) {
	host := distribution.Start(t).Host
	work := t.TempDir()
	root := t.TempDir()
	store := handoff.Store{Dir: "/nix/store", Root: root}
	lib := storePath("l", "lib")
	storeFile(t, root, lib+"/f", noise(1, 1000))
	plain := archive(t, "amd64", layer(t, 1, 1000), layer(t, 2, 1000))
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
				file := "/f"
				if family == "stream" {
					file = lib + "/f"
				}
				if _, err := os.Stat(filepath.Join(bundle, "rootfs", file)); err != nil {
					t.Error(err)
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

// tool runs a program with a home of the test's own.
func tool(t *testing.T, home, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_RUNTIME_DIR="+home, "TMPDIR="+home)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

// The monorepo of tests and demo, built by the real Nix.
func TestMonorepo(t *testing.T) {
	nix, repo := monorepo(t)
	t.Run("images", func(t *testing.T) { imagesAreReadAlike(t, nix, repo) })
	t.Run("stream", func(t *testing.T) { streamIsTheSameInsideAndOutside(t, nix, repo) })
	t.Run("change", func(t *testing.T) { changeStaysInItsService(t, nix, repo) })
}

// What push-images reads of the images is compared with what this tool, which shares no code with it, says they are.
func imagesAreReadAlike(t *testing.T, nix *nixstore.Store, repo string) {
	families := map[string]handoff.Family{
		"agent": handoff.DockerArchive, "migrate": handoff.DockerArchive, "report": handoff.DockerArchive, "web": handoff.DockerArchive,
		"api": handoff.Stream, "queue": handoff.Nix2Container, "worker": handoff.Nix2Container,
	}
	args := []string{"build", "--no-link"}
	for name := range families {
		args = append(args, repo+"#"+name)
	}
	nix.Nix(t, args...)
	s := store{root: nix.Root}
	holders := map[string][]string{} // images by layer
	for name, family := range families {
		t.Run(name, func(t *testing.T) {
			out := nix.Nix(t, "eval", "--raw", repo+"#"+name)
			img, err := image.Open(s.physical(out), image.Options{Store: handoff.Store{Dir: storeDir, Root: nix.Root}, Temp: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			if img.Family != family {
				t.Errorf("family is %s, want %s", img.Family, family)
			}
			var diffIDs []v1.Hash
			for _, layer := range img.Layers {
				if err := layer.WriteTar(io.Discard); err != nil && !errors.Is(err, image.ErrAgain) {
					t.Fatal(err)
				}
				diffIDs = append(diffIDs, layer.DiffID)
				holders[layer.DiffID.String()] = append(holders[layer.DiffID.String()], name)
			}
			config, err := img.Config(diffIDs)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := fmt.Sprintf("%x", sha256.Sum256(config)), s.configOf(t, out, img.Family); want != "" && got != want {
				t.Errorf("image ID is %s, want %s\n%s", got, want, config)
			}
		})
	}
	shared := 0
	for _, names := range holders {
		if len(names) > 1 {
			shared++
		}
	}
	if shared < 4 {
		t.Errorf("%d layers belong to several images, want one of the base image, two of the streams and two of nix2container: %v", shared, holders)
	}
}

// configOf is the image ID by this tool's own reading; nothing for nix2container, whose layers WriteTar has checked.
func (s store) configOf(t *testing.T, out string, family handoff.Family) string {
	t.Helper()
	switch family {
	case handoff.DockerArchive:
		a, err := s.openArchive(out)
		if err != nil {
			t.Fatal(err)
		}
		return a.configID
	case handoff.Stream:
		script := string(read(t, s.physical(out)))
		_, conf, _ := strings.Cut(script, "-stream\"")
		var b bytes.Buffer
		if err := s.stream(&b, read(t, s.physical(strings.Fields(conf)[0])), ""); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.root, "archive"), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := s.openArchive("/archive")
		if err != nil {
			t.Fatal(err)
		}
		return a.configID
	}
	return ""
}

// The script prints in the builder, where web.tar.gz is made of it, what the tool prints outside of the store.
func streamIsTheSameInsideAndOutside(t *testing.T, nix *nixstore.Store, repo string) {
	out := nix.Nix(t, "eval", "--raw", repo+"#web")
	nix.Nix(t, "build", "--no-link", repo+"#web")
	stream := nix.Nix(t, "eval", "--raw", repo+"#web.stream")
	s := store{root: nix.Root}
	f, err := os.Open(s.physical(out))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain, err := decompress(f)
	if err != nil {
		t.Fatal(err)
	}
	inside, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	_, conf, _ := strings.Cut(string(read(t, s.physical(stream))), "-stream\"")
	var outside bytes.Buffer
	if err := run([]string{"imagetool", "stream", strings.Fields(conf)[0], "--root", nix.Root}, nil, &outside); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(inside, outside.Bytes()) {
		t.Errorf("the script printed %d bytes in the builder and other %d outside", len(inside), outside.Len())
	}
}

// A change in one service's folder makes that service's image anew and no other.
func changeStaysInItsService(t *testing.T, nix *nixstore.Store, repo string) {
	derivations := func() (drvs map[string]map[string]string) { // by system, then name
		t.Helper()
		text := nix.Nix(t, "eval", "--json", repo+"#packages", "--apply", "builtins.mapAttrs (_: builtins.mapAttrs (_: d: d.drvPath))")
		if err := json.Unmarshal([]byte(text), &drvs); err != nil {
			t.Fatal(err)
		}
		return drvs
	}
	before := derivations()
	page := filepath.Join(repo, "services", "web", "www", "index.html")
	if err := os.WriteFile(page, append(read(t, page), "<!-- changed -->\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	nixstore.Commit(t, repo)
	for system, drvs := range derivations() {
		var changed []string
		for name, drv := range drvs {
			if drv != before[system][name] {
				changed = append(changed, name)
			}
		}
		slices.Sort(changed)
		if d := cmp.Diff([]string{"default", "web"}, changed); d != "" {
			t.Errorf("%s: images changed with services/web, -want +got\n%s", system, d)
		}
	}
}

// monorepo commits the monorepo, with its tools, to a repository of its own, beside a new Nix store.
func monorepo(t *testing.T) (*nixstore.Store, string) {
	t.Helper()
	repo := filepath.Join(t.TempDir(), "shop")
	if err := os.CopyFS(repo, os.DirFS(filepath.Join("..", "..", "..", "e2e", "testdata", "monorepo"))); err != nil {
		t.Fatal(err)
	}
	tools := filepath.Join(repo, "tools")
	if err := os.Mkdir(tools, 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(tools, "imagetool"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("the monorepo is built with a static busybox: install Debian's busybox-static: %v", err)
	}
	if err := os.WriteFile(filepath.Join(tools, "busybox"), read(t, busybox), 0o755); err != nil {
		t.Fatal(err)
	}
	nixstore.Commit(t, repo)
	return nixstore.New(t), repo
}

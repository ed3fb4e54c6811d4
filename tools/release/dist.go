package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// toolchain builds every release. The go command fetches it when another one is installed.
const toolchain = "go1.26.8"

var (
	tools     = []string{"nix-cache-check", "nix-build-images", "push-images", "deploy-manifests"}
	platforms = []string{"linux-amd64", "linux-arm64", "darwin-arm64"}
)

// A release is what decides the bytes of its binaries; the folder it is built in does not.
type release struct {
	source  string // folder with the source
	version string // v0.1.0
	commit  string // of the source
}

// dist builds the binaries into out/<os>-<arch>/ and writes out/SHA256SUMS. What was in out before is gone.
func dist(ctx context.Context, r release, out string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2) // the go command itself uses all cores
	for _, platform := range platforms {
		for _, tool := range tools {
			group.Go(func() error { return r.build(ctx, tool, platform, filepath.Join(out, platform, tool)) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	sums, err := checksums(os.DirFS(out))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "SHA256SUMS"), []byte(sums), 0o644); err != nil {
		return err
	}
	if err := sign(filepath.Join(out, "SHA256SUMS")); err != nil {
		return err
	}
	fmt.Printf("%s of %.12s: %d binaries in %s\n", r.version, r.commit, len(platforms)*len(tools), out)
	return nil
}

func (r release) build(ctx context.Context, tool, platform, out string) error {
	goos, goarch, _ := strings.Cut(platform, "-")
	const action = "github.com/flakeship/flakeship/internal/action."
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X "+action+"Version="+r.version+" -X "+action+"Commit="+r.commit, "-o", out, "./cmd/"+tool)
	cmd.Dir = r.source
	// All that the environment could add to the bytes is said here.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=-mod=readonly", "GOEXPERIMENT=", "GODEBUG=", "GOWORK=off", "GOTOOLCHAIN="+toolchain)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s for %s: %w\n%s", tool, platform, err, text)
	}
	return nil
}

// checksums gives the lines of SHA256SUMS, as sha256sum writes and checks them, for all files but SHA256SUMS and its signature.
func checksums(dir fs.FS) (string, error) {
	var lines []string
	err := fs.WalkDir(dir, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasPrefix(path, "SHA256SUMS") {
			return err
		}
		file, err := dir.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		hash := sha256.New()
		if _, err := io.Copy(hash, file); err != nil {
			return err
		}
		lines = append(lines, hex.EncodeToString(hash.Sum(nil))+"  "+path+"\n")
		return nil
	})
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[66:], b[66:]) })
	return strings.Join(lines, ""), err
}

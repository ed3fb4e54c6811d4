// Package distribution runs the distribution registry for tests: a registry that keeps blobs by repository, mounts them, and
// refuses manifests that name what it has not. It is the installed one, of version 2.8, or the one of the program that
// Program names: e2e's services, which have version 3.
package distribution

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Program is the environment variable with the path of e2e's services program, whose registry is run instead of the installed one.
const Program = "FLAKESHIP_TEST_REGISTRY"

// Registry is a running registry.
type Registry struct {
	Host string // with port, on loopback
	Root string // where it keeps its files
}

// Start runs a registry until the test ends.
func Start(t testing.TB) Registry {
	t.Helper()
	r, stop, err := Run(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return r
}

// Run runs a registry that keeps its files in dir, until stop is called.
func Run(dir string) (r Registry, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return r, nil, err
	}
	r = Registry{Host: listener.Addr().String(), Root: filepath.Join(dir, "registry")}
	listener.Close()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %q}\n", r.Root, r.Host)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return r, nil, err
	}
	cmd := exec.Command("docker-registry", "serve", config)
	if program := os.Getenv(Program); program != "" {
		cmd = exec.Command(program, "registry", "--dir", r.Root, "--listen", r.Host, "--access-log", os.DevNull, "--address-file", filepath.Join(dir, "address"))
	}
	if err := cmd.Start(); err != nil {
		return r, nil, fmt.Errorf("docker-registry (Debian: apt-get install docker-registry): %w", err)
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	for range 400 {
		if resp, err := http.Get("http://" + r.Host + "/v2/"); err == nil {
			resp.Body.Close()
			return r, stop, nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	stop()
	return r, nil, errors.New("docker-registry does not answer")
}

// Check reads the registry's files and fails the test when a manifest names a blob that its repository has not. It returns
// the number of manifests.
func (r Registry) Check(t testing.TB) (manifests int) {
	t.Helper()
	root := filepath.Join(r.Root, "docker/registry/v2")
	blob := func(digest string) string {
		hex := strings.TrimPrefix(digest, "sha256:")
		return filepath.Join(root, "blobs/sha256", hex[:2], hex, "data")
	}
	err := filepath.WalkDir(filepath.Join(root, "repositories"), func(path string, d fs.DirEntry, err error) error {
		repository, digest, ok := strings.Cut(path, "/_manifests/revisions/sha256/")
		digest, isLink := strings.CutSuffix(digest, "/link")
		if err != nil || !ok || !isLink {
			return err
		}
		text, err := os.ReadFile(blob(digest))
		if err != nil {
			return err
		}
		var m struct {
			Config    struct{ Digest string }
			Layers    []struct{ Digest string }
			Manifests []struct{ Digest string }
		}
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		manifests++
		for _, child := range m.Manifests {
			if _, err := os.Stat(filepath.Join(repository, "_manifests/revisions/sha256", strings.TrimPrefix(child.Digest, "sha256:"), "link")); err != nil {
				t.Errorf("index %s of %s names a manifest that is not there: %v", digest, filepath.Base(repository), err)
			}
		}
		if m.Config.Digest != "" {
			m.Layers = append(m.Layers, m.Config)
		}
		for _, l := range m.Layers {
			link := filepath.Join(repository, "_layers/sha256", strings.TrimPrefix(l.Digest, "sha256:"), "link")
			for _, file := range []string{link, blob(l.Digest)} {
				if _, err := os.Stat(file); err != nil {
					t.Errorf("manifest %s of %s names a blob that is not there: %v", digest, filepath.Base(repository), err)
				}
			}
		}
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return manifests
}

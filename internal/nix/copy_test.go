package nix

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

// signingKey is a new secret key and the public key that belongs to it.
func signingKey(t *testing.T, store *nixstore.Store) (string, narinfo.PublicKey) {
	t.Helper()
	dir := t.TempDir()
	secret, public := filepath.Join(dir, "secret"), filepath.Join(dir, "public")
	store.Command(t, "nix-store", "--generate-binary-cache-key", "test-1", secret, public)
	key, err := narinfo.ParsePublicKey(strings.TrimSpace(string(readFile(t, public))))
	if err != nil {
		t.Fatal(err)
	}
	return string(readFile(t, secret)), key
}

// builtWithDependency is a store with one image that refers to another path.
func builtWithDependency(t *testing.T) (*Nix, *nixstore.Store, []string) {
	t.Helper()
	n, store := open(t)
	dir := flake(t, store, map[string]string{"api": `image "api" "echo $dep > $out" { dep = mk "dep" "echo dep > $out" {}; }`})
	flake, targets := plan(t, n, dir)
	if _, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake}); err != nil {
		t.Fatal(err)
	}
	closure := strings.Fields(store.Command(t, "nix-store", "--query", "--requisites", targets[0].OutPath))
	if len(closure) != 2 {
		t.Fatalf("closure is %q, want two paths", closure)
	}
	return n, store, closure
}

// What is copied is signed, also what was there before without signature.
func TestCopyToStore(t *testing.T) {
	n, store, closure := builtWithDependency(t)
	secret, key := signingKey(t, store)
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	other := nixstore.New(t)
	to := "local?root=" + other.Root
	if err := n.CopyToStore(t.Context(), to, closure[:1], CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.CopyToStore(t.Context(), to, closure[1:], CopyOptions{SecretKey: secret}); err != nil {
			t.Fatal(err)
		}
		var roots []storepath.Path
		for _, path := range closure[1:] {
			p, err := storepath.DefaultDir.Parse(path)
			if err != nil {
				t.Fatal(err)
			}
			roots = append(roots, p)
		}
		infos, err := n.PathInfo(t.Context(), to, roots, true)
		if err != nil || len(infos) != 2 {
			t.Fatalf("PathInfo = %v, %v", infos, err)
		}
		for _, info := range infos {
			if by, err := info.Trust(storepath.DefaultDir, []narinfo.PublicKey{key}); err != nil || by != key.Name {
				t.Errorf("%s is signed by %q: %v", info.StorePath, by, err)
			}
		}
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := n.CopyToStore(t.Context(), "nonsense://x", closure, CopyOptions{}); !errors.As(err, new(*RemoteError)) {
		t.Errorf("copy to a store of no known kind = %v", err)
	}
}

// The key is nowhere while nix runs: not in its arguments, not in its environment, not in a file of the temporary folder.
func TestCopyHidesItsSecrets(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	script := filepath.Join(t.TempDir(), "nix")
	text := `#!/bin/sh
{ echo "$@"; env; find "$TMPDIR" -type f -exec cat {} +; } >> ` + filepath.Dir(script) + `/seen
case "$*" in *sign*) cat /dev/fd/3 > ` + filepath.Dir(script) + `/key ;; esac
`
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	n := &Nix{path: script, env: os.Environ(), log: &syncWriter{}}
	if err := n.CopyToStore(t.Context(), "ssh-ng://host", []string{"/nix/store/x"}, CopyOptions{SecretKey: "k:c2VjcmV0"}); err != nil {
		t.Fatal(err)
	}
	seen := string(readFile(t, filepath.Join(filepath.Dir(script), "seen")))
	if strings.Contains(seen, "c2VjcmV0") || !strings.Contains(seen, "BatchMode=yes") {
		t.Errorf("seen: %s", seen)
	}
	if got := string(readFile(t, filepath.Join(filepath.Dir(script), "key"))); got != "k:c2VjcmV0" {
		t.Errorf("key file has %q", got)
	}
}

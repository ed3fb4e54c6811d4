package nix

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
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

// signedBy says whether a cache in a folder has the narinfo of a path, signed by key.
func signedBy(t *testing.T, dir, path string, key narinfo.PublicKey) bool {
	t.Helper()
	hash := filepath.Base(path)[:32]
	text, err := os.ReadFile(filepath.Join(dir, hash+".narinfo"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := narinfo.Parse(string(text), storepath.DefaultDir)
	if err != nil {
		t.Fatal(err)
	}
	by, err := info.Trust(storepath.DefaultDir, []narinfo.PublicKey{key})
	return err == nil && by == key.Name
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

func TestCopySignsTheClosure(t *testing.T) {
	n, store, closure := builtWithDependency(t)
	secret, key := signingKey(t, store)
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	n.env = append(n.env, "RUNNER_TEMP="+temp)

	server, err := binarycache.Start(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	folder := filepath.Join(t.TempDir(), "folder")
	for dir, url := range map[string]string{server.Dir: server.URL, folder: "file://" + folder} {
		if err := n.Copy(t.Context(), closure[1:], CopyOptions{To: url, SecretKey: secret}); err != nil {
			t.Fatal(err)
		}
		for _, path := range closure {
			if !signedBy(t, dir, path, key) {
				t.Errorf("%s in %s is not signed by %s", path, url, key.Name)
			}
		}
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	// Emptied behind Nix's back, the cache gets everything again.
	if err := os.RemoveAll(server.Dir); err != nil {
		t.Fatal(err)
	}
	if err := n.Copy(t.Context(), closure[1:], CopyOptions{To: server.URL, SecretKey: secret}); err != nil {
		t.Fatal(err)
	}
	if !signedBy(t, server.Dir, closure[0], key) {
		t.Error("the second copy is not signed")
	}
}

// The key is nowhere while nix runs: not in its arguments, not in its environment, not in a file of the temporary folder.
func TestCopyHidesItsSecrets(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	script := filepath.Join(t.TempDir(), "nix")
	text := `#!/bin/sh
{ echo "$@"; env; find "$TMPDIR" -type f -exec cat {} +; } > ` + filepath.Dir(script) + `/seen
cat /dev/fd/3 > ` + filepath.Dir(script) + `/key
cat /dev/fd/4 /dev/fd/4 > ` + filepath.Dir(script) + `/netrc
`
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(old, []byte("machine old login o password p\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := &Nix{path: script, env: os.Environ(), log: &syncWriter{}, Settings: Settings{NetrcFile: old}}
	err := n.Copy(t.Context(), []string{"/nix/store/x"}, CopyOptions{To: "https://ci:s3cret%20word@cache.example:8443/a?priority=3", SecretKey: "k:c2VjcmV0"})
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string { return string(readFile(t, filepath.Join(filepath.Dir(script), name))) }
	for _, secret := range []string{"c2VjcmV0", "s3cret"} {
		if strings.Contains(read("seen"), secret) {
			t.Errorf("%q can be seen: %s", secret, read("seen"))
		}
	}
	if got := read("key"); got != "k:c2VjcmV0" {
		t.Errorf("key file has %q", got)
	}
	want := "machine cache.example login ci password \"s3cret word\"\nmachine old login o password p\n"
	if got := read("netrc"); got != want+want {
		t.Errorf("netrc has %q, want %q twice", got, want)
	}
	if got, want := read("seen"), "--to https://cache.example:8443/a?compression=zstd&priority=3&secret-key=/dev/fd/3 "; !strings.Contains(got, want) {
		t.Errorf("arguments are %q, want %q among them", firstLine(got), want)
	}
}

func TestCopyWithCredentials(t *testing.T) {
	n, store, closure := builtWithDependency(t)
	secret, key := signingKey(t, store)
	server, err := binarycache.Start(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	server.User, server.Password = "ci", `pass"word`
	withUser := strings.Replace(server.URL, "//", "//ci:pass%22word@", 1)
	if err := n.Copy(t.Context(), closure[1:], CopyOptions{To: withUser, SecretKey: secret}); err != nil {
		t.Fatal(err)
	}
	if !signedBy(t, server.Dir, closure[1], key) {
		t.Error("the copy is not signed")
	}
}

func TestCopyRefused(t *testing.T) {
	n, _, closure := builtWithDependency(t)
	server, err := binarycache.Start(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		for _, methods := range [][]string{nil, {http.MethodPut}} {
			t.Run(fmt.Sprint(status, methods), func(t *testing.T) {
				server.Fail(&binarycache.Fault{Status: status, Methods: methods})
				err := n.Copy(t.Context(), closure, CopyOptions{To: strings.Replace(server.URL, "//", "//user:hidden@", 1)})
				var c *CopyError
				if !errors.As(err, &c) || strings.Contains(err.Error(), "hidden") {
					t.Fatalf("Copy = %v, want a CopyError without password", err)
				}
				if methods != nil && !c.Denied {
					t.Errorf("%v is not taken for a refusal", err)
				}
			})
		}
	}
	server.Fail(&binarycache.Fault{Status: http.StatusNotFound, Match: regexp.MustCompile("narinfo")})
	server.Close()
	var c *CopyError
	if err := n.Copy(t.Context(), closure, CopyOptions{To: server.URL}); !errors.As(err, &c) || c.Denied {
		t.Errorf("Copy to a cache that is down = %v", err)
	}
}

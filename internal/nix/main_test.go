package nix

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

// open is the installed Nix on a new private store.
func open(t *testing.T, settings ...string) (*Nix, *nixstore.Store) {
	t.Helper()
	store := nixstore.New(t, settings...)
	return openStore(t, store), store
}

func openStore(t *testing.T, store *nixstore.Store) *Nix {
	t.Helper()
	n, err := Open(t.Context(), Options{Env: store.Env, Dir: store.Dir})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// flake is a committed flake with these packages in a folder beside the store.
func flake(t *testing.T, store *nixstore.Store, packages map[string]string) string {
	t.Helper()
	return nixstore.Flake(t, filepath.Join(store.Dir, "flake"), packages)
}

// writeFlake is flake for a text that is no usual one.
func writeFlake(t *testing.T, store *nixstore.Store, text string) string {
	t.Helper()
	dir := filepath.Join(store.Dir, "flake")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	nixstore.Commit(t, dir)
	return dir
}

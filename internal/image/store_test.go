package image

import (
	"os"
	"testing"

	"github.com/flakeship/flakeship/internal/handoff"
)

func TestStoreOf(t *testing.T) {
	for file, root := range map[string]string{
		"/nix/store/a-image":           "",
		"/tmp/root/nix/store/a-image":  "/tmp/root",
		"/tmp/r/nix/store/a/layer.tar": "/tmp/r",
		"/elsewhere/image.tar":         "",
	} {
		if got, want := StoreOf(file), (handoff.Store{Dir: "/nix/store", Root: root}); got != want {
			t.Errorf("StoreOf(%q) = %+v, want %+v", file, got, want)
		}
	}
}

// Links in a chroot store point to where its root will be. No path, and no link, leads out of the store.
func TestPhysicalPaths(t *testing.T) {
	root := t.TempDir()
	s := handoff.Store{Dir: "/nix/store", Root: root}
	put(t, s, "/nix/store/a-dir/blob", "", 0o444)
	for name, target := range map[string]string{
		"abs": "/nix/store/a-dir/blob", "rel": "a-dir/blob", "dir": "a-dir", "twice": "abs", "up": "../store/a-dir",
		"out": "/etc/passwd", "up-out": "../../etc", "circle": "circle", "dangling": "none",
	} {
		if err := os.Symlink(target, root+"/nix/store/"+name); err != nil {
			t.Fatal(err)
		}
	}
	for p, want := range map[string]string{
		"/nix/store/a-dir/blob": "/nix/store/a-dir/blob",
		"/nix/store/abs":        "/nix/store/a-dir/blob",
		"/nix/store/rel":        "/nix/store/a-dir/blob",
		"/nix/store/twice":      "/nix/store/a-dir/blob",
		"/nix/store/dir/blob":   "/nix/store/a-dir/blob",
		"/nix/store/up/blob":    "/nix/store/a-dir/blob",
	} {
		if got, err := physical(s, p); err != nil || got != root+want {
			t.Errorf("physical(%q) = %q, %v, want %q below the root", p, got, err, want)
		}
	}
	for _, p := range []string{
		"", "/etc/passwd", "/nix/store", "/nix/store/", "/nix/store/../../etc/passwd", "/nix/store/a-dir/../../etc", "nix/store/a-dir",
		"/nix/store/out", "/nix/store/up-out/passwd", "/nix/store/circle", "/nix/store/dangling", "/nix/store/a-dir/none",
	} {
		if got, err := physical(s, p); err == nil {
			t.Errorf("physical(%q) = %q, want an error", p, got)
		}
	}
}

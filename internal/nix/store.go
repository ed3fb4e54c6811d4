package nix

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// AddRoots makes garbage collector roots of store paths in a folder, which it makes as well. The paths stay as long as the
// folder does.
func (n *Nix) AddRoots(ctx context.Context, dir string, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	args := append([]string{"--realise", "--add-root", filepath.Join(dir, "image"), "--indirect"}, paths...)
	_, err := n.run(ctx, command{program: "nix-store", args: args})
	return err
}

// valid says which store paths Nix has.
func (n *Nix) valid(ctx context.Context, paths []string) (map[string]bool, error) {
	valid := map[string]bool{}
	if len(paths) == 0 {
		return valid, nil
	}
	text, err := n.run(ctx, command{program: "nix-store", args: append([]string{"--check-validity", "--print-invalid"}, paths...)})
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		valid[path] = true
	}
	for path := range strings.SplitSeq(string(text), "\n") {
		delete(valid, path)
	}
	return valid, nil
}

// built says whether a content-addressed target was built, and fills in its output path.
func (n *Nix) built(ctx context.Context, t *Built) bool {
	text, err := n.run(ctx, command{program: "nix-store", args: []string{"--realise", "--no-gc-warning",
		"--option", "max-jobs", "0", "--option", "builders", "", t.DrvPath}})
	if err != nil {
		return false
	}
	t.OutPath = firstLine(strings.TrimSpace(string(text)))
	return true
}

// requisites are the derivations that one depends on, and itself.
func (n *Nix) requisites(ctx context.Context, drv string) ([]string, error) {
	text, err := n.run(ctx, command{program: "nix-store", args: []string{"--query", "--requisites", drv}})
	return slices.DeleteFunc(strings.Fields(string(text)), func(path string) bool { return !strings.HasSuffix(path, ".drv") }), err
}

// appeared is when a store path came to its place on disk; zero when that is not known.
func (n *Nix) appeared(storePath string) time.Time {
	var st unix.Stat_t
	if unix.Lstat(n.Physical(storePath), &st) != nil {
		return time.Time{}
	}
	return time.Unix(st.Ctim.Unix()) // the file times that programs can set say 1970 there
}

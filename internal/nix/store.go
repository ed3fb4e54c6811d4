package nix

import (
	"context"
	"iter"
	"os"
	"path/filepath"
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
	for part := range n.parts(paths) {
		// Nix numbers the links of one call; calls have different names.
		link := filepath.Join(dir, filepath.Base(part[0]))
		_, err := n.run(ctx, command{program: "nix-store", args: append([]string{"--realise", "--no-gc-warning", "--add-root", link, "--indirect"}, part...)})
		if err != nil {
			return err
		}
	}
	return nil
}

// valid says which store paths Nix has.
func (n *Nix) valid(ctx context.Context, paths []string) (map[string]bool, error) {
	valid := map[string]bool{}
	if len(paths) == 0 {
		return valid, nil
	}
	for part := range n.parts(paths) {
		text, err := n.run(ctx, command{program: "nix-store", args: append([]string{"--check-validity", "--print-invalid"}, part...)})
		if err != nil {
			return nil, err
		}
		for _, path := range part {
			valid[path] = true
		}
		for path := range strings.SplitSeq(string(text), "\n") {
			delete(valid, path)
		}
	}
	return valid, nil
}

// parts cuts arguments into parts that fit a command line.
//
// Linux gives arguments and environment together a quarter of the stack limit, at least 128 KiB and at most 6 MiB: execve(2).
func (n *Nix) parts(args []string) iter.Seq[[]string] {
	room := int64(128 << 10)
	var stack unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_STACK, &stack) == nil {
		room = int64(max(128<<10, min(stack.Cur/4, 6<<20)))
	}
	room -= 32 << 10 // the other arguments, and what scripts around Nix add
	for _, kv := range n.env {
		room -= cost(kv)
	}
	return func(yield func([]string) bool) {
		for rest := args; len(rest) > 0; {
			size, end := cost(rest[0]), 1 // one at least
			for end < len(rest) && size+cost(rest[end]) <= room {
				size += cost(rest[end])
				end++
			}
			if !yield(rest[:end]) {
				return
			}
			rest = rest[end:]
		}
	}
}

// cost is what an argument takes: itself, a zero and a pointer.
func cost(arg string) int64 { return int64(len(arg)) + 1 + 8 }

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

// appeared is when a store path came to its place on disk; zero when that is not known.
func (n *Nix) appeared(storePath string) time.Time {
	var st unix.Stat_t
	if unix.Lstat(n.Physical(storePath), &st) != nil {
		return time.Time{}
	}
	return time.Unix(st.Ctim.Unix()) // the file times that programs can set say 1970 there
}

package image

import (
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/flakeship/flakeship/internal/handoff"
)

// StoreOf guesses the store a file belongs to: of /tmp/root/nix/store/…-api the root is /tmp/root. A file outside of any
// store gets the usual one.
func StoreOf(file string) handoff.Store {
	const dir = "/nix/store"
	if i := strings.LastIndex(file, dir+"/"); i >= 0 {
		return handoff.Store{Dir: dir, Root: file[:i]}
	}
	return handoff.Store{Dir: dir}
}

// physical returns where the store path p is on disk. Symbolic links are followed inside the store only: those of a chroot
// store point to where its root will be, and an image file must not name other files of this machine.
func physical(s handoff.Store, p string) (string, error) {
	logical := p
	for range 40 { // as many links as Linux follows
		if err := inStore(s, logical); err != nil {
			return "", fmt.Errorf("%s: %w", p, err)
		}
		next, linked, err := followFirst(s, logical)
		if err != nil {
			return "", err
		}
		if !linked {
			return s.Root + logical, nil
		}
		logical = next
	}
	return "", fmt.Errorf("%s: too many symbolic links", p)
}

// inStore refuses what is not a clean path below the store's folder.
func inStore(s handoff.Store, p string) error {
	if path.Clean(p) != p || !strings.HasPrefix(p, s.Dir+"/") {
		return fmt.Errorf("not a path in %s", s.Dir)
	}
	return nil
}

// followFirst replaces the first symbolic link in p, if there is one, by what it points to.
func followFirst(s handoff.Store, p string) (next string, linked bool, err error) {
	rest := strings.TrimPrefix(p, s.Dir+"/")
	done := s.Dir
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		done += "/" + part
		info, err := os.Lstat(s.Root + done)
		if err != nil {
			return "", false, err
		}
		if info.Mode()&os.ModeSymlink == 0 {
			continue
		}
		target, err := os.Readlink(s.Root + done)
		if err != nil {
			return "", false, err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(done), target)
		}
		return path.Join(target, rest), true, nil
	}
	return p, false, nil
}

// readSmall reads a file of at most limit bytes.
func readSmall(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d MiB", file, limit>>20)
	}
	return b, err
}

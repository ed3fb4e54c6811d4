package unnamed

import (
	"os"

	"golang.org/x/sys/unix"
)

// File opens a new file for reading and writing, mode 0600, on the file system of dir; empty: os.TempDir.
func File(dir string) (*os.File, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil {
		return removed(dir) // a file system that has no such files, such as some overlays
	}
	return f, nil
}

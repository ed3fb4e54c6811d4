package push

import (
	"os"

	"golang.org/x/sys/unix"
)

// unnamed opens a new file without a name in dir: whatever ends the process, nothing of it is left.
func unnamed(dir string) (*os.File, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil {
		return removed(dir) // a file system that has no such files, such as some overlays
	}
	return f, nil
}

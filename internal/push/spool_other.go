//go:build !linux

package push

import "os"

// unnamed opens a new file in dir that has no name any more.
func unnamed(dir string) (*os.File, error) { return removed(dir) }

package substituter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
)

// fileSource is a cache in a folder, as `nix copy --to file:///...` makes it.
type fileSource struct {
	folder string
	dir    storepath.Dir
}

func (s *fileSource) cacheInfo(context.Context) (string, error) { return s.read("nix-cache-info") }

func (s *fileSource) lookup(ctx context.Context, paths []storepath.Path, parallel int, answer func(int, found)) {
	each(ctx, len(paths), min(parallel, 8), answer, func(i int) found { // more readers do not make a disk faster
		name := paths[i].Hash() + ".narinfo"
		text, err := s.read(name)
		if err != nil {
			return found{err: err}
		}
		n, err := narinfo.Parse(text, s.dir)
		if err != nil {
			return found{err: &CorruptError{s.url(name), err}}
		}
		return found{info: n}
	})
}

func (s *fileSource) url(name string) string { return "file://" + s.folder + "/" + name }

// read reads a small file. Errors: errNotFound, *RequestError, *CorruptError.
func (s *fileSource) read(name string) (string, error) {
	f, err := os.Open(filepath.Join(s.folder, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", errNotFound
	}
	var b []byte
	if err == nil {
		defer f.Close()
		b, err = io.ReadAll(io.LimitReader(f, narinfo.MaxSize+1))
	}
	if err != nil {
		if wrapped := new(fs.PathError); errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return "", &RequestError{URL: s.url(name), Err: err}
	}
	if len(b) > narinfo.MaxSize {
		return "", &CorruptError{s.url(name), fmt.Errorf("longer than %d KiB", narinfo.MaxSize>>10)}
	}
	return string(b), nil
}

package substituter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
)

// files are the files of a binary cache, wherever they are. A name is relative to the cache, as the URL in a narinfo is.
//
// Errors: errNotFound, *DeniedError, *StatusError, *RequestError, *CorruptError, or the cause of ctx's end.
type files interface {
	url(name string) string
	// read returns a file of at most limit bytes; a longer one is corrupt.
	read(ctx context.Context, name string, limit int64) ([]byte, error)
	// open reads a file of any length.
	open(ctx context.Context, name string) (io.ReadCloser, error)
	// has says whether there is a file.
	has(ctx context.Context, name string) (bool, error)
	// put writes a file, whole or not at all.
	put(ctx context.Context, name string, b *body) error
}

// body is what is written: it can be read from its start as often as it takes.
type body struct {
	io.ReaderAt
	size int64
	kind string // media type
}

// fileSource is a cache that is made of files.
type fileSource struct {
	files
	dir storepath.Dir
}

func (s *fileSource) cacheInfo(ctx context.Context) (string, error) {
	text, err := s.read(ctx, "nix-cache-info", narinfo.MaxSize)
	return string(text), err
}

func (s *fileSource) lookup(ctx context.Context, paths []storepath.Path, parallel int, answer func(int, found)) {
	each(ctx, len(paths), parallel, answer, func(i int) found { return s.narInfo(ctx, paths[i]) })
}

func (s *fileSource) narInfo(ctx context.Context, p storepath.Path) found {
	name := p.Hash() + ".narinfo"
	text, err := s.read(ctx, name, narinfo.MaxSize)
	if err != nil {
		return found{err: err}
	}
	n, err := narinfo.Parse(string(text), s.dir)
	if err != nil {
		return found{err: &CorruptError{s.url(name), err}}
	}
	return found{info: n}
}

// each calls ask for 0 to n-1, from parallel goroutines, and answer with what it returns or, when ctx has ended, with its cause.
func each(ctx context.Context, n, parallel int, answer func(int, found), ask func(int) found) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, parallel) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if ctx.Err() != nil {
					answer(i, found{err: context.Cause(ctx)})
				} else {
					answer(i, ask(i))
				}
			}
		})
	}
	wg.Wait()
}

// tooLong is the error of a file that has more than limit bytes.
func tooLong(url string, limit int64) error {
	return &CorruptError{url, fmt.Errorf("longer than %d KiB", limit>>10)}
}

var errOutside = errors.New("it leads out of the cache")

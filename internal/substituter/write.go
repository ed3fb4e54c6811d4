package substituter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
)

// ErrNotFound means that a cache does not have a path.
var ErrNotFound = errNotFound

// Cache is one binary cache to write to. Its methods may be called from several goroutines.
type Cache struct {
	cache
	store *fileSource
	dir   storepath.Dir
}

// OpenCache opens a cache for writing; one that nothing was ever written to gets its nix-cache-info. The URL's parameter compression
// chooses one of Compressions.
//
// Errors: *URLError, *StoreDirError, those of a cache that fails.
func OpenCache(ctx context.Context, text string, o Options) (*Cache, error) {
	o = o.withDefaults()
	over, err := newClients(o)
	if err != nil {
		return nil, err
	}
	w, err := writable(text, over, o)
	if err != nil {
		return nil, err
	}
	if remote, ok := w.store.files.(*web); ok {
		remote.fresh = true // what a proxy remembers from before the copy is of no use after it
	}
	info, err := w.source.cacheInfo(ctx)
	if errors.Is(err, errNotFound) {
		text := "StoreDir: " + string(o.StoreDir) + "\nWantMassQuery: 1\nPriority: 40\n"
		return w, w.store.put(ctx, "nix-cache-info", &body{strings.NewReader(text), int64(len(text)), "text/x-nix-cache-info"})
	}
	if err != nil {
		return nil, err
	}
	is, err := parseCacheInfo(info)
	switch {
	case err != nil:
		return nil, &CorruptError{w.name + "/nix-cache-info", err}
	case is.storeDir != "" && is.storeDir != string(o.StoreDir):
		return nil, &StoreDirError{w.name, is.storeDir, string(o.StoreDir)}
	}
	return w, nil
}

// ValidateWritable returns the error OpenCache would for a URL that cannot be used, and asks nobody. Error: *URLError.
func ValidateWritable(text string) error {
	_, err := writable(text, clients{}, Options{})
	return err
}

func writable(text string, over clients, o Options) (*Cache, error) {
	c, err := parse(text, over, o)
	if err != nil {
		return nil, err
	}
	to, ok := c.source.(*fileSource)
	if !ok {
		return nil, &URLError{c.name, "caches of this kind cannot be written to"}
	}
	c.compression = cmp.Or(c.compression, Compressions[0])
	if !slices.Contains(Compressions, c.compression) {
		return nil, &URLError{c.name, fmt.Sprintf("compression %q is not among %q", c.compression, Compressions)}
	}
	return &Cache{cache: *c, store: to, dir: o.StoreDir}, nil
}

// Name is the cache's URL, without credentials.
func (c *Cache) Name() string { return c.name }

// Compression is how NARs are to be written.
func (c *Cache) Compression() string { return c.compression }

// NarInfos returns what the cache has on each of paths, in their order; nil for one that it does not have.
//
// Errors: those of a cache that fails, of which one is returned.
func (c *Cache) NarInfos(ctx context.Context, paths []storepath.Path) ([]*narinfo.NarInfo, error) {
	answers := make([]found, len(paths))
	asked := c.cache // it remembers a failure, after which a set asks no more; here there may be another try
	asked.lookup(ctx, paths, answers)
	infos := make([]*narinfo.NarInfo, len(paths))
	for i, a := range answers {
		switch {
		case a.err == errNotFound:
		case errors.As(a.err, new(*CorruptError)): // to be written again
		case a.err != nil:
			return nil, a.err
		case a.info.StorePath == paths[i]:
			infos[i] = a.info
		}
	}
	return infos, nil
}

// HasNar says whether the NAR that a narinfo names is there. Errors: those of a cache that fails.
func (c *Cache) HasNar(ctx context.Context, info *narinfo.NarInfo) (bool, error) {
	return c.store.has(ctx, info.URL)
}

// PutNar writes a NAR of size bytes at url, as narinfos name it. Errors: those of a cache that fails.
func (c *Cache) PutNar(ctx context.Context, url string, nar io.ReaderAt, size int64) error {
	return c.store.put(ctx, url, &body{nar, size, "application/x-nix-nar"})
}

// PutNarInfo writes a narinfo. What it names is to be there before. Errors: those of a cache that fails.
func (c *Cache) PutNarInfo(ctx context.Context, info *narinfo.NarInfo) error {
	text := info.Format(c.dir)
	return c.store.put(ctx, info.StorePath.Hash()+".narinfo", &body{strings.NewReader(text), int64(len(text)), "text/x-nix-narinfo"})
}

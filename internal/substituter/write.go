package substituter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
)

// store is a source that can be written to, and that gives files of any length.
type store interface {
	source
	// open reads a file. Errors: errNotFound and those of a lookup.
	open(ctx context.Context, name string) (io.ReadCloser, error)
	// has says whether there is a file. Errors: those of a lookup.
	has(ctx context.Context, name string) (bool, error)
	// put writes a file, whole or not at all. Errors: those of a lookup.
	put(ctx context.Context, name string, b *body) error
}

// body is what is written: it can be read from its start as often as it takes.
type body struct {
	io.ReaderAt
	size int64
	kind string // media type
}

// ErrNotFound means that a cache does not have a path.
var ErrNotFound = errNotFound

// Cache is one binary cache to write to. Its methods may be called from several goroutines.
type Cache struct {
	cache
	store       store
	dir         storepath.Dir
	compression string
}

// OpenCache opens a cache for writing; one that nothing was ever written to gets its nix-cache-info. The URL's parameter compression
// chooses one of Compressions.
//
// Errors: *URLError, *StoreDirError, those of a cache that fails.
func OpenCache(ctx context.Context, text string, o Options) (*Cache, error) {
	o = o.withDefaults()
	c, err := parse(text, newClients(o), o)
	if err != nil {
		return nil, err
	}
	w := &Cache{cache: *c, dir: o.StoreDir, compression: c.compression}
	if w.compression == "" {
		w.compression = Compressions[0]
	}
	if !slices.Contains(Compressions, w.compression) {
		return nil, &URLError{c.name, fmt.Sprintf("compression %q is not among %q", w.compression, Compressions)}
	}
	var ok bool
	if w.store, ok = c.source.(store); !ok {
		return nil, &URLError{c.name, "caches of this kind cannot be written to"}
	}
	if remote, ok := c.source.(*httpSource); ok {
		remote.fresh = true // what a proxy remembers from before the copy is of no use after it
	}
	info, err := c.source.cacheInfo(ctx)
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
		return nil, &CorruptError{c.name + "/nix-cache-info", err}
	case is.storeDir != "" && is.storeDir != string(o.StoreDir):
		return nil, &StoreDirError{c.name, is.storeDir, string(o.StoreDir)}
	}
	return w, nil
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

func (s *httpSource) open(ctx context.Context, name string) (io.ReadCloser, error) {
	resp, err := s.send(ctx, s.bulk, http.MethodGet, name, nil)
	if err != nil {
		return nil, shown(err)
	}
	return resp.Body, nil
}

func (s *httpSource) has(ctx context.Context, name string) (bool, error) {
	resp, err := s.send(ctx, s.client, http.MethodHead, name, nil)
	if wrong := new(StatusError); errors.As(err, &wrong) && (wrong.Status == http.StatusMethodNotAllowed || wrong.Status == http.StatusNotImplemented) {
		resp, err = s.send(ctx, s.bulk, http.MethodGet, name, nil) // as far as its first bytes
	}
	if err = shown(err); err == errNotFound {
		return false, nil
	}
	if err == nil {
		resp.Body.Close()
	}
	return err == nil, err
}

func (s *httpSource) put(ctx context.Context, name string, b *body) error {
	resp, err := s.send(ctx, s.bulk, http.MethodPut, name, b)
	if err == nil {
		resp.Body.Close()
	}
	return err
}

// shown takes a 403 that hides what is not there for that.
func shown(err error) error {
	if errors.As(err, new(*hiddenError)) {
		return errNotFound
	}
	return err
}

func (s *fileSource) open(_ context.Context, name string) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(s.folder, filepath.FromSlash(name)))
	if err != nil {
		return nil, s.failure(http.MethodGet, name, err)
	}
	return f, nil
}

func (s *fileSource) has(_ context.Context, name string) (bool, error) {
	_, err := os.Stat(filepath.Join(s.folder, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, s.failure(http.MethodHead, name, err)
}

func (s *fileSource) put(_ context.Context, name string, b *body) error {
	path := filepath.Join(s.folder, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return s.failure(http.MethodPut, name, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".flakeship-*")
	if err != nil {
		return s.failure(http.MethodPut, name, err)
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = io.Copy(f, io.NewSectionReader(b, 0, b.size))
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	return s.failure(http.MethodPut, name, err)
}

// failure gives an error of the file system the form that other caches' have.
func (s *fileSource) failure(method, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist) && method != http.MethodPut:
		return errNotFound
	}
	if wrapped := new(fs.PathError); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return &RequestError{method, s.url(name), err}
}

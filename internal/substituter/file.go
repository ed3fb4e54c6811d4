package substituter

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
)

// onDisk is a cache in a folder, as `nix copy --to file:///...` makes it.
type onDisk struct{ path string }

func (d onDisk) url(name string) string { return "file://" + d.path + "/" + name }

func (d onDisk) read(ctx context.Context, name string, limit int64) ([]byte, error) {
	file, err := d.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, d.failure(http.MethodGet, name, err)
	}
	if int64(len(b)) > limit {
		return nil, tooLong(d.url(name), limit)
	}
	return b, nil
}

func (d onDisk) open(_ context.Context, name string) (io.ReadCloser, error) {
	path, err := d.file(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, d.failure(http.MethodGet, name, err)
	}
	return f, nil
}

func (d onDisk) has(_ context.Context, name string) (bool, error) {
	path, err := d.file(name)
	if err != nil {
		return false, err
	}
	_, err = os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, d.failure(http.MethodHead, name, err)
}

func (d onDisk) put(_ context.Context, name string, b *body) error {
	path, err := d.file(name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return d.failure(http.MethodPut, name, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".flakeship-*")
	if err != nil {
		return d.failure(http.MethodPut, name, err)
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = io.Copy(f, io.NewSectionReader(b, 0, b.size))
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	return d.failure(http.MethodPut, name, err)
}

// file is where a file of the cache is. A narinfo cannot lead to another one.
func (d onDisk) file(name string) (string, error) {
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) {
		return "", &CorruptError{d.url(name), errOutside}
	}
	return filepath.Join(d.path, local), nil
}

// failure gives an error of the file system the form that other caches' have.
func (d onDisk) failure(method, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist) && method != http.MethodPut:
		return errNotFound
	}
	if wrapped := new(fs.PathError); errors.As(err, &wrapped) {
		err = wrapped.Err // its text repeats the path
	}
	return &RequestError{method, d.url(name), err}
}

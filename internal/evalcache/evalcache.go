// Package evalcache keeps results in a folder, by key: those of evaluations, from one run to the next.
//
// A folder may be shared by runs at the same time, and be carried from machine to machine by whatever the forge has for that. It
// stays small: the entries that were not used for longest go first.
package evalcache

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// MaxBytes is how much a folder holds. An entry has some 300 bytes for each image.
const MaxBytes = 32 << 20

// suffix of the entries' files; other files in the folder are left alone.
const suffix = ".flakeship-eval"

// Folder is a folder of entries. It may be used from several goroutines and processes.
type Folder struct {
	dir string
	max int64
}

// Open makes the folder if it is not there, and finds out whether it can be written to.
func Open(dir string) (*Folder, error) {
	f := &Folder{dir: dir, max: MaxBytes}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	probe, err := os.CreateTemp(dir, "new-*")
	if err != nil {
		return nil, err
	}
	return f, errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// DamagedError is an entry that is not as it was written.
type DamagedError struct{ File string }

func (e *DamagedError) Error() string { return fmt.Sprintf("%s is damaged", e.File) }

// Load returns what was saved under a key, and nil when nothing was.
//
// Errors: *DamagedError, those of reading the file. The entry is gone then.
func (f *Folder) Load(key string) ([]byte, error) {
	file := f.file(key)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		sum, data, _ := bytes.Cut(text, []byte("\n"))
		if string(sum) == checksum(key, data) {
			now := time.Now()
			os.Chtimes(file, now, now) // best effort: it was used now
			return data, nil
		}
		err = &DamagedError{file}
	}
	return nil, errors.Join(err, os.Remove(file))
}

// Save keeps data under a key, in place of what was there, and makes room for it.
func (f *Folder) Save(key string, data []byte) error {
	temp, err := os.CreateTemp(f.dir, "new-*")
	if err != nil {
		return err
	}
	_, err = temp.Write(append([]byte(checksum(key, data)+"\n"), data...))
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), f.file(key))
	}
	if err != nil {
		os.Remove(temp.Name())
		return err
	}
	return f.shrink()
}

// shrink deletes the oldest entries until the others fit.
func (f *Folder) shrink() error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	var size int64
	for _, e := range entries {
		abandoned := strings.HasPrefix(e.Name(), "new-")
		if !abandoned && !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // another process deleted it
		}
		if abandoned && time.Since(info.ModTime()) > time.Hour { // by a process that was killed
			os.Remove(filepath.Join(f.dir, e.Name()))
		} else if !abandoned {
			files, size = append(files, info), size+info.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	for _, info := range files {
		if size <= f.max {
			break
		}
		if err := os.Remove(filepath.Join(f.dir, info.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		size -= info.Size()
	}
	return nil
}

func (f *Folder) file(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(f.dir, hex.EncodeToString(sum[:16])+suffix)
}

// checksum is over the key as well: an entry under another's name is damaged.
func checksum(key string, data []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d %s\n", len(key), key)
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

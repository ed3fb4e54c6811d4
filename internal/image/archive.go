package image

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/flakeship/flakeship/internal/handoff"
)

// archive is a docker-archive: a tar, maybe compressed, of layers, config and manifest.json.
type archive struct {
	path  string
	temp  string
	file  *os.File
	size  int64
	kind  compression
	index *tarIndex

	once    sync.Once
	spooled *os.File // the tar itself, when file is compressed and a layer was asked for
	err     error
}

// archiveManifest is one entry of manifest.json.
type archiveManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// openArchive opens a docker-archive as dockerTools and docker write it.
func openArchive(path string, o Options) (*Image, error) {
	a, err := indexArchive(path, o)
	if err != nil {
		return nil, err
	}
	img, err := a.image()
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return img, nil
}

func indexArchive(path string, o Options) (*archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	a := &archive{path: path, temp: o.Temp, file: f}
	if a.index, err = a.read(); err != nil {
		f.Close()
		return nil, err
	}
	return a, nil
}

func (a *archive) read() (*tarIndex, error) {
	info, err := a.file.Stat()
	if err != nil {
		return nil, err
	}
	a.size = info.Size()
	start := make([]byte, 4)
	if _, err := a.file.ReadAt(start, 0); err != nil {
		return nil, a.broken(cut(err))
	}
	if a.kind = compressionOf(start); a.kind == plain {
		x, err := indexTar(a.file, func() (int64, error) { return a.file.Seek(0, io.SeekCurrent) }, false)
		if err != nil {
			return nil, a.broken(err)
		}
		return x, nil
	}
	r, err := a.unpack()
	if err != nil {
		return nil, a.broken(cut(err))
	}
	defer r.Close()
	n := &readCounter{r: bufio.NewReaderSize(r, 1<<18)}
	x, err := indexTar(n, func() (int64, error) { return n.n, nil }, true)
	if err == nil {
		_, err = io.Copy(io.Discard, n) // the checksum is at the end
	}
	if err != nil {
		return nil, a.broken(cut(err))
	}
	return x, nil
}

// unpack reads the tar of a compressed archive.
func (a *archive) unpack() (io.ReadCloser, error) {
	return decompress(io.NewSectionReader(a.file, 0, a.size), a.kind, a.size)
}

func (a *archive) broken(err error) error { return &NotImageError{a.path, err.Error()} }

func (a *archive) image() (*Image, error) {
	text, err := a.small("manifest.json", maxManifest)
	if err != nil {
		return nil, a.broken(err)
	}
	m, err := parseArchiveManifest(text)
	if err != nil {
		return nil, a.broken(err)
	}
	config, err := a.small(m.Config, maxConfig)
	if err != nil {
		return nil, a.broken(err)
	}
	parsed, err := parseConfig(config)
	if err != nil {
		return nil, a.broken(fmt.Errorf("its config %.100q: %w", m.Config, err))
	}
	// By index: a layer's folder is named by its digest in some layouts and by that of its description in others.
	if len(parsed.diffIDs) != len(m.Layers) {
		return nil, a.broken(fmt.Errorf("manifest.json lists %d layers, the config %d", len(m.Layers), len(parsed.diffIDs)))
	}
	img := &Image{Family: handoff.DockerArchive, Platform: parsed.platform, config: fixedConfig(config), closers: []io.Closer{a}}
	for i, name := range m.Layers {
		at, err := a.index.find(name)
		if err != nil {
			return nil, a.broken(err)
		}
		img.Layers = append(img.Layers, &Layer{
			Name: name, DiffID: parsed.diffIDs[i], Size: at.header.Size, source: &archiveLayer{a, at},
		})
	}
	return img, nil
}

// small reads a member into memory.
func (a *archive) small(name string, limit int64) ([]byte, error) {
	m, err := a.index.findOnce(name)
	if err != nil {
		return nil, err
	}
	if m.header.Size > limit {
		return nil, fmt.Errorf("%.200q has %d bytes, more than %d", name, m.header.Size, limit)
	}
	if m.kept != nil {
		return m.kept, nil
	}
	r, err := a.open(m)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// open reads a member. The first call for a compressed archive unpacks all of it into a file: layers are read in any order,
// several at a time, and most archives that come here are unchanged and never get this far.
func (a *archive) open(m *member) (io.Reader, error) {
	f := a.file
	if a.kind != plain {
		a.once.Do(func() { a.spooled, a.err = a.spool() })
		if a.err != nil {
			return nil, fmt.Errorf("unpack %s: %w", a.path, a.err)
		}
		f = a.spooled
	}
	return io.NewSectionReader(f, m.offset, m.header.Size), nil
}

func (a *archive) spool() (*os.File, error) {
	r, err := a.unpack()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := os.CreateTemp(a.temp, "flakeship-archive-*")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name()) // it lives as long as it is open: nothing is left behind even by SIGKILL
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Close closes the archive and frees what was unpacked.
func (a *archive) Close() error {
	err := a.file.Close()
	a.once.Do(func() { a.err = os.ErrClosed })
	if a.spooled != nil {
		err = errors.Join(err, a.spooled.Close())
	}
	return err
}

// archiveLayer is a layer inside an archive. Docker, unlike Nix, may keep it compressed there.
type archiveLayer struct {
	archive *archive
	member  *member
}

func (l *archiveLayer) writeTar(w io.Writer) error {
	r, err := l.archive.open(l.member)
	if err != nil {
		return err
	}
	return copyPlain(w, r, l.member.header.Size)
}

// copyPlain copies r, which has size bytes, to w, decompressed if need be.
func copyPlain(w io.Writer, r io.Reader, size int64) error {
	b := bufio.NewReaderSize(r, 1<<18)
	start, _ := b.Peek(4) // an empty layer has none
	z, err := decompress(b, compressionOf(start), size)
	if err != nil {
		return err
	}
	defer z.Close()
	_, err = io.Copy(w, z)
	return cut(err)
}

// parseArchiveManifest reads manifest.json, which must describe one image.
func parseArchiveManifest(text []byte) (archiveManifest, error) {
	var list []archiveManifest
	if err := json.Unmarshal(text, &list); err != nil {
		return archiveManifest{}, fmt.Errorf("its manifest.json: %w", err)
	}
	if len(list) != 1 {
		return archiveManifest{}, fmt.Errorf("it holds %d images, not one", len(list))
	}
	if list[0].Config == "" {
		return archiveManifest{}, errors.New("its manifest.json names no config")
	}
	return list[0], nil
}

// parsedConfig is what is needed of an image config.
type parsedConfig struct {
	platform v1.Platform
	diffIDs  []v1.Hash
}

func parseConfig(text []byte) (parsedConfig, error) {
	var c struct {
		Architecture string
		OS           string
		Variant      string
		OSVersion    string `json:"os.version"`
		RootFS       struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return parsedConfig{}, err
	}
	diffIDs, err := parseDigests(c.RootFS.DiffIDs)
	if err != nil {
		return parsedConfig{}, err
	}
	return parsedConfig{v1.Platform{Architecture: c.Architecture, OS: c.OS, Variant: c.Variant, OSVersion: c.OSVersion}, diffIDs}, nil
}

// readCounter counts what is read.
type readCounter struct {
	r io.Reader
	n int64
}

func (c *readCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

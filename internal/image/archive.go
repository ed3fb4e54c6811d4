package image

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/unnamed"
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

// openArchive opens a docker-archive as dockerTools and docker write it, or an OCI layout that is a tar.
func openArchive(path string, o Options) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	a, err := indexArchive(f, path, o)
	if err != nil {
		return nil, err
	}
	img, err := a.image(o)
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return img, nil
}

// indexArchive reads the table of contents of f, which it takes over.
func indexArchive(f *os.File, path string, o Options) (*archive, error) {
	a := &archive{path: path, temp: o.Temp, file: f}
	var err error
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

func (a *archive) image(o Options) (*Image, error) {
	var img *Image
	var err error
	if a.index.has("manifest.json") || !a.index.has("index.json") { // newer dockers write both
		img, err = a.dockerImage(o)
	} else {
		img, err = openOCI(a, o)
	}
	if err != nil {
		return nil, a.broken(err)
	}
	img.closers = []io.Closer{a}
	return img, nil
}

func (a *archive) dockerImage(o Options) (*Image, error) {
	text, err := a.small("manifest.json", maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := parseArchiveManifest(text, o)
	if err != nil {
		return nil, err
	}
	config, err := a.small(m.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	parsed, err := parseConfig(config)
	if err != nil {
		return nil, fmt.Errorf("its config %.100q: %w", m.Config, err)
	}
	// By index: a layer's folder is named by its digest in some layouts and by that of its description in others.
	if len(parsed.diffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("manifest.json lists %d layers, the config %d", len(m.Layers), len(parsed.diffIDs))
	}
	img := &Image{Family: handoff.DockerArchive, Platform: parsed.platform, config: fixedConfig(config)}
	for i, name := range m.Layers {
		at, err := a.index.find(name)
		if err != nil {
			return nil, err
		}
		img.Layers = append(img.Layers, &Layer{
			Name: name, DiffID: parsed.diffIDs[i], Size: at.size, source: &archiveLayer{a, at},
		})
	}
	return img, nil
}

// content opens a member, for an OCI layout.
func (a *archive) content(name string) (Content, int64, error) {
	m, err := a.index.findOnce(name)
	if err != nil {
		return nil, 0, err
	}
	if m.kept != nil {
		return memberContent{bytes.NewReader(m.kept)}, m.size, nil
	}
	r, err := a.open(m)
	if err != nil {
		return nil, 0, err
	}
	return memberContent{r}, m.size, nil
}

// memberContent is a member of an archive, which is closed with it.
type memberContent struct{ io.ReaderAt }

func (memberContent) Close() error { return nil }

// small reads a member into memory.
func (a *archive) small(name string, limit int64) ([]byte, error) {
	m, err := a.index.findOnce(name)
	if err != nil {
		return nil, err
	}
	if m.size > limit {
		return nil, fmt.Errorf("%.200q has %d bytes, more than %d", name, m.size, limit)
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
func (a *archive) open(m *member) (*io.SectionReader, error) {
	f := a.file
	if a.kind != plain {
		a.once.Do(func() { a.spooled, a.err = a.spool() })
		if a.err != nil {
			return nil, fmt.Errorf("unpack %s: %w", a.path, a.err)
		}
		f = a.spooled
	}
	return io.NewSectionReader(f, m.offset, m.size), nil
}

func (a *archive) spool() (*os.File, error) {
	r, err := a.unpack()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := unnamed.File(a.temp)
	if err != nil {
		return nil, err
	}
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
	return copyPlain(w, r, l.member.size)
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

// parseArchiveManifest reads manifest.json: its one image or, of several, the one with the wanted name.
func parseArchiveManifest(text []byte, o Options) (archiveManifest, error) {
	var list []archiveManifest
	if err := json.Unmarshal(text, &list); err != nil {
		return archiveManifest{}, fmt.Errorf("its manifest.json: %w", err)
	}
	found := list
	if len(list) > 1 {
		found = pick(list, func(i int) bool {
			return slices.ContainsFunc(list[i].RepoTags, func(tag string) bool { return o.named(tag, false) })
		})
		if len(found) == 0 {
			found = pick(list, func(i int) bool {
				return slices.ContainsFunc(list[i].RepoTags, func(tag string) bool { return strings.HasPrefix(tag, o.Name+":") })
			})
		}
	}
	if len(found) != 1 {
		var names []string
		for _, m := range list {
			names = append(names, m.RepoTags...)
		}
		return archiveManifest{}, severalError(len(list), names)
	}
	if found[0].Config == "" {
		return archiveManifest{}, errors.New("its manifest.json names no config")
	}
	return found[0], nil
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

// Package image opens the container images that Nix builds, whatever library wrote them: docker-archive files of
// dockerTools, streamLayeredImage scripts, the JSON of nix2container, and OCI layouts, as folders and as archives.
//
// It says what an image is made of without making it: an Image has its layers' digests where the file on disk gives them,
// and a layer's bytes are read, or written anew bit for bit, only when somebody asks for them.
package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/handoff"
)

// Options says how images are read.
type Options struct {
	Store handoff.Store // where store paths named inside the image are on disk; the zero value is /nix/store
	Temp  string        // folder for what has to be unpacked; empty is os.TempDir

	// Of a file with several images these say which: the one tagged Name:Tag, or the only one of that Name, and for Platform. Of
	// a file with one image nobody asks what it is called.
	Name     string
	Tags     []string // any of these will do
	Platform v1.Platform
}

// Image is one container image as Nix left it on disk. Its methods, and those of different layers, may be used from several
// goroutines.
type Image struct {
	Family   handoff.Family
	Path     string // of the file on disk
	Platform v1.Platform
	Layers   []*Layer // bottom first

	// Annotations are those of the manifest on disk, when there is one. They are not part of the config.
	Annotations map[string]string

	config  func(diffIDs []v1.Hash) ([]byte, error)
	closers []io.Closer
}

// Config returns the image config when the layers, bottom first, have these diffIDs.
func (i *Image) Config(diffIDs []v1.Hash) ([]byte, error) {
	if len(diffIDs) != len(i.Layers) {
		return nil, fmt.Errorf("%s has %d layers, not %d", i.Path, len(i.Layers), len(diffIDs))
	}
	for n, l := range i.Layers {
		if l.DiffID != (v1.Hash{}) && l.DiffID != diffIDs[n] {
			return nil, fmt.Errorf("layer %d of %s is %s, not %s", n+1, i.Path, l.DiffID, diffIDs[n])
		}
	}
	return i.config(diffIDs)
}

// Close frees what Open and the layers hold.
func (i *Image) Close() error {
	var errs []error
	for _, c := range i.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Layer is one layer of an image.
type Layer struct {
	Name   string  // for people: store paths, or the archive's member
	DiffID v1.Hash // digest of the tar; zero when nobody knows it before the tar is written
	Key    string  // of a stream image's layer, else empty: layers of the same key have the same bytes, see streamconf.KeyAnnotation
	Claim  bool    // DiffID is what an image in a registry says of Key
	Size   int64   // bytes of the tar, 0 when not known
	Blob   *Blob   // the layer as the builder compressed it; nil: it has the plain tar only

	source source
}

// Blob is a layer that is on disk in compressed form.
type Blob struct {
	MediaType types.MediaType
	Digest    v1.Hash
	Size      int64 // 0 when not known
	open      func() (Content, error)
}

// Content is a file that is open, or a part of one.
type Content interface {
	io.ReaderAt
	io.Closer
}

// Open opens the blob as it is.
func (b *Blob) Open() (Content, error) { return b.open() }

// source writes a layer's tar.
type source interface{ writeTar(w io.Writer) error }

// settler is a source that knows several ways to write its tar.
type settler interface {
	// settle looks for the way that gives want and keeps to it.
	settle(want v1.Hash) (found bool, err error)
}

// ErrAgain says that what WriteTar wrote is void, and that another call will write the right bytes: the tool that made the
// image was another version than the one tried first.
var ErrAgain = errors.New("the layer has to be written again")

// WriteTar writes the layer as an uncompressed tar and checks it against DiffID. When there is none yet it sets DiffID and
// Size. It must not be called twice at a time for one layer.
//
// Errors: *DigestError when the bytes are not those the image promises; ErrAgain, at most once.
func (l *Layer) WriteTar(w io.Writer) error {
	sum := sha256.New()
	n := &counter{w: io.MultiWriter(w, sum)}
	if err := l.source.writeTar(n); err != nil {
		return fmt.Errorf("layer %s: %w", l.Name, err)
	}
	got := hash(sum.Sum(nil))
	if l.DiffID == (v1.Hash{}) {
		l.DiffID, l.Size = got, n.n
	}
	if got == l.DiffID {
		return nil
	}
	if s, ok := l.source.(settler); ok {
		if found, err := s.settle(l.DiffID); err != nil {
			return fmt.Errorf("layer %s: %w", l.Name, err)
		} else if found {
			return ErrAgain
		}
	}
	return &DigestError{Layer: l.Name, Want: l.DiffID, Got: got}
}

// DigestError is a layer whose bytes are not those the image promises.
type DigestError struct {
	Layer     string
	Want, Got v1.Hash
}

func (e *DigestError) Error() string {
	names := strings.Fields(e.Layer)
	shown := strings.Join(names[:min(3, len(names))], " ")
	if more := len(names) - 3; more > 0 {
		shown += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("layer %s has digest %s, the image says %s", shown, e.Got, e.Want)
}

// NotImageError is a file that is not an image of any family, or a broken one.
type NotImageError struct {
	Path   string
	Reason string
}

func (e *NotImageError) Error() string { return e.Path + " is no container image: " + e.Reason }

// Open opens the image at path, as it is on disk. What it is shows in its first bytes: dockerTools' file names promise
// nothing. Only small parts are read, except of a compressed archive, which has no table of contents.
//
// Errors: *NotImageError; others when a file cannot be read.
func Open(path string, o Options) (*Image, error) {
	if o.Store.Dir == "" {
		o.Store.Dir = "/nix/store"
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return openLayout(path, o)
	}
	if !info.Mode().IsRegular() {
		return nil, &NotImageError{path, "it is a device, not a file"}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	start := make([]byte, 512)
	n, err := io.ReadFull(f, start)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
		return nil, err
	}
	start = start[:n]
	var img *Image
	switch trimmed := bytes.TrimLeft(start, " \t\r\n"); {
	case bytes.HasPrefix(start, []byte("#!")):
		img, err = openStream(path, o)
	case bytes.HasPrefix(trimmed, []byte("{")):
		img, err = openJSON(path, o)
	case compressionOf(start) != plain || isTar(start):
		img, err = openArchive(path, o)
	default:
		return nil, &NotImageError{path, "it is neither an archive nor a stream script nor JSON"}
	}
	if err != nil {
		return nil, err
	}
	img.Path = path
	return img, nil
}

// isTar says whether a file that begins with block is a tar: POSIX and GNU write the same five letters.
func isTar(block []byte) bool { return len(block) >= 263 && string(block[257:262]) == "ustar" }

// counter counts what goes through.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func hash(sum []byte) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum)} }

func hash256(text []byte) string {
	sum := sha256.Sum256(text)
	return hash(sum[:]).String()
}

// parseDigests reads digests as configs have them; only sha256 is used for layers.
func parseDigests(texts []string) ([]v1.Hash, error) {
	hashes := make([]v1.Hash, len(texts))
	for i, text := range texts {
		h, err := parseDigest(text)
		if err != nil {
			return nil, err
		}
		hashes[i] = h
	}
	return hashes, nil
}

func parseDigest(text string) (v1.Hash, error) {
	h, err := v1.NewHash(text)
	if err != nil || h.Algorithm != "sha256" {
		return v1.Hash{}, fmt.Errorf("%.80q is no sha256 digest", text)
	}
	return h, nil
}

// fixedConfig is the config function of an image that brings its config.
func fixedConfig(config []byte) func([]v1.Hash) ([]byte, error) {
	return func([]v1.Hash) ([]byte, error) { return slices.Clone(config), nil }
}

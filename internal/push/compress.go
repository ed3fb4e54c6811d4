package push

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/flakeship/flakeship/internal/image"
	"github.com/flakeship/flakeship/internal/unnamed"
)

// Compression is how layers are sent.
type Compression string

// The compressions. Gzip is read by everything; zstd is a fifth smaller and needs containerd 1.5, docker 23 or newer.
const (
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
	None Compression = "none"
)

// levels are the highest level of each compression and the one that is used unless told otherwise. With gzip's 6 less is sent
// than skopeo sends; the fastest sends a tenth more.
var levels = map[Compression]struct{ most, usual int }{Gzip: {9, 6}, Zstd: {22, 3}}

// CheckLevel says whether a compression has a level; 0 stands for its usual one.
func (c Compression) CheckLevel(level int) error {
	if most := levels[c].most; level < 0 || level > most {
		return fmt.Errorf("%s has levels up to %d, not %d", c, most, level)
	}
	return nil
}

// writer returns a compressor. What it writes depends on nothing but what it is given: a layer that was sent without its
// manifest is found again by its digest.
func (r *run) writer(w io.Writer) (io.WriteCloser, types.MediaType, error) {
	level := r.Level
	if level == 0 {
		level = levels[r.Compression].usual
	}
	switch r.Compression {
	case Zstd:
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithEncoderConcurrency(1))
		return z, types.OCILayerZStd, err
	case None:
		return nopCloser{w}, types.OCIUncompressedLayer, nil
	}
	return newGzip(w, level, r.gzip), types.OCILayer, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// blob is a layer ready to be sent.
type blob struct {
	v1.Descriptor
	file image.Content
	free func() // gives back its room in the spool
}

// reader reads the blob from its start; several may read at a time.
func (b *blob) reader() io.Reader { return io.NewSectionReader(b.file, 0, b.Size) }

func (b *blob) close() {
	b.file.Close()
	b.free()
}

// materialise makes the blob of a layer, or returns the one in b: a compressed copy in an unnamed file, or the file the
// builder compressed. It checks every digest the image promises.
func (r *run) materialise(ctx context.Context, l *image.Layer, b *lazyBlob) (*blob, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	if b.blob == nil {
		b.blob, err = r.makeBlob(ctx, l)
	}
	return b.blob, err
}

func (r *run) makeBlob(ctx context.Context, l *image.Layer) (*blob, error) {
	release, err := r.slot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if l.Blob != nil && (r.Format == OCI || dockerType[l.Blob.MediaType] != "") {
		return checkBlob(ctx, l)
	}
	f, err := unnamed.File(r.Temp)
	if err != nil {
		return nil, err
	}
	d, err := r.compress(ctx, l, f)
	if errors.Is(err, image.ErrAgain) {
		d, err = r.compress(ctx, l, f)
	}
	if err != nil {
		f.Close()
		if wrong := new(image.DigestError); l.Claim && errors.As(err, &wrong) {
			err = &ClaimError{wrong}
		}
		return nil, err
	}
	// Still in its slot: where the network is slower than the processors, compressing waits, and the disk does not fill.
	held := min(d.Size, maxSpool)
	if err := r.spool.Acquire(ctx, held); err != nil {
		f.Close()
		return nil, err
	}
	return &blob{d, f, func() { r.spool.Release(held) }}, nil
}

// maxSpool is how many bytes of compressed layers wait to be sent, before no other is begun. A larger layer waits alone. A variable,
// so that a test need not fill it.
var maxSpool int64 = 512 << 20

// slot waits until there is room for one more at hard work.
func (r *run) slot(ctx context.Context) (release func(), err error) {
	select {
	case r.slots <- struct{}{}:
		return func() { <-r.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *run) compress(ctx context.Context, l *image.Layer, f *os.File) (v1.Descriptor, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return v1.Descriptor{}, err
	}
	if err := f.Truncate(0); err != nil {
		return v1.Descriptor{}, err
	}
	buffered := bufio.NewWriterSize(f, 1<<18)
	sum := &summing{w: buffered, sum: sha256.New()}
	z, mediaType, err := r.writer(sum)
	if err != nil {
		return v1.Descriptor{}, err
	}
	r.Progress.Compress.Add(l.Size)
	in := &counter{w: z, n: &r.Progress.Compressed}
	err = l.WriteTar(ctxWriter{ctx, in})
	r.Progress.Compress.Add(in.own - l.Size) // a size that was not known, or not reached
	if closed := z.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = buffered.Flush()
	}
	return v1.Descriptor{MediaType: mediaType, Digest: sum.digest(), Size: sum.n}, err
}

// checkBlob opens a layer that is compressed already, and reads it once: its own digest and the one inside must be right.
func checkBlob(ctx context.Context, l *image.Layer) (*blob, error) {
	f, err := l.Blob.Open()
	if err != nil {
		return nil, err
	}
	sum := &summing{w: ctxWriter{ctx, io.Discard}, sum: sha256.New()}
	_, err = io.Copy(sum, io.NewSectionReader(f, 0, math.MaxInt64))
	if err == nil && sum.digest() != l.Blob.Digest {
		err = &image.DigestError{Layer: l.Name, Want: l.Blob.Digest, Got: sum.digest()}
	}
	if err == nil {
		err = l.WriteTar(ctxWriter{ctx, io.Discard})
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &blob{v1.Descriptor{MediaType: l.Blob.MediaType, Digest: l.Blob.Digest, Size: sum.n}, f, func() {}}, nil
}

// summing counts and digests what is written.
type summing struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func (s *summing) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.sum.Write(p[:n])
	s.n += int64(n)
	return n, err
}

func (s *summing) digest() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", s.sum.Sum(nil))}
}

// counter adds what is written to n, and keeps its own part of it.
type counter struct {
	w   io.Writer
	n   *atomic.Int64
	own int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	c.own += int64(n)
	return n, err
}

// ctxWriter ends a long copy with its context.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c ctxWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

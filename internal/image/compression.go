package image

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

type compression int

const (
	plain compression = iota
	gzipped
	zstandard
)

// compressionOf knows a compressed file by its first bytes.
func compressionOf(start []byte) compression {
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		return gzipped
	case bytes.HasPrefix(start, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstandard
	}
	return plain
}

// maxWindow is the history a zstd frame may ask us to keep: what zstd --long=27 writes, its own readers' limit.
const maxWindow = 128 << 20

// decompress reads r, which has size bytes, through c. A bomb ends in an error: nothing real shrinks a thousandfold
// beyond the first GiB.
func decompress(r io.Reader, c compression, size int64) (io.ReadCloser, error) {
	limit := max(1<<30, 1100*size)
	switch c {
	case gzipped:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return &limited{r: z, close: z.Close, left: limit}, nil
	case zstandard:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return &limited{r: z, close: func() error { z.Close(); return nil }, left: limit}, nil
	}
	return io.NopCloser(r), nil
}

// limited is a reader that fails, rather than ends, at its limit.
type limited struct {
	r     io.Reader
	close func() error
	left  int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("unpacks to implausibly many bytes")
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

func (l *limited) Close() error { return l.close() }

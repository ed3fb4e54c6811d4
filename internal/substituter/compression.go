package substituter

import (
	"compress/bzip2"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Compressions are those that NARs can be written with, by their names in a narinfo. The first is the default: several times as
// fast as xz, which is Nix's, and read since 2.4.
var Compressions = []string{"zstd", "xz", "gzip", "none"}

// Compress returns a writer into which a NAR is to go, and which is to be closed.
func Compress(w io.Writer, compression string) (io.WriteCloser, error) {
	switch compression {
	case "zstd":
		return zstd.NewWriter(w)
	case "xz":
		return xz.NewWriter(w)
	case "gzip":
		return gzip.NewWriter(w), nil
	case "none":
		return nopCloser{w}, nil
	}
	return nil, fmt.Errorf("compression %q is not among %q", compression, Compressions)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// Suffix is how the names of NARs end that are compressed so.
func Suffix(compression string) string {
	return map[string]string{"zstd": ".zst", "xz": ".xz", "gzip": ".gz"}[compression]
}

// decompress reads a NAR as a narinfo says that it is compressed. Nix knows more; what is not known here is not common.
func decompress(r io.Reader, compression string) (io.Reader, error) {
	switch compression {
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1)) // no goroutines: nobody has to close it
		if err != nil {
			return nil, err
		}
		return z, nil
	case "xz":
		return xz.NewReader(r)
	case "gzip":
		return gzip.NewReader(r)
	case "bzip2":
		return bzip2.NewReader(r), nil
	case "none":
		return r, nil
	}
	return nil, fmt.Errorf("compression %q is not among %q", compression, slices.Concat(Compressions, []string{"bzip2"}))
}

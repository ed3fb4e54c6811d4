package push

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	stdlib "compress/gzip"
)

// Whatever the size, the number of processors and how the writer is called, the bytes are the same and every gunzip reads them.
func TestGzipInBlocks(t *testing.T) {
	text := slices.Concat(bytes.Repeat([]byte("the same words again and again "), 90_000), noise(1, 1<<20), bytes.Repeat([]byte{0}, 3<<20))
	for _, size := range []int{0, 1, gzipBlock - 1, gzipBlock, gzipBlock + 1, 3 * gzipBlock, len(text)} {
		for _, level := range []int{1, 5, 9} {
			var first []byte
			for _, slots := range []int{1, 2, 7} {
				var out bytes.Buffer
				g := newGzip(&out, level, gzipBounds{make(chan struct{}, slots), make(chan struct{}, (slots+1)/2)})
				for rest := text[:size]; len(rest) > 0; {
					n, err := g.Write(rest[:min(len(rest), 300_000*slots)])
					if err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				if err := g.Close(); err != nil {
					t.Fatal(err)
				}
				if first == nil {
					first = out.Bytes()
				}
				if !bytes.Equal(out.Bytes(), first) {
					t.Errorf("%d bytes at level %d: with %d slots the bytes are others", size, level, slots)
				}
			}
			z, err := stdlib.NewReader(bytes.NewReader(first))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(z) // checks the trailer
			if err != nil || !bytes.Equal(got, text[:size]) {
				t.Errorf("%d bytes at level %d: read back %d bytes, %v", size, level, len(got), err)
			}
		}
	}
}

// full is a writer without room.
type full struct{ left int }

var errFull = errors.New("no room")

func (f *full) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// An error of the file below ends the copy, and every slot is free again.
func TestGzipWriterFails(t *testing.T) {
	bounds := newGzipBounds(1)
	g := newGzip(&full{left: 100}, 1, bounds)
	_, err := io.Copy(g, bytes.NewReader(noise(1, 40*gzipBlock)))
	if !errors.Is(err, errFull) {
		t.Errorf("Write = %v", err)
	}
	if err := g.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close = %v", err)
	}
	if len(bounds.blocks)+len(bounds.turns) > 0 {
		t.Errorf("%d slots are taken", len(bounds.blocks)+len(bounds.turns))
	}
}

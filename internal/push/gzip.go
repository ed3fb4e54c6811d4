package push

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/flate"
)

// What a layer is cut into so that all processors work on it. The size is part of the result: the same tar gives the same
// bytes on every machine, and a layer that was sent without its manifest is found again by its digest. Each block is told of
// the 8 KiB before it, so cutting costs three bytes in ten thousand. Deflate's whole memory, 32 KiB, would cost none, and a fortieth
// more time: they are compressed again for each block.
const (
	gzipBlock  = 1 << 20
	gzipMemory = 8 << 10
)

// gzipWriter compresses on several processors. Errors of the writer below are returned by a later Write, or by Close.
type gzipWriter struct {
	w     io.Writer
	level int
	gzipBounds

	part    *gzipPart // not compressed yet; nil: no bytes of it came
	memory  []byte    // the end of the block before
	crc     uint32
	size    uint32
	pending chan *gzipPart // in the order of the tar

	written chan struct{} // closed when all of pending is written
	mu      sync.Mutex
	err     error
}

// gzipBounds are those of all layers together.
type gzipBounds struct {
	blocks chan struct{} // in memory
	turns  chan struct{} // being compressed: compressors that share a processor push each other out of its cache
}

func newGzipBounds(processors int) gzipBounds {
	return gzipBounds{blocks: make(chan struct{}, 2*processors+4), turns: make(chan struct{}, processors)}
}

type gzipPart struct {
	done  chan struct{}
	block []byte
	out   bytes.Buffer
	err   error
}

// parts keeps what holds a block for later ones.
var parts = sync.Pool{New: func() any { return &gzipPart{block: make([]byte, 0, gzipBlock)} }}

func newPart() *gzipPart {
	p := parts.Get().(*gzipPart)
	p.done, p.block, p.err = make(chan struct{}), p.block[:0], nil
	p.out.Reset()
	return p
}

func newGzip(w io.Writer, level int, bounds gzipBounds) *gzipWriter {
	g := &gzipWriter{w: w, level: level, gzipBounds: bounds, pending: make(chan *gzipPart, cap(bounds.blocks)), written: make(chan struct{})}
	go g.writeParts()
	return g
}

func (g *gzipWriter) Write(p []byte) (int, error) {
	for n := len(p); ; {
		if err := g.failed(); err != nil {
			return 0, err
		}
		if g.part == nil {
			g.part = newPart()
		}
		k := min(len(p), gzipBlock-len(g.part.block))
		g.part.block, p = append(g.part.block, p[:k]...), p[k:]
		if len(g.part.block) < gzipBlock {
			return n, nil
		}
		g.submit(false)
	}
}

// Close writes what is left. It must be called, also after an error.
func (g *gzipWriter) Close() error {
	if g.part == nil {
		g.part = newPart()
	}
	g.submit(true)
	close(g.pending)
	<-g.written
	if err := g.failed(); err != nil {
		return err
	}
	trailer := binary.LittleEndian.AppendUint32(nil, g.crc)
	_, err := g.w.Write(binary.LittleEndian.AppendUint32(trailer, g.size))
	return err
}

// submit lets a block be compressed.
func (g *gzipWriter) submit(last bool) {
	part, memory := g.part, g.memory
	g.part, g.memory = nil, slices.Clone(part.block[max(0, len(part.block)-gzipMemory):])
	g.crc = crc32.Update(g.crc, crc32.IEEETable, part.block)
	g.size += uint32(len(part.block))
	g.blocks <- struct{}{}
	g.pending <- part
	go func() {
		defer close(part.done)
		g.turns <- struct{}{}
		defer func() { <-g.turns }()
		part.err = deflate(&part.out, g.level, part.block, memory, last)
	}()
}

// encoders keeps compressors for later blocks: making one costs as much as using it. By level.
var encoders [10]sync.Pool

func deflate(out *bytes.Buffer, level int, block, memory []byte, last bool) error {
	z, ok := encoders[level].Get().(*flate.Writer)
	if ok {
		z.ResetDict(out, memory)
	} else {
		var err error
		if z, err = flate.NewWriterDict(out, level, memory); err != nil {
			return err
		}
	}
	defer encoders[level].Put(z)
	if _, err := z.Write(block); err != nil {
		return err
	}
	if last {
		return z.Close()
	}
	return z.Flush() // ends at a byte, where the next block goes on
}

// gzipHeader has neither name nor time, and says that the system is unknown.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

func (g *gzipWriter) writeParts() {
	defer close(g.written)
	_, err := g.w.Write(gzipHeader)
	g.fail(err)
	for part := range g.pending {
		<-part.done
		g.fail(part.err)
		if g.failed() == nil {
			_, err := g.w.Write(part.out.Bytes())
			g.fail(err)
		}
		parts.Put(part)
		<-g.blocks
	}
}

func (g *gzipWriter) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
}

func (g *gzipWriter) failed() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

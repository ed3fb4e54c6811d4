package upload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/flakeship/flakeship/internal/nar"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/substituter"
	"github.com/flakeship/flakeship/internal/unnamed"
)

// nar sends a path's NAR and returns its narinfo, which is yet to be written.
func (u *Uploader) nar(ctx context.Context, local *narinfo.NarInfo) (*narinfo.NarInfo, error) {
	spool, info, err := u.compress(ctx, local)
	if err != nil {
		return nil, u.failed(ctx, local, err)
	}
	defer spool.Close()
	if err := enter(ctx, u.wires); err != nil {
		return nil, err
	}
	defer func() { <-u.wires }()
	if err := u.To.PutNar(ctx, info.URL, spool, info.FileSize); err != nil {
		return nil, u.failed(ctx, local, err)
	}
	u.sums[0].Add(1)
	u.sums[1].Add(info.FileSize)
	return info, nil
}

// enter takes a place in a semaphore.
func enter(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// compress writes a path's compressed NAR to a file without name, which lives as long as it is open. What a NAR is called has its
// hash in it, as in the caches that Nix writes, so it has to be there as a whole before it can be sent.
func (u *Uploader) compress(ctx context.Context, local *narinfo.NarInfo) (spool *os.File, info *narinfo.NarInfo, err error) {
	if err := enter(ctx, u.slots); err != nil {
		return nil, nil, err
	}
	defer func() { <-u.slots }()
	if denied := u.refusal.Load(); denied != nil {
		return nil, nil, denied
	}
	if spool, err = unnamed.File(u.Temp); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			spool.Close()
		}
	}()
	compression := u.To.Compression()
	file := &measured{w: spool, hash: sha256.New()}
	compressor, err := substituter.Compress(file, compression)
	if err != nil {
		return nil, nil, err
	}
	plain := &measured{w: compressor, hash: sha256.New(), ctx: ctx}
	err = nar.Write(plain, u.Physical(u.Dir.Join(local.StorePath)))
	if err = errors.Join(err, compressor.Close()); err != nil {
		return nil, nil, err
	}
	if got := plain.sum(); got != local.NarHash || plain.n != local.NarSize {
		return nil, nil, &ChangedError{Want: local.NarHash.String(), Got: got.String()}
	}
	copied, sum := *local, file.sum()
	info = &copied
	info.Sigs = slices.Clone(local.Sigs)
	info.URL = "nar/" + storepath.Encode([]byte(sum.Digest)) + ".nar" + substituter.Suffix(compression)
	info.Compression, info.FileHash, info.FileSize = compression, sum.String(), file.n
	if u.Key != nil {
		info.Sign(*u.Key, u.Dir)
	}
	return spool, info, nil
}

// ChangedError is a store path whose files are not those that were built.
type ChangedError struct{ Want, Got string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("its files have the hash %s, the store has %s", e.Got, e.Want)
}

// measured is a writer that hashes and counts what goes through it, until ctx ends.
type measured struct {
	w    io.Writer
	hash interface {
		io.Writer
		Sum([]byte) []byte
	}
	n   int64
	ctx context.Context // nil: none
}

func (m *measured) Write(p []byte) (int, error) {
	if m.ctx != nil && m.ctx.Err() != nil {
		return 0, context.Cause(m.ctx)
	}
	n, err := m.w.Write(p)
	m.n += int64(n)
	m.hash.Write(p[:n])
	return n, err
}

func (m *measured) sum() narinfo.Hash {
	return narinfo.Hash{Algorithm: "sha256", Digest: string(m.hash.Sum(nil))}
}

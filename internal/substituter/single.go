package substituter

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/flakeship/flakeship/internal/nar"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
)

// File returns the contents of a store path that is one file, at most limit bytes, from the first cache that serves it signed by
// a trusted key. Only the path itself is asked for and fetched, whatever it refers to.
//
// Errors: nar.ErrNotFile; *CorruptError when what the cache sends is not what was signed; those of a cache that fails; others that
// say why no cache serves it, or that its cache or compression cannot be read here.
func (s *Set) File(ctx context.Context, p storepath.Path, limit int64) ([]byte, error) {
	at, info, err := s.find(ctx, p)
	if err != nil {
		return nil, err
	}
	from, ok := at.source.(*fileSource)
	if !ok {
		return nil, fmt.Errorf("single files cannot be read from %s", at.name)
	}
	body, err := from.open(ctx, info.URL)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", s.dir.Join(p), err)
	}
	defer body.Close()
	text, err := readFile(body, info, limit)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, nar.ErrNotFile) {
		return nil, &CorruptError{at.name + "/" + info.URL, err}
	}
	return text, err
}

// References returns what a path that was checked refers to, without itself, as the cache says that serves it; none when none does.
func (s *Set) References(p storepath.Path) []storepath.Path {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[p]; e != nil {
		return slices.Clone(e.refs)
	}
	return nil
}

// find asks for p alone.
func (s *Set) find(ctx context.Context, p storepath.Path) (*cache, *narinfo.NarInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[p]; e != nil && e.served >= 0 {
		return s.caches[e.served], e.info, nil
	}
	e := &entry{served: -1} // none of the set's: its closure is not asked for
	for i, c := range s.caches {
		answers := make([]found, 1)
		c.lookup(ctx, []storepath.Path{p}, answers)
		if s.record(e, p, i, answers[0]) {
			return c, answers[0].info, nil
		}
	}
	why := s.unserved(e)
	if why.err != nil {
		return nil, nil, why.err
	}
	return nil, nil, errors.New(why.reason)
}

// readFile reads a compressed NAR of one file, and checks it before anything of it is used.
func readFile(compressed io.Reader, info *narinfo.NarInfo, limit int64) ([]byte, error) {
	plain, err := decompress(compressed, info.Compression)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	text, err := nar.ReadFile(io.TeeReader(plain, sum), limit)
	if err != nil {
		return nil, err
	}
	if got := (narinfo.Hash{Algorithm: "sha256", Digest: string(sum.Sum(nil))}); got != info.NarHash {
		return nil, fmt.Errorf("its NAR hash is %s, the narinfo says %s", got, info.NarHash)
	}
	return text, nil
}

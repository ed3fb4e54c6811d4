package substituter

import (
	"context"
	"fmt"
	"time"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
)

// AskStore asks a store for some of its paths, and says which of them it has. With closure, all of them are there, and what they
// refer to is part of the answer.
type AskStore func(ctx context.Context, store string, paths []storepath.Path, closure bool) ([]*narinfo.NarInfo, error)

// storeSource is a store that is no binary cache: another machine's behind ssh, a daemon's, a local one. The installed Nix speaks to it.
type storeSource struct {
	url   string
	ask   AskStore
	known map[storepath.Path]*narinfo.NarInfo // used by one lookup at a time
}

func (s *storeSource) cacheInfo(context.Context) (string, error) { return "", nil }

// lookup asks twice: which of paths are there, and for the closure of those. A store has each path with all it refers to, so the
// waves after the first find their answers here.
func (s *storeSource) lookup(ctx context.Context, paths []storepath.Path, _ int, answer func(int, found)) {
	var unknown []storepath.Path
	for _, p := range paths {
		if s.known[p] == nil {
			unknown = append(unknown, p)
		}
	}
	err := s.learn(ctx, unknown)
	for i, p := range paths {
		switch {
		case s.known[p] != nil:
			answer(i, found{info: s.known[p]})
		case err != nil:
			answer(i, found{err: err})
		default:
			answer(i, found{err: errNotFound})
		}
	}
}

// patience is for a connection and its answers, each path one round trip of a slow line.
func patience(paths int) time.Duration { return time.Minute + time.Duration(paths)*50*time.Millisecond }

func (s *storeSource) learn(ctx context.Context, paths []storepath.Path) error {
	for closure := false; len(paths) > 0; closure = true {
		limit := patience(len(paths))
		asked, stop := context.WithTimeout(ctx, limit)
		infos, err := s.ask(asked, s.url, paths, closure)
		late := asked.Err() != nil && ctx.Err() == nil
		stop()
		if late {
			err = fmt.Errorf("no complete answer within %s", limit)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return &StoreError{s.url, err}
		}
		paths = nil
		for _, n := range infos {
			s.known[n.StorePath] = n
			paths = append(paths, n.StorePath)
		}
		if closure {
			return nil
		}
	}
	return nil
}

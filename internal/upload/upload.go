// Package upload copies closures of the local store to a binary cache.
//
// Nix has `nix copy` for that, and it leaves three things open. It refuses to leave out a path that another cache serves; it never
// writes a path again that was written without signature; and it believes what it has seen once. So this copy is our own: it writes
// what the caches lack, nothing before what it refers to, and takes for copied only what it has read back.
package upload

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/substituter"
)

// Options say what is copied where, and how.
type Options struct {
	To       *substituter.Cache
	Others   *substituter.Set    // caches whose paths are left out; nil: none
	Key      *narinfo.SecretKey  // signs what is written; nil: paths keep the signatures they have
	Trusted  []narinfo.PublicKey // whose signatures count beside Key's
	Dir      storepath.Dir       // default /nix/store
	Physical func(storePath string) string
	Temp     string // folder for compressed NARs; empty: os.TempDir
}

// Uploader copies any number of closures, several at a time. A path that they share is copied once.
type Uploader struct {
	Options
	keys  []narinfo.PublicKey // Key's and Trusted
	slots chan struct{}       // NARs that are read and compressed at the same time
	wires chan struct{}       // NARs that are sent at the same time

	mu    sync.Mutex
	paths map[storepath.Path]*outcome

	refusal atomic.Pointer[substituter.DeniedError] // of the cache: it is not asked again
	sums    [4]atomic.Int64                         // what Stats gives
}

// outcome is what became of one path, once done is closed.
type outcome struct {
	done chan struct{}
	err  error
}

// Stats count paths.
type Stats struct {
	Written int   // to the cache
	Bytes   int64 // of their compressed NARs
	Signed  int   // were there without our signature, and have it now
	Left    int   // to other caches, which serve them
}

// New returns an Uploader.
func New(o Options) *Uploader {
	if o.Dir == "" {
		o.Dir = storepath.DefaultDir
	}
	u := &Uploader{Options: o, paths: map[storepath.Path]*outcome{}, keys: slices.Clone(o.Trusted),
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)),
		// As many as are open anyway: small NARs are a matter of round trips.
		wires: make(chan struct{}, 16)}
	if o.Key != nil {
		u.keys = append(u.keys, o.Key.Public())
	}
	return u
}

// Stats says what was done until now.
func (u *Uploader) Stats() Stats {
	return Stats{Written: int(u.sums[0].Load()), Bytes: u.sums[1].Load(), Signed: int(u.sums[2].Load()), Left: int(u.sums[3].Load())}
}

// Closure makes the cache and the others serve a closure, of which it is given each path, as the store knows it. After an error it
// may be called again: what is done stays done.
//
// Errors, joined: *PathError with a *substituter error, an *UnsignedError, a *ChangedError or ctx's cause.
func (u *Uploader) Closure(ctx context.Context, closure []*narinfo.NarInfo) error {
	mine, all := u.claim(closure)
	u.settle(ctx, mine, all)
	var errs []error
	seen := map[error]bool{}
	for _, o := range all {
		<-o.done
		if o.err != nil && !seen[o.err] {
			seen[o.err] = true
			errs = append(errs, o.err)
		}
	}
	return errors.Join(errs...)
}

// claim returns the paths that nobody has worked on yet, with which the caller begins, and the outcomes of all.
func (u *Uploader) claim(closure []*narinfo.NarInfo) (mine []*narinfo.NarInfo, all map[storepath.Path]*outcome) {
	u.mu.Lock()
	defer u.mu.Unlock()
	all = map[storepath.Path]*outcome{}
	for _, info := range closure {
		o := u.paths[info.StorePath]
		if o == nil {
			o = &outcome{done: make(chan struct{})}
			u.paths[info.StorePath] = o
			mine = append(mine, info)
		}
		all[info.StorePath] = o
	}
	return mine, all
}

// end closes a path's outcome. One that failed is forgotten: the next closure tries again.
func (u *Uploader) end(p storepath.Path, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	o := u.paths[p]
	if o.err = err; err != nil {
		delete(u.paths, p)
	}
	close(o.done)
}

// settle sees to the paths of one closure that are its own, and ends each of them.
func (u *Uploader) settle(ctx context.Context, mine []*narinfo.NarInfo, closure map[storepath.Path]*outcome) {
	paths := make([]storepath.Path, len(mine))
	for i, info := range mine {
		paths[i] = info.StorePath
	}
	have, err := u.To.NarInfos(ctx, paths)
	if err != nil {
		for _, p := range paths {
			u.end(p, err)
		}
		return
	}
	left := u.left(ctx, paths, have)
	for i, info := range mine {
		if left[info.StorePath] {
			u.sums[3].Add(1)
			u.end(info.StorePath, nil)
			continue
		}
		go func() {
			err := u.one(ctx, info, have[i], closure)
			if denied := new(substituter.DeniedError); errors.As(err, &denied) {
				u.refusal.CompareAndSwap(nil, denied)
			}
			u.end(info.StorePath, err)
		}()
	}
}

// left are the paths that the cache lacks and that the others serve, each with all that it refers to there.
func (u *Uploader) left(ctx context.Context, paths []storepath.Path, have []*narinfo.NarInfo) map[storepath.Path]bool {
	left := map[storepath.Path]bool{}
	if u.Others == nil {
		return left
	}
	var lacking []storepath.Path
	for i, p := range paths {
		if have[i] == nil {
			lacking = append(lacking, p)
		}
	}
	for _, v := range u.Others.Check(ctx, lacking) {
		// Whatever else is said of a path, or if nobody answers: it is copied.
		left[v.Path] = v.State == handoff.StateCached
	}
	return left
}

// one makes the cache serve a path, of which it has a narinfo, or none.
func (u *Uploader) one(ctx context.Context, local, have *narinfo.NarInfo, closure map[storepath.Path]*outcome) error {
	if have != nil {
		there, err := u.To.HasNar(ctx, have)
		if err != nil {
			return u.failed(ctx, local, err)
		}
		same := have.NarHash == local.NarHash && have.NarSize == local.NarSize && slices.Equal(have.References, local.References)
		signed := u.signed(have)
		switch {
		case there && signed && (same || within(have.References, closure)):
			return nil // it may be of another build, as long as it is whole
		case there && same && u.Key == nil:
			return &UnsignedError{u.To.Name(), u.trust(have)}
		case there && same:
			have.Sign(*u.Key, u.Dir)
			err := u.describe(ctx, have, closure)
			if err == nil {
				u.sums[2].Add(1)
			}
			return err
		}
	}
	info, err := u.nar(ctx, local)
	if err != nil {
		return err
	}
	return u.describe(ctx, info, closure)
}

// signed says whether a narinfo has the signature it is to have: ours if there is a key, else any that counts.
func (u *Uploader) signed(info *narinfo.NarInfo) bool {
	if u.Key != nil {
		_, err := info.Trust(u.Dir, []narinfo.PublicKey{u.Key.Public()})
		return err == nil
	}
	return u.trust(info) == nil
}

func (u *Uploader) trust(info *narinfo.NarInfo) error {
	_, err := info.Trust(u.Dir, u.keys)
	return err
}

// within says whether all references are in the closure.
func within(refs []storepath.Path, closure map[storepath.Path]*outcome) bool {
	return !slices.ContainsFunc(refs, func(ref storepath.Path) bool { return closure[ref] == nil })
}

// describe writes a narinfo, after those of all it refers to: nobody ever sees a path in the cache whose closure is not there. Then
// it looks at what is there.
func (u *Uploader) describe(ctx context.Context, info *narinfo.NarInfo, closure map[storepath.Path]*outcome) error {
	for _, ref := range info.References {
		o := closure[ref]
		if o == nil || ref == info.StorePath {
			continue
		}
		<-o.done
		if o.err != nil {
			return o.err
		}
	}
	if err := u.To.PutNarInfo(ctx, info); err != nil {
		return u.failed(ctx, info, err)
	}
	return u.reread(ctx, info)
}

// reread compares what the cache has now with what was written.
func (u *Uploader) reread(ctx context.Context, wrote *narinfo.NarInfo) error {
	infos, err := u.To.NarInfos(ctx, []storepath.Path{wrote.StorePath})
	if err != nil {
		return u.failed(ctx, wrote, err)
	}
	there := false
	if infos[0] != nil {
		if there, err = u.To.HasNar(ctx, infos[0]); err != nil {
			return u.failed(ctx, wrote, err)
		}
	}
	lost := func(what string) error {
		return u.failed(ctx, wrote, &LostError{u.To.Name(), what})
	}
	switch {
	case infos[0] == nil:
		return lost("its narinfo is not there")
	case !there:
		return lost("its NAR is not there")
	case infos[0].NarHash != wrote.NarHash || infos[0].NarSize != wrote.NarSize:
		return lost("its narinfo is another one")
	case !u.signed(infos[0]) && u.Key != nil:
		return lost("the signature is not there")
	case !u.signed(infos[0]):
		return &UnsignedError{u.To.Name(), u.trust(infos[0])}
	}
	return nil
}

// failed is the error of one path; when ctx has ended, its cause says all.
func (u *Uploader) failed(ctx context.Context, info *narinfo.NarInfo, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &PathError{u.Dir.Join(info.StorePath), err}
}

// PathError says which path could not be copied.
type PathError struct {
	Path string
	Err  error
}

func (e *PathError) Error() string { return fmt.Sprintf("copy %s: %v", e.Path, e.Err) }
func (e *PathError) Unwrap() error { return e.Err }

// LostError is a cache that took what it was given and does not have it.
type LostError struct{ Cache, What string }

func (e *LostError) Error() string {
	return fmt.Sprintf("%s took it, but when read back %s", e.Cache, e.What)
}

// UnsignedError is a path that is in the cache, and that nobody will take from there. There was no key to sign it with.
type UnsignedError struct {
	Cache string
	Err   error // *narinfo.UntrustedError
}

func (e *UnsignedError) Error() string { return fmt.Sprintf("%s has it, but %v", e.Cache, e.Err) }
func (e *UnsignedError) Unwrap() error { return e.Err }

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/nix"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/substituter"
	"github.com/flakeship/flakeship/internal/transport"
	"github.com/flakeship/flakeship/internal/upload"
)

// withCopy runs build and copies each image that it tells done of, while the others are built; then what is left. Without a cache to
// copy to it is build alone, and the copies are nil.
func withCopy(ctx context.Context, env *action.Env, n *nix.Nix, in *inputs, build func(done func(out string)) ([]nix.Built, error)) ([]nix.Built, *copies, error) {
	if in.copyTo == nil {
		built, err := build(func(string) {})
		return built, nil, err
	}
	copying, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ready := make(chan string, 2*len(in.plan.Images)) // nobody waits for the copy
	result := make(chan *copies, 1)
	go func() { result <- copyImages(copying, env, n, in, ready) }()
	var mu sync.Mutex
	told := map[string]bool{}
	built, err := build(func(out string) {
		mu.Lock()
		defer mu.Unlock()
		told[out] = true
		ready <- out
	})
	for _, b := range built {
		if b.State != handoff.BuildFailed && !told[b.OutPath] {
			told[b.OutPath] = true
			ready <- b.OutPath
		}
	}
	close(ready)
	end, limit := time.Now(), env.Duration("copy-timeout")
	defer time.AfterFunc(limit, func() { stop(&lateError{limit}) }).Stop()
	c := <-result
	c.took = time.Since(end)
	return built, c, err
}

// copies is what became of the copy.
type copies struct {
	to     string           // without credentials
	failed map[string]error // by output path; nil: the caches serve the image's closure
	store  bool             // Nix copied to another store, and says nothing of what it did
	stats  upload.Stats
	took   time.Duration // after the last build
}

// lateError is the end of a copy that took longer than copy-timeout.
type lateError struct{ limit time.Duration }

func (e *lateError) Error() string { return fmt.Sprintf("no end after %s", e.limit) }

// copyImages copies output paths with their closures as they come from ready, until that is closed.
func copyImages(ctx context.Context, env *action.Env, n *nix.Nix, in *inputs, ready <-chan string) *copies {
	c := &copier{nix: n, in: in, open: func() (*upload.Uploader, error) { return openUploader(ctx, env, n, in) }, failed: map[string]error{}}
	var outs []string
	for out := range ready {
		batch := append([]string{out}, waiting(ready)...) // one run of Nix for all that have come by now
		outs = append(outs, batch...)
		c.begin(ctx, batch)
	}
	c.wg.Wait()
	// Once more what a moment may have cured: each request was repeated for two seconds, and the cache had the build's time since.
	if again := slices.DeleteFunc(outs, func(out string) bool { return !curable(c.failed[out]) }); len(again) > 0 && ctx.Err() == nil {
		c.begin(ctx, again)
		c.wg.Wait()
	}
	done := &copies{to: nix.Redacted(in.copyTo), store: toStore(in.copyTo), failed: c.failed}
	if c.uploader != nil {
		done.stats = c.uploader.Stats()
	}
	return done
}

// waiting are the elements that a channel has at once.
func waiting(ready <-chan string) (outs []string) {
	for {
		select {
		case out, more := <-ready:
			if !more {
				return outs
			}
			outs = append(outs, out)
		default:
			return outs
		}
	}
}

// curable says whether another try may end otherwise.
func curable(err error) bool {
	return err != nil && !errors.As(err, new(*substituter.DeniedError)) && !errors.As(err, new(*upload.UnsignedError)) &&
		!errors.As(err, new(*upload.ChangedError)) && !errors.As(err, new(*substituter.StoreDirError))
}

// copier is one call of copyImages.
type copier struct {
	nix      *nix.Nix
	in       *inputs
	open     func() (*upload.Uploader, error)
	uploader *upload.Uploader
	wg       sync.WaitGroup

	mu     sync.Mutex
	failed map[string]error
}

// begin starts the copy of images, and returns when it knows their closures.
func (c *copier) begin(ctx context.Context, outs []string) {
	if toStore(c.in.copyTo) {
		err := c.toStore(ctx, outs)
		for _, out := range outs {
			c.end(out, err)
		}
		return
	}
	infos, err := c.closures(ctx, outs)
	for _, out := range outs {
		if err != nil {
			c.end(out, err)
			continue
		}
		c.wg.Go(func() { c.end(out, c.uploader.Closure(ctx, closureOf(infos, c.uploader.Dir, out))) })
	}
}

func (c *copier) end(out string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed[out] = err
}

// closures are what Nix knows of the closures of outs.
func (c *copier) closures(ctx context.Context, outs []string) (map[storepath.Path]*narinfo.NarInfo, error) {
	if c.uploader == nil {
		uploader, err := c.open()
		if err != nil {
			return nil, err
		}
		c.uploader = uploader
	}
	list, err := c.nix.Closure(ctx, outs)
	infos := map[storepath.Path]*narinfo.NarInfo{}
	for _, info := range list {
		infos[info.StorePath] = info
	}
	return infos, err
}

// toStore copies images to another machine's store, and looks whether each path of their closures is there, signed.
func (c *copier) toStore(ctx context.Context, outs []string) error {
	to := c.in.copyTo.String()
	err := c.nix.CopyToStore(ctx, to, outs, nix.CopyOptions{SecretKey: c.in.key, Substitute: len(c.in.lacking) > 0})
	if err != nil {
		return endOf(ctx, err)
	}
	dir := storepath.Dir(c.nix.Settings.StoreDir)
	var roots []storepath.Path
	for _, out := range outs {
		p, err := dir.Parse(out)
		if err != nil {
			return err
		}
		roots = append(roots, p)
	}
	infos, err := c.nix.PathInfo(ctx, to, roots, true)
	if err != nil || c.in.secret == nil {
		return endOf(ctx, err)
	}
	for _, info := range infos {
		if _, err := info.Trust(dir, []narinfo.PublicKey{c.in.secret.Public()}); err != nil {
			return &upload.LostError{Cache: nix.Redacted(c.in.copyTo), What: "the signature of " + dir.Join(info.StorePath) + " is not there"}
		}
	}
	return nil
}

// endOf is err or, when it is the end of ctx, what ended it.
func endOf(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// closureOf is the part of infos that out refers to, and itself.
func closureOf(infos map[storepath.Path]*narinfo.NarInfo, dir storepath.Dir, out string) []*narinfo.NarInfo {
	root, _ := dir.Parse(out) // Nix gave it
	var closure []*narinfo.NarInfo
	seen := map[storepath.Path]bool{root: true}
	for queue := []storepath.Path{root}; len(queue) > 0; queue = queue[1:] {
		info := infos[queue[0]]
		closure = append(closure, info)
		for _, ref := range info.References {
			if !seen[ref] {
				seen[ref] = true
				queue = append(queue, ref)
			}
		}
	}
	return closure
}

// openUploader opens the cache to copy to, and those whose paths are left out.
func openUploader(ctx context.Context, env *action.Env, n *nix.Nix, in *inputs) (*upload.Uploader, error) {
	o, err := cacheOptions(env, n, in)
	if err != nil {
		return nil, err
	}
	to, err := substituter.OpenCache(ctx, in.copyTo.String(), o)
	if err != nil {
		return nil, err
	}
	up := upload.Options{To: to, Key: in.secret, Trusted: o.Keys, Dir: o.StoreDir, Physical: n.Physical, Temp: env.Getenv("RUNNER_TEMP")}
	if len(in.lacking) > 0 {
		if up.Others, err = substituter.Open(ctx, in.lacking, o); err != nil {
			return nil, err
		}
	}
	return upload.New(up), nil
}

// cacheOptions are those of all caches here: credentials and certificates of the installed Nix, keys that it or the plan trusts.
func cacheOptions(env *action.Env, n *nix.Nix, in *inputs) (o substituter.Options, err error) {
	o = substituter.Options{UserAgent: "flakeship/" + action.Version, Ask: n.PathInfo, Debugf: env.Debugf}
	if file := n.Settings.CertFile; file != "" {
		if _, err := transport.Certificates(file); err != nil {
			env.Debugf("the certificates of the installed Nix are not used: %v", err)
		} else {
			o.CertFile = file
		}
	}
	if o.StoreDir, err = storepath.ParseDir(n.Settings.StoreDir); err != nil {
		return o, err
	}
	if o.Netrc, err = substituter.LoadNetrc(n.Settings.NetrcFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		env.Debugf("netrc file of the installed Nix: %v", err)
	}
	for _, text := range slices.Concat(n.Settings.TrustedPublicKeys, in.plan.TrustedPublicKeys) {
		key, err := narinfo.ParsePublicKey(text)
		if err != nil {
			env.Warnf("a key in trusted-public-keys is left out: %v", err)
			continue
		}
		o.Keys = append(o.Keys, key)
	}
	return o, nil
}

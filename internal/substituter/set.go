// Package substituter asks Nix binary caches which store paths they serve, closure and signature included.
//
// A verdict rests on what was seen: a cache that fails is an error and never "missing", a path counts as served only when
// its narinfo is signed by a trusted key, and an image only when each path of its closure is served by one of the caches.
package substituter

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/transport"
)

// Options are the settings of Open.
type Options struct {
	StoreDir  storepath.Dir       // that of the installed Nix; default /nix/store
	Keys      []narinfo.PublicKey // trusted signatures; none: only content-addressed paths are trusted
	Netrc     Netrc               // credentials of http caches, by host
	UserAgent string
	Timeout   time.Duration // of one request to an http cache, body included; default 15 s
	CertFile  string        // certificates trusted beside the system's; empty: none
	Ask       AskStore      // asks stores that are no binary caches; nil: those cannot be used
	// VerifyNARs also asks whether the NAR behind each narinfo is there, where a cache has files: one request more per path.
	VerifyNARs bool
	// LeaveOut is asked about a cache that cannot be read: true takes it out of the set, as if it had not been named. nil: none is.
	LeaveOut func(cache string, err error) bool

	// Warnf is told what a person should know and what makes no error; Debugf of each request. nil: nobody is told.
	// Both may be called from several goroutines.
	Warnf, Debugf func(format string, args ...any)
}

// Set is an ordered set of caches and what they have answered so far. Its methods may be called from several goroutines,
// one waits for the other.
type Set struct {
	dir        storepath.Dir
	keys       []narinfo.PublicKey
	verifyNARs bool
	caches     []*cache // by priority

	mu      sync.Mutex
	entries map[storepath.Path]*entry
}

// entry is what is known of one store path: each cache was asked at most once.
type entry struct {
	id      int      // counts up from 0: the walk's index
	answers []answer // of caches in order, up to the one that serves the path
	served  int      // index into caches; -1: by none

	info     *narinfo.NarInfo // the serving cache's
	refs     []storepath.Path // of it, without the path itself
	download int64            // bytes of the compressed NAR, or of the NAR when the cache does not say
}

// answer is what one cache says about one path: one of by, wrong and err is set, or it does not have it.
type answer struct {
	by      string // it serves it, and this is why that is trusted
	missing string // why it does not have it, when there is more to say
	wrong   *narinfo.UntrustedError
	err     error
}

func (o Options) withDefaults() Options {
	if o.StoreDir == "" {
		o.StoreDir = storepath.DefaultDir
	}
	if o.Timeout == 0 {
		o.Timeout = 15 * time.Second
	}
	if o.Warnf == nil {
		o.Warnf = func(string, ...any) {}
	}
	if o.Debugf == nil {
		o.Debugf = func(string, ...any) {}
	}
	return o
}

// clients make the requests to http caches, over the same connections.
type clients struct {
	small *http.Client // for files that are read into memory
	bulk  *http.Client // for NARs: how long one takes is the caller's affair
}

func newClients(o Options) (clients, error) {
	base := transport.Pool(eagerConnections)
	if o.CertFile != "" {
		certificates, err := transport.Certificates(o.CertFile)
		if err != nil {
			return clients{}, err
		}
		base.TLSClientConfig = &tls.Config{RootCAs: certificates}
	}
	t := transport.Options{UserAgent: o.UserAgent, Base: base, Debugf: o.Debugf}
	bulk := &http.Client{Transport: transport.New(t)}
	t.Timeout, t.Buffer = o.Timeout, narinfo.MaxSize+1
	return clients{&http.Client{Transport: transport.New(t)}, bulk}, nil
}

// Open reads the caches' nix-cache-info, all at the same time, and puts the caches in order: by priority, lowest first, and
// as given among equals. A cache named twice is asked once. A cache that cannot be read is part of the set; each path's
// answer from it is that error.
//
// Errors, all at once: *URLError, *StoreDirError; others when CertFile cannot be read.
func Open(ctx context.Context, urls []string, o Options) (*Set, error) {
	o = o.withDefaults()
	over, err := newClients(o)
	if err != nil {
		return nil, err
	}
	caches, err := parseAll(urls, over, o)
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	for _, c := range caches {
		wg.Go(func() { c.open(ctx, o) })
	}
	wg.Wait()
	if o.LeaveOut != nil {
		caches = slices.DeleteFunc(caches, func(c *cache) bool { return c.down != nil && c.down != errNotFound && o.LeaveOut(c.name, c.down) })
	}
	if err := storeDirs(caches); err != nil {
		return nil, err
	}
	slices.SortStableFunc(caches, func(a, b *cache) int { return a.priority - b.priority })
	return &Set{dir: o.StoreDir, keys: o.Keys, verifyNARs: o.VerifyNARs, caches: caches, entries: map[storepath.Path]*entry{}}, nil
}

// Caches returns the caches' names in the order in which they are asked: their URLs, without credentials.
func (s *Set) Caches() []string {
	names := make([]string, len(s.caches))
	for i, c := range s.caches {
		names[i] = c.name
	}
	return names
}

// Check returns a verdict on each path, in their order. It asks for the paths, then for what those refer to, and so on; a
// path that several closures share is asked for once.
//
// When ctx ends, what was not answered until then is an error in the verdict.
func (s *Set) Check(ctx context.Context, paths []storepath.Path) []Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	// One wave per level of the dependency graph: all its paths are asked for at once, which also suits caches that answer
	// many paths in one request.
	for wave := s.unknown(paths); len(wave) > 0; {
		s.ask(ctx, wave)
		var refs []storepath.Path
		for _, p := range wave {
			refs = append(refs, s.entries[p].refs...)
		}
		wave = s.unknown(refs)
	}
	verdicts := make([]Verdict, len(paths))
	walk := make([]int, len(s.entries)) // verdict that has last been at an entry
	for i, p := range paths {
		verdicts[i] = s.verdict(p, walk, i+1)
	}
	return verdicts
}

// unknown returns the paths that were not asked for yet, each once, in order, and makes their entries.
func (s *Set) unknown(paths []storepath.Path) []storepath.Path {
	var fresh []storepath.Path
	for _, p := range paths {
		if s.entries[p] == nil {
			s.entries[p] = &entry{id: len(s.entries), served: -1}
			fresh = append(fresh, p)
		}
	}
	return fresh
}

// ask puts the caches' answers about paths into their entries. A cache is asked for what those before it do not serve.
func (s *Set) ask(ctx context.Context, paths []storepath.Path) {
	for i, c := range s.caches {
		if len(paths) == 0 {
			return
		}
		answers := make([]found, len(paths))
		c.lookup(ctx, paths, answers)
		if s.verifyNARs {
			c.lookForNARs(ctx, paths, answers)
		}
		var open []storepath.Path
		for j, p := range paths {
			if !s.record(s.entries[p], p, i, answers[j]) {
				open = append(open, p)
			}
		}
		paths = open
	}
}

// record adds cache i's answer about p to e and says whether it serves p.
func (s *Set) record(e *entry, p storepath.Path, i int, f found) bool {
	c, n := s.caches[i], f.info
	switch {
	case f.err == errNotFound:
		e.answers = append(e.answers, answer{missing: c.empty})
		return false
	case f.err != nil:
		e.answers = append(e.answers, answer{err: f.err})
		return false
	case n.StorePath != p:
		// Nix takes it for absent as well: the path that was asked for is not there.
		e.answers = append(e.answers, answer{missing: fmt.Sprintf("its narinfo is that of %s", n.StorePath)})
		return false
	}
	by, err := n.Trust(s.dir, s.keys)
	switch wrong := new(narinfo.UntrustedError); {
	case c.trusted:
		by = "not signed, from a cache that is trusted as a whole"
	case errors.As(err, &wrong):
		e.answers = append(e.answers, answer{wrong: wrong})
		return false
	case by == narinfo.ContentAddress:
		by = "proven by its content address"
	default:
		by = "signed by " + by
	}
	switch {
	case f.nar == errNotFound:
		e.answers = append(e.answers, answer{missing: fmt.Sprintf("its narinfo is there, but its NAR, %s, is not", n.URL)})
		return false
	case f.nar != nil:
		e.answers = append(e.answers, answer{err: f.nar})
		return false
	}
	e.answers = append(e.answers, answer{by: by})
	e.served, e.info = i, n
	e.refs = slices.DeleteFunc(slices.Clone(n.References), func(ref storepath.Path) bool { return ref == p })
	e.download = n.FileSize
	if e.download == 0 {
		e.download = n.NarSize
	}
	return true
}

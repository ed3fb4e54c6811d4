package substituter

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
)

// connections is how many requests one cache gets at the same time. Nix makes 25; at 20 ms of distance 64 halve the time and
// still are no burden for a cache that serves files.
const connections = 64

// Caches say whether they want to be asked for many paths at a time; most do not say.
const (
	eagerConnections  = 128
	politeConnections = 25
)

// folderReaders is for a cache on disk, which more readers do not make faster.
const folderReaders = 8

// giveUp is how many lookups in a row have to fail for the cache to count as down. What is asked afterwards gets the last error
// at once: a cache that hangs must not cost its time limit for each of a thousand paths.
const giveUp = 8

// source is how one kind of cache is asked. A cache in S3, one behind ssh, or one that answers many paths in a single request
// fits behind it.
type source interface {
	// cacheInfo returns the text of nix-cache-info.
	cacheInfo(ctx context.Context) (string, error)
	// lookup calls answer once for each of paths with its index, in any order, from any goroutine, and returns when all are
	// answered; when ctx ends, with its cause. parallel is how many requests may be in flight.
	lookup(ctx context.Context, paths []storepath.Path, parallel int, answer func(int, found))
}

// errNotFound is a source's answer that it does not have a file.
var errNotFound = errors.New("not in the cache")

// found is what a source has on one path: a narinfo or an error.
type found struct {
	info *narinfo.NarInfo
	err  error
	nar  error // why its NAR cannot be had, when that was looked for
}

// cache is one member of a Set.
type cache struct {
	name     string // URL for people: without user, password and parameters
	source   source
	trusted  bool // "?trusted=1": its paths need no signature
	priority int
	fixed    bool // priority was given in the URL
	parallel int  // requests in flight
	// compression is the URL's parameter of that name: how NARs are written.
	compression string
	empty       string // why each path is missing, for a cache that was never written to
	down        error  // set: the cache is not asked any more, this is its answer
}

// Validate returns the errors Open would for URLs that cannot be used, and asks nobody.
//
// Errors, all at once: *URLError.
func Validate(urls []string, o Options) error {
	_, err := parseAll(urls, clients{}, o)
	return err
}

// parseAll makes the caches of urls, each once.
func parseAll(urls []string, over clients, o Options) ([]*cache, error) {
	var caches []*cache
	var problems []error
	seen := map[string]bool{}
	for _, text := range urls {
		c, err := parse(text, over, o)
		if err != nil {
			problems = append(problems, err)
		} else if !seen[c.name] {
			seen[c.name] = true
			caches = append(caches, c)
		}
	}
	return caches, errors.Join(problems...)
}

// parse makes the cache of one URL, as in nix.conf: parameters after "?" are settings and not sent to the server.
func parse(text string, over clients, o Options) (*cache, error) {
	fail := func(reason string) (*cache, error) { return nil, &URLError{redactText(text), reason} }
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil {
		return fail("no URL")
	}
	c := &cache{parallel: connections}
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fail("its parameters cannot be read")
	}
	for key, values := range params {
		value := values[len(values)-1]
		switch key {
		case "trusted":
			c.trusted = value == "1" || value == "true"
		case "compression":
			c.compression = value
		case "priority":
			if c.priority, err = strconv.Atoi(value); err != nil {
				return fail("its priority is no number")
			}
			c.fixed = true
		}
	}
	user := u.User
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	c.name = u.String()
	scheme := u.Scheme
	if scheme == "" && (u.Path == "local" || u.Path == "daemon" || u.Path == "auto") {
		scheme = u.Path // what Nix calls the stores of this machine
	}
	switch scheme {
	case "http", "https":
		if u.Host == "" {
			return fail("it names no host")
		}
		c.source = &fileSource{&web{clients: over, base: u, user: o.Netrc.credentials(u.Hostname(), user), name: c.name, warnf: o.Warnf}, o.StoreDir}
	case "file":
		if u.Host != "" || !filepath.IsAbs(u.Path) {
			return fail("it is no absolute path; write file:///path")
		}
		c.source = &fileSource{onDisk{u.Path}, o.StoreDir}
		c.parallel = folderReaders
	case "s3":
		bucket, reason := parseBucket(u, params, o, over)
		if reason != "" {
			return fail(reason)
		}
		c.name = named(u, params) // Nix, which is to fetch from there, does not find it without them
		bucket.name = c.name
		c.source = &fileSource{bucket, o.StoreDir}
	case "":
		return fail("it has no scheme such as https://")
	default:
		if o.Ask == nil {
			return fail("caches of scheme " + scheme + " are not among those that can be asked: https, http, file, s3")
		}
		if user != nil {
			u.User = url.User(user.Username()) // that of the other machine
		}
		c.name = named(u, params)
		c.source = &storeSource{url: c.name, ask: o.Ask, known: map[storepath.Path]*narinfo.NarInfo{}}
	}
	return c, nil
}

// named is a URL with its parameters, but those that say what we do with the cache.
func named(u *url.URL, params url.Values) string {
	kept := url.Values{}
	for key, values := range params {
		if key != "priority" && key != "trusted" && key != "compression" {
			kept[key] = values
		}
	}
	full := *u
	full.RawQuery = kept.Encode()
	return full.String()
}

// open reads the cache's nix-cache-info.
func (c *cache) open(ctx context.Context, o Options) {
	text, err := c.source.cacheInfo(ctx)
	if errors.Is(err, errNotFound) {
		// Nix ignores such a cache with a warning of its own: nothing can come from it.
		c.empty = "the cache has no nix-cache-info yet, so Nix takes nothing from it"
		o.Warnf("%s has no nix-cache-info: taken for a cache that nothing was copied to yet", c.name)
		c.down = errNotFound
		return
	}
	if err != nil {
		c.down = err
		return
	}
	info, err := parseCacheInfo(text)
	switch {
	case err != nil:
		c.down = &CorruptError{c.name + "/nix-cache-info", err}
	case info.storeDir != "" && info.storeDir != string(o.StoreDir):
		c.down = &StoreDirError{c.name, info.storeDir, string(o.StoreDir)}
	}
	if !c.fixed {
		c.priority = info.priority
	}
	if c.parallel == connections {
		c.parallel = info.connections()
	}
}

// storeDirs returns the errors of caches for another store: there is no answer in asking them.
func storeDirs(caches []*cache) error {
	var problems []error
	for _, c := range caches {
		if wrong := new(StoreDirError); errors.As(c.down, &wrong) {
			problems = append(problems, wrong)
		}
	}
	return errors.Join(problems...)
}

// lookup puts the cache's answer on each path into answers, which has as many elements.
func (c *cache) lookup(ctx context.Context, paths []storepath.Path, answers []found) {
	if c.down != nil {
		for i := range answers {
			answers[i].err = c.down
		}
		return
	}
	ctx, report, stop := c.watch(ctx)
	defer stop()
	c.source.lookup(ctx, paths, c.parallel, func(i int, f found) {
		answers[i] = f
		report(f.err)
	})
}

// watch returns a context that ends when the cache counts as down, which is found out from the errors, or nil, reported by any
// goroutine: for what is in flight then, and what was not asked yet, the answer is the same.
func (c *cache) watch(ctx context.Context) (watched context.Context, report func(error), stop func()) {
	watched, end := context.WithCancelCause(ctx)
	var mu sync.Mutex
	failed := 0
	return watched, func(err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case !fails(err):
			failed = 0
		case watched.Err() == nil:
			failed++
			if denied := new(DeniedError); failed >= giveUp || errors.As(err, &denied) {
				c.down = err
				end(err)
			}
		}
	}, func() { end(nil) }
}

// lookForNARs asks whether the NARs of answers are there. Stores that are not made of files have what they say they have.
func (c *cache) lookForNARs(ctx context.Context, paths []storepath.Path, answers []found) {
	files, ok := c.source.(*fileSource)
	if !ok {
		return
	}
	var asked []int
	for i, a := range answers {
		if a.info != nil && a.info.StorePath == paths[i] {
			asked = append(asked, i)
		}
	}
	ctx, report, stop := c.watch(ctx)
	defer stop()
	each(ctx, len(asked), c.parallel, func(i int, f found) {
		answers[asked[i]].nar = f.err
		report(f.err)
	}, func(i int) found {
		there, err := files.has(ctx, answers[asked[i]].info.URL)
		if err == nil && !there {
			err = errNotFound
		}
		return found{err: err}
	})
}

// fails says whether err is about the cache and not about one path.
func fails(err error) bool {
	corrupt := new(CorruptError)
	return err != nil && err != errNotFound && !errors.As(err, &corrupt)
}

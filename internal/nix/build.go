package nix

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/flakeship/flakeship/internal/handoff"
)

// Target is one image to have in the store.
type Target struct {
	Image
	// Fetch takes the output from a cache that is known to serve it, and does not even look at the derivation: one with
	// allowSubstitutes = false would be built although it is cached. It is built only when the cache did not keep its word.
	Fetch bool
}

// BuildOptions are the settings of Build. The zero value builds as the installed Nix is set up, and stops at the first failure.
type BuildOptions struct {
	Flake        handoff.Flake // that the targets come from, to write derivations that are not in the store
	KeepGoing    bool          // build the others when one fails
	MaxJobs      string        // number or auto; empty: Nix's setting
	Cores        string        // number; empty: Nix's setting
	Builders     string        // remote builders, as in nix.conf; empty: Nix's setting
	Store        string        // store on another machine that builds instead, such as ssh-ng://host; empty: this one builds
	Substituters []string      // caches asked besides Nix's own, as far as it lets its user choose
	TrustedKeys  []string      // keys trusted besides Nix's own, name:base64, likewise
	LogLines     int           // last lines of a failed builder's output to keep; 0: none
	Roots        string        // folder for garbage collector roots of what is there; empty: nothing keeps it after Build
	Event        func(Event)   // told what happens, one event at a time; nil: nobody is

	// Done is told of each target as soon as its output is there, while others are still built; one at a time, and not after
	// Build returned. fetched says whether the output, or a JSON file that it was made of, came from a cache in this Build. nil:
	// nobody is told.
	Done func(t Target, fetched bool)
}

// Built is what became of one target.
type Built struct {
	Target                        // OutPath is known, unless it failed
	State      handoff.BuildState // built, substituted or failed
	Seconds    float64            // its own builder or download took; 0 when there was nothing to do, and for one that failed
	Failure    *handoff.Failure   // when it failed
	NotReached bool               // it failed only because the whole build ended early
	NotFetched bool               // the cache that was to serve it did not
}

// Build makes the targets' outputs exist, all with one run of Nix's scheduler, and says for each what became of it, in the
// order of targets. What was built stays built whatever happens to the others.
//
// The run is `nix-store --realise`. Unlike `nix build` it takes derivations and outputs to fetch together, in one form from
// 2.8 to the newest, and reports each failure: `nix build` of 2.8 shows the first and keeps the others to itself.
//
// Failed targets are no error. When ctx ends, Nix and its builders are stopped, and what was finished until then is in the
// answer, which comes together with ctx.Err().
//
// Errors: *CommandError when Nix could not do anything at all; ctx.Err().
func (n *Nix) Build(ctx context.Context, targets []Target, o BuildOptions) ([]Built, error) {
	b := &build{nix: n, o: o, log: newBuildLog(max(o.LogLines, 20), o.Event), told: map[string]bool{}}
	for _, t := range targets {
		b.built = append(b.built, Built{Target: t})
	}
	err := b.run(ctx)
	if ctx.Err() != nil {
		// Looking at what there is takes milliseconds, and is all that makes the result true.
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer stop()
	}
	return b.built, errors.Join(err, b.finish(ctx, err))
}

// build is one call of Build.
type build struct {
	nix   *Nix
	o     BuildOptions
	built []Built
	log   *buildLog
	graph *graph          // of the targets' derivations, once somebody asked
	told  map[string]bool // outputs that Done was told of
	tried map[string]bool // outputs that were to be fetched and could not be
	again []again         // targets left open because another try may help
	last  error           // of the last run of Nix

	brought atomic.Int64 // outputs that came from another machine while it built others
}

// retries are the waits before another try of what failed by chance: a cache that answered with an error, a remote builder that was
// lost. Nix has tried for some seconds itself by then.
var retries = []time.Duration{3 * time.Second, 15 * time.Second}

// run runs Nix until there is nothing more to try. Once is the rule. Again for an image whose cache did not keep its word, for what
// failed by chance, and for those that Nix gave up because of another one: before 2.31 a derivation that nobody here can
// build ends the whole run, in spite of --keep-going.
func (b *build) run(ctx context.Context) error {
	b.tried = map[string]bool{}
	b.refuseForeign()
	for first, chances := true, retries; ; first = false {
		if err := b.instantiate(ctx, b.open()); err != nil {
			return err
		}
		open := b.open()
		if len(open) == 0 {
			return nil
		}
		b.log.begin()
		if err := b.realise(ctx, open); err != nil {
			return err
		}
		if err := b.failedRun(ctx, first); err != nil {
			return err
		}
		fetches := len(b.tried)
		if err := b.settle(ctx, len(chances) > 0); err != nil {
			return err
		}
		switch {
		case len(b.again) > 0:
			if err := b.wait(ctx, chances[0]); err != nil {
				return err
			}
			chances = chances[1:]
		case !b.o.KeepGoing && b.log.failed() || len(b.tried) == fetches && !b.log.gaveUp():
			return nil
		}
	}
}

// realise runs Nix once, or more often when there is more to name than fits a command line.
func (b *build) realise(ctx context.Context, open []*Built) error {
	var here, there []string
	var valid map[string]bool
	if b.o.Store != "" {
		var err error
		if valid, err = b.nix.valid(ctx, b.outPaths()); err != nil {
			return err
		}
	}
	for _, t := range open {
		switch {
		case b.fetches(t):
			here = append(here, t.OutPath)
		case b.o.Store != "" && !valid[t.OutPath]:
			there = append(there, t.DrvPath)
		default:
			here = append(here, t.DrvPath)
		}
	}
	b.last = nil
	if len(there) > 0 {
		if err := b.patiently(ctx, func() error { return b.nix.send(ctx, b.o.Store, there) }); err != nil {
			return err
		}
	}
	defer b.watch(ctx)()
	b.realiseAt(ctx, "", here)
	if len(there) > 0 && ctx.Err() == nil && (b.last == nil || b.o.KeepGoing) {
		end := b.bringing(ctx)
		b.realiseAt(ctx, b.o.Store, there)
		if err := end(); b.last == nil {
			b.last = err
		}
	}
	return ctx.Err()
}

// realiseAt runs Nix for derivations and outputs in a store; empty: that of the installed Nix.
func (b *build) realiseAt(ctx context.Context, store string, names []string) {
	for part := range b.nix.parts(names) {
		_, err := b.nix.run(ctx, b.command(store, part))
		b.log.end()
		if b.last == nil {
			b.last = err
		}
		if ctx.Err() != nil || err != nil && !b.o.KeepGoing {
			return
		}
	}
}

// failedRun returns the error of a run of Nix that says nothing about any target.
func (b *build) failedRun(ctx context.Context, first bool) error {
	var c *CommandError
	if !errors.As(b.last, &c) {
		return b.last
	}
	c.Stderr = b.log.said()
	if first && b.log.idle() && !slices.ContainsFunc(b.open(), b.fetches) && !transient.MatchString(b.cause(b.log.stray())) {
		return c // nothing started and nothing failed: the store, the daemon or the settings
	}
	return nil
}

// open are the targets of which nothing is known yet.
func (b *build) open() []*Built {
	var open []*Built
	for i := range b.built {
		if b.built[i].State == "" {
			open = append(open, &b.built[i])
		}
	}
	return open
}

// fetches says whether a target is to come from a cache in the next run.
func (b *build) fetches(t *Built) bool { return t.Fetch && t.OutPath != "" && !b.tried[t.OutPath] }

// instantiate writes the derivations that are to be built. A target whose attribute does not give the planned one any more
// has failed.
func (b *build) instantiate(ctx context.Context, open []*Built) error {
	var images []Image
	for _, t := range open {
		if !b.fetches(t) {
			images = append(images, t.Image)
		}
	}
	err := b.nix.Instantiate(ctx, b.o.Flake, images)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, one := range unjoin(err) {
		attr := ""
		var changed *ChangedError
		var eval *EvalError
		switch {
		case errors.As(one, &changed):
			attr = changed.Attr
		case errors.As(one, &eval) && eval.Attr != "packages" && eval.Attr != "":
			attr = eval.Attr
		default:
			return one
		}
		for _, t := range open {
			if t.Attr == attr {
				b.fail(t, t.DrvPath, one.Error())
			}
		}
	}
	return nil
}

// command realises derivations and outputs in a store.
func (b *build) command(store string, names []string) command {
	if b.o.KeepGoing {
		store = goingOn(store)
	}
	args := []string{"--realise", "--no-gc-warning", "--log-format", "internal-json",
		// A path that was copied to a cache after Nix had asked for it would stay missing for an hour.
		"--option", "narinfo-cache-negative-ttl", "0"}
	if b.o.KeepGoing {
		args = append(args, "--keep-going")
	}
	for _, option := range [][2]string{
		{"max-jobs", b.o.MaxJobs}, {"cores", b.o.Cores}, {"builders", b.o.Builders}, {"netrc-file", b.nix.netrc}, {"store", store},
		{"extra-substituters", strings.Join(b.nix.unknownCaches(b.o.Substituters), " ")},
		{"extra-trusted-public-keys", strings.Join(without(b.o.TrustedKeys, b.nix.Settings.TrustedPublicKeys), " ")},
	} {
		if option[1] != "" {
			args = append(args, "--option", option[0], option[1])
		}
	}
	return command{program: "nix-store", args: append(args, names...), stderr: b.log, env: b.nix.unasked()}
}

// unknownCaches are those of urls that are not among Nix's own, whatever settings these have.
func (n *Nix) unknownCaches(urls []string) []string {
	var own []string
	for _, text := range n.Settings.Substituters {
		if u, err := url.Parse(text); err == nil {
			own = append(own, strings.TrimRight(Redacted(u), "/"))
		}
	}
	return without(urls, own)
}

// without are the items of all that are not in some.
func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) })
}

// settle finds out what is known of the open targets after a run. With more, those that failed by chance stay open.
func (b *build) settle(ctx context.Context, more bool) error {
	valid, err := b.nix.valid(ctx, b.outPaths())
	if err != nil {
		return err
	}
	var failed []*Built
	var there []string
	for _, t := range b.open() {
		switch {
		case t.OutPath != "" && valid[t.OutPath] || t.OutPath == "" && b.nix.built(ctx, t):
			if b.succeed(t); t.State != handoff.BuildFailed {
				there = append(there, t.OutPath)
			}
		case b.fetches(t) && more && transient.MatchString(b.log.stray()):
			b.again = append(b.again, again{Built: t, reason: b.log.stray()})
		case b.fetches(t):
			b.tried[t.OutPath], t.NotFetched = true, true
		default:
			failed = append(failed, t)
		}
	}
	if b.o.Roots != "" {
		if err := b.nix.AddRoots(ctx, b.o.Roots, there); err != nil && ctx.Err() == nil {
			b.log.say(fmt.Sprintf("warning: Nix's garbage collector may take what was built: %v", err))
		}
	}
	return b.explain(ctx, failed, more)
}

// outPaths are the known output paths of the open targets.
func (b *build) outPaths() []string {
	var paths []string
	for _, t := range b.open() {
		if t.OutPath != "" {
			paths = append(paths, t.OutPath)
		}
	}
	return paths
}

// succeed marks a target whose output Nix has.
func (b *build) succeed(t *Built) {
	if !b.nix.Exists(t.OutPath) {
		b.fail(t, t.DrvPath, fmt.Sprintf("Nix has %s, but there is no such file at %s: is the store on another machine?", t.OutPath, b.nix.Physical(t.OutPath)))
		return
	}
	t.State = handoff.BuildBuilt
	if b.fetches(t) || b.log.wasFetched(t.OutPath) && !b.log.wasBuilt(t.DrvPath) {
		t.State = handoff.BuildSubstituted
	}
	if t.Tag == "" { // content-addressed: now it has a hash
		t.Tag, _, _ = strings.Cut(filepath.Base(t.OutPath), "-")
	}
	t.Seconds = b.log.took(t.DrvPath, t.OutPath, b.nix.appeared(t.OutPath))
	b.done(t)
}

func (b *build) fail(t *Built, drv, reason string) {
	t.State = handoff.BuildFailed
	log := b.log.tail(drv)
	t.Failure = &handoff.Failure{Derivation: drv, Kind: kindOf(reason, log), Reason: reason, Log: log[max(0, len(log)-b.o.LogLines):]}
	if t.Failure.Kind == handoff.FailureDisk && !noSpace.MatchString(reason) {
		t.Failure.Reason = "no space left on device: " + reason // the builder said so, and Nix did not
	}
}

// finish says something of each target.
func (b *build) finish(ctx context.Context, cause error) error {
	var err error
	if cause != nil {
		err = b.settle(ctx, false)
	}
	reason, early := "Nix did not get to it", true
	switch {
	case errors.Is(cause, context.Canceled):
		reason = "cancelled before it was built"
	case errors.Is(cause, context.DeadlineExceeded):
		reason = "out of time before it was built"
	case !b.o.KeepGoing && b.log.failed():
		reason = "not built, because another image failed and keep-going is off"
	case b.log.stray() != "":
		reason, early = b.cause(b.log.stray()), false
	case b.last != nil:
		reason, early = b.last.Error(), false
	}
	for _, t := range b.open() {
		b.fail(t, t.DrvPath, reason)
		if t.NotReached = early; early {
			t.Failure.Kind = handoff.FailureStopped
		}
	}
	return err
}

// unjoin takes errors.Join apart.
func unjoin(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, one := range joined.Unwrap() {
			all = append(all, unjoin(one)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

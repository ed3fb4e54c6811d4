package nix

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

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
	Substituters []string      // caches asked besides Nix's own, as far as it lets its user choose
	TrustedKeys  []string      // keys trusted besides Nix's own, name:base64, likewise
	LogLines     int           // last lines of a failed builder's output to keep; 0: none
	Event        func(Event)   // told what happens, from one goroutine; nil: nobody is
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
	b := &build{nix: n, o: o, log: newBuildLog(o.LogLines, o.Event)}
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
	tried map[string]bool // outputs that were to be fetched and could not be
	last  error           // of the last run of Nix
}

// run runs Nix until there is nothing more to try. Once is the rule. Again for an image whose cache did not keep its word, and
// for those that Nix gave up because of another one: before 2.31 a derivation that nobody here can build ends the whole
// run, in spite of --keep-going.
func (b *build) run(ctx context.Context) error {
	b.tried = map[string]bool{}
	b.refuseForeign()
	for first := true; ; first = false {
		if err := b.instantiate(ctx, b.open()); err != nil {
			return err
		}
		open := b.open()
		if len(open) == 0 {
			return nil
		}
		b.log.begin()
		_, b.last = b.nix.run(ctx, b.command(open))
		b.log.activity.Close()
		if err := b.failedRun(ctx, first); err != nil {
			return err
		}
		fetches := len(b.tried)
		if err := b.settle(ctx); err != nil {
			return err
		}
		if !b.o.KeepGoing && b.log.failed() || len(b.tried) == fetches && !b.log.gaveUp() {
			return nil
		}
	}
}

// failedRun returns the error of a run of Nix that says nothing about any target.
func (b *build) failedRun(ctx context.Context, first bool) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var c *CommandError
	if !errors.As(b.last, &c) {
		return b.last
	}
	c.Stderr = b.log.messages.String() // in place of the log for machines
	if first && b.log.idle() && !slices.ContainsFunc(b.open(), b.fetches) {
		return c // nothing started and nothing failed: the store, the daemon or the settings
	}
	return nil
}

// refuseForeign fails the targets that no machine at hand can build, before Nix finds out in the middle of the others.
func (b *build) refuseForeign() {
	s := b.nix.Settings
	if b.o.Builders != "" || s.hasBuilders {
		return // which systems they have is theirs to say
	}
	for _, t := range b.open() {
		if !b.fetches(t) && t.System != s.System && !slices.Contains(s.extraPlatforms, t.System) && (t.OutPath == "" || !b.nix.Exists(t.OutPath)) {
			b.fail(t, t.DrvPath, fmt.Sprintf("it is to be built on %s; this machine is %s, and no remote builder is set up", t.System, s.System))
		}
	}
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

// command realises the open targets.
func (b *build) command(open []*Built) command {
	args := []string{"--realise", "--no-gc-warning", "--log-format", "internal-json",
		// A path that was copied to a cache after Nix had asked for it would stay missing for an hour.
		"--option", "narinfo-cache-negative-ttl", "0"}
	if b.o.KeepGoing {
		args = append(args, "--keep-going")
	}
	for _, option := range [][2]string{
		{"max-jobs", b.o.MaxJobs}, {"cores", b.o.Cores}, {"builders", b.o.Builders}, {"netrc-file", b.nix.netrc},
		{"extra-substituters", strings.Join(b.nix.unknownCaches(b.o.Substituters), " ")},
		{"extra-trusted-public-keys", strings.Join(without(b.o.TrustedKeys, b.nix.Settings.TrustedPublicKeys), " ")},
	} {
		if option[1] != "" {
			args = append(args, "--option", option[0], option[1])
		}
	}
	for _, t := range open {
		if b.fetches(t) {
			args = append(args, t.OutPath)
		} else {
			args = append(args, t.DrvPath)
		}
	}
	return command{program: "nix-store", args: args, stderr: b.log.activity}
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

// settle finds out what is known of the open targets after a run.
func (b *build) settle(ctx context.Context) error {
	valid, err := b.nix.valid(ctx, b.outputs())
	if err != nil {
		return err
	}
	var failed []*Built
	for _, t := range b.open() {
		switch {
		case t.OutPath != "" && valid[t.OutPath]:
			b.succeed(t)
		case b.fetches(t):
			b.tried[t.OutPath], t.NotFetched = true, true
		case t.OutPath == "" && b.nix.built(ctx, t):
			b.succeed(t)
		default:
			failed = append(failed, t)
		}
	}
	return b.explain(ctx, failed)
}

// outputs are the known output paths of the open targets.
func (b *build) outputs() []string {
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
}

func (b *build) fail(t *Built, drv, reason string) {
	t.State = handoff.BuildFailed
	t.Failure = &handoff.Failure{Derivation: drv, Reason: reason, Log: b.log.tail(drv)}
}

// explain finds for each target the derivation because of which it was not built: its own, or one it depends on. A target
// that Nix did not get to stays open.
func (b *build) explain(ctx context.Context, failed []*Built) error {
	for _, t := range failed {
		requisites := []string{t.DrvPath}
		if _, own := b.log.reason(t.DrvPath); !own {
			var err error
			if requisites, err = b.nix.requisites(ctx, t.DrvPath); err != nil {
				return err
			}
		}
		drv, reason, err := b.culprit(ctx, requisites)
		if err != nil {
			return err
		}
		if drv != "" {
			b.fail(t, drv, reason)
		}
	}
	return nil
}

// culprit is the derivation among drvs that failed; empty: none did. Nix names it, but not always: since 2.30 "timed out
// after 9 seconds" is all it says. Then it is the one whose builder ended and left no output, provided that Nix went through
// all of its work and did not stop builders.
func (b *build) culprit(ctx context.Context, drvs []string) (drv, reason string, err error) {
	slices.Sort(drvs)
	for _, drv := range drvs {
		if reason, ok := b.log.reason(drv); ok {
			return drv, reason, nil
		}
	}
	if b.log.gaveUp() || b.log.stray() == "" {
		return "", "", nil
	}
	for _, drv := range drvs {
		if !b.log.wasBuilt(drv) {
			continue
		}
		text, err := b.nix.run(ctx, command{program: "nix-store", args: []string{"--query", "--outputs", drv}})
		if err != nil {
			return "", "", err
		}
		outputs := strings.Fields(string(text))
		valid, err := b.nix.valid(ctx, outputs)
		if err != nil {
			return "", "", err
		}
		if len(valid) < len(outputs) {
			return drv, b.log.stray(), nil
		}
	}
	return "", "", nil
}

// finish says something of each target.
func (b *build) finish(ctx context.Context, cause error) error {
	var err error
	if cause != nil {
		err = b.settle(ctx)
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
		reason, early = b.log.stray(), false
	case b.last != nil:
		reason, early = b.last.Error(), false
	}
	for _, t := range b.open() {
		b.fail(t, t.DrvPath, reason)
		t.NotReached = early
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

package nix

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// transient matches what may be otherwise at the next try. It is held against what Nix says, never against what a builder prints.
var transient = regexp.MustCompile(`HTTP error (408|425|429|5\d\d)|due to networking issues|unable to download|` +
	`[Cc]ould(n't| not) (resolve|connect)|[Tt]imeout was reached|[Cc]onnection (was )?(reset|closed|refused|timed out)|` +
	`unexpected end-of-file|daemon disconnected unexpectedly|[Bb]roken pipe|failed to start SSH|lost connection|unexpected EOF`)

// What Nix says of a derivation, or of all of them, when a remote builder was lost. What happened it says before that, of nobody in
// particular: as a message when it could not connect to a machine, or not copy what was built there, and as an error when a
// connection ended.
var (
	unreached = regexp.MustCompile(`cannot build on '[^']*': .*|could not copy \S+: .*`)
	hearsay   = regexp.MustCompile(`^builder failed with exit code 1\b|^some outputs are unexpectedly invalid`)
)

// cause is a reason that Nix gives or, when it may be that a remote builder was lost, what Nix said about that.
func (b *build) cause(reason string) string {
	if !b.hasBuilders() {
		return reason
	}
	said := unreached.FindString(b.log.said())
	switch lost := b.log.chance(); {
	case hearsay.MatchString(reason) && lost != "":
		return "its remote builder was lost, or failed: " + lost
	case (hearsay.MatchString(reason) || noMachine.MatchString(reason)) && transient.MatchString(said):
		return said
	}
	return reason
}

// explain finds for each target the derivation because of which it was not built: its own, or one it depends on. A target
// that Nix did not get to stays open, and with more also one that failed by chance.
func (b *build) explain(ctx context.Context, failed []*Built, more bool) error {
	for _, t := range failed {
		requisites := []string{t.DrvPath}
		if _, own := b.log.reason(t.DrvPath); !own {
			if err := b.needGraph(ctx); err != nil {
				return err
			}
			requisites = b.graph.requisites(t.DrvPath)
		}
		drv, reason, err := b.culprit(ctx, requisites)
		if err != nil {
			return err
		}
		// What names no derivation concerns all of them.
		switch cause := b.cause(cmp.Or(reason, b.log.stray())); {
		case more && transient.MatchString(cause):
			b.again = append(b.again, again{t, drv, cause})
		case drv != "":
			b.fail(t, drv, cause)
		}
	}
	return nil
}

// again is a target that is tried once more.
type again struct {
	*Built
	drv, reason string // drv is empty when no derivation was named
}

// wait waits before another try, and forgets what made it necessary.
func (b *build) wait(ctx context.Context, pause time.Duration) error {
	for _, a := range b.again {
		b.log.forget(a.drv)
	}
	b.log.say(fmt.Sprintf("warning: %d of %d are tried again in %s: %s", len(b.again), len(b.built), pause, b.again[0].reason))
	b.again = nil
	return sleep(ctx, pause)
}

// needGraph asks for the graph of the targets' derivations once.
func (b *build) needGraph(ctx context.Context) (err error) {
	if b.graph == nil {
		drvs := map[string][]string{}
		for _, t := range b.built {
			if b.nix.Exists(t.DrvPath) {
				drvs[t.DrvPath] = append(drvs[t.DrvPath], t.Name)
			}
		}
		b.graph, err = b.nix.graph(ctx, drvs)
	}
	return err
}

// culprit is the derivation among drvs that failed; empty: none did. Nix names it, but not always: since 2.30 "timed out
// after 9 seconds" is all it says. Then it is the one whose builder ended and left no output, provided that Nix went through
// all of its work and did not stop builders.
func (b *build) culprit(ctx context.Context, drvs []string) (drv, reason string, err error) {
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

// refuseForeign fails the targets that no machine at hand can build, before Nix finds out in the middle of the others.
func (b *build) refuseForeign() {
	if b.o.Store != "" {
		return // which systems that machine has is its to say
	}
	systems := b.nix.Settings.buildable(b.o.Builders)
	for _, t := range b.open() {
		if !b.fetches(t) && !slices.Contains(systems, t.System) && (t.OutPath == "" || !b.nix.Exists(t.OutPath)) {
			b.fail(t, t.DrvPath, fmt.Sprintf("it is to be built on %s; this machine is %s, and no remote builder is set up for that", t.System, systems[0]))
		}
	}
}

func (b *build) hasBuilders() bool { return len(b.nix.Settings.machines(b.o.Builders)) > 0 }

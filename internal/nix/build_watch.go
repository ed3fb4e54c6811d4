package nix

import (
	"context"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/derivation"
)

// watch looks, while Nix runs, for what came to its end: it tells of builders that stopped and of targets that are there. Nix
// itself reports the end of a builder late before 2.30, whether it was a good one after that, and that of a target never.
type watch struct {
	b    *build
	ctx  context.Context     // of the build, not of the watch: what has begun to be told is told whole
	seen int64               // what had ended when the store was asked last
	outs map[string][]string // outputs of running derivations; nil: not known
}

// watchEvery is how often a watch looks. It asks the store only when Nix counts something as ended.
const watchEvery = 250 * time.Millisecond

// watch watches until the returned function is called, which does not return before all is told.
func (b *build) watch(ctx context.Context) (end func()) {
	w := &watch{b: b, ctx: ctx, seen: -1, outs: map[string][]string{}}
	watching, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-watching.Done():
				return
			case <-tick.C:
				w.look(watching)
			}
		}
	}()
	return func() {
		stop()
		<-ended
		w.rest()
	}
}

// rest tells of what is left when Nix has ended. Of a builder that it did not say anything about, as of one that took too long, the
// output tells whether it ended well.
func (w *watch) rest() {
	running := w.b.log.running()
	var ask []string
	for _, drv := range running {
		ask = append(ask, w.outputs(drv)...)
	}
	valid, _ := w.b.nix.valid(w.ctx, ask) // when the build was cancelled, none is
	for _, drv := range running {
		failed, _ := w.b.log.settled(drv)
		if w.b.o.Store == "" { // not all that another machine's store builds comes here
			failed = failed || slices.ContainsFunc(w.outs[drv], func(out string) bool { return !valid[out] })
		}
		w.stopped(drv, failed)
	}
}

// stopped tells that a builder ended, and which images wanted it: one question to the store, when the first one has ended.
func (w *watch) stopped(drv string, failed bool) {
	_ = w.b.needGraph(w.ctx) // without it the log names no images; explain asks again
	var appeared time.Time
	if outs := w.outs[drv]; len(outs) > 0 {
		appeared = w.b.nix.appeared(outs[0])
	}
	w.b.log.stopped(drv, failed, w.b.graph.needs(drv), appeared)
}

func (w *watch) look(ctx context.Context) {
	// Before anything else: what starts and ends while this looks counts as news the next time.
	ended := w.b.log.ended() + w.b.brought.Load()
	for _, drv := range w.b.log.running() {
		failed, end := w.b.log.settled(drv)
		// One whose outputs are not known, and that ended without a word for a while, ended well.
		if failed || len(w.outputs(drv)) == 0 && !end.IsZero() && time.Since(end) > 2*watchEvery {
			w.stopped(drv, failed)
		}
	}
	if ended == w.seen {
		return
	}
	running := w.b.log.running()
	missing := func(path string) bool { return !w.b.nix.Exists(path) }
	var ask []string
	for _, drv := range running {
		// A builder without a sandbox writes its output before it ends: that there is a file is not enough.
		if outs := w.outputs(drv); len(outs) > 0 && !slices.ContainsFunc(outs, missing) {
			ask = append(ask, outs...)
		}
	}
	for _, t := range w.b.open() {
		if t.OutPath != "" && !w.b.told[t.OutPath] && !missing(t.OutPath) {
			ask = append(ask, t.OutPath)
		}
	}
	slices.Sort(ask)
	valid, err := w.b.nix.valid(ctx, slices.Compact(ask))
	if err != nil { // cancelled; or the store has other sorrows, of which Nix will say more: it is asked again
		return
	}
	w.seen = ended
	for _, drv := range running {
		if outs := w.outs[drv]; len(outs) > 0 && !slices.ContainsFunc(outs, func(out string) bool { return !valid[out] }) {
			w.stopped(drv, false)
		}
	}
	for _, t := range w.b.open() {
		if valid[t.OutPath] {
			w.b.done(t)
		}
	}
}

// outputs are those of a derivation, read until they are known.
func (w *watch) outputs(drv string) []string {
	if w.outs[drv] == nil {
		w.outs[drv] = w.b.nix.outputs(drv)
	}
	return w.outs[drv]
}

// done tells of a target whose output is there, once.
func (b *build) done(t *Built) {
	if b.o.Done != nil && !b.told[t.OutPath] {
		b.told[t.OutPath] = true
		b.o.Done(t.Target, b.madeOfFetched(t))
	}
}

// madeOfFetched says whether a target, or a JSON file it was made of, was fetched: nix2container writes one for some layers, and
// one of those for an image.
func (b *build) madeOfFetched(t *Built) bool {
	if b.log.wasFetched(t.OutPath) {
		return true
	}
	d, err := b.nix.derivation(t.DrvPath)
	if err != nil {
		return !b.log.wasBuilt(t.DrvPath)
	}
	for drv := range d.InputDrvs {
		if strings.HasSuffix(drv, ".json.drv") && slices.ContainsFunc(b.nix.outputs(drv), b.log.wasFetched) {
			return true
		}
	}
	return false
}

// outputs are the output paths of a derivation in the store; none when they are not known before it is built, or when the file
// cannot be read here.
func (n *Nix) outputs(drv string) []string {
	d, err := n.derivation(drv)
	if err != nil {
		return nil
	}
	var outs []string
	for _, out := range d.Outputs {
		if out.Path == "" {
			return nil // content-addressed
		}
		outs = append(outs, out.Path)
	}
	return outs
}

func (n *Nix) derivation(drv string) (*derivation.Derivation, error) {
	text, err := os.ReadFile(n.Physical(drv))
	if err != nil {
		return nil, err
	}
	return derivation.Parse(text)
}

// graph says which derivations depend on which. Derivations are named by the last parts of their paths.
type graph struct {
	storeDir string
	inputs   map[string][]string // derivations that one is made with
	users    map[string][]string // derivations that are made with one
	images   map[string][]string // names of the images that a derivation gives
}

// graph asks the store for all that derivations, given with the names of their images, depend on. `--query --graph` prints one
// edge a line, in the same form from 2.8 on: "dependency" -> "dependent".
func (n *Nix) graph(ctx context.Context, images map[string][]string) (*graph, error) {
	g := &graph{storeDir: n.Settings.StoreDir, inputs: map[string][]string{}, users: map[string][]string{}, images: map[string][]string{}}
	for drv, names := range images {
		g.images[path.Base(drv)] = names
	}
	for part := range n.parts(slices.Sorted(maps.Keys(images))) {
		text, err := n.run(ctx, command{program: "nix-store", args: append([]string{"--query", "--graph"}, part...)})
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if m := edge.FindStringSubmatch(line); m != nil && !slices.Contains(g.inputs[m[2]], m[1]) {
				g.inputs[m[2]] = append(g.inputs[m[2]], m[1])
				g.users[m[1]] = append(g.users[m[1]], m[2])
			}
		}
	}
	return g, nil
}

var edge = regexp.MustCompile(`^"([^"]+\.drv)" -> "([^"]+\.drv)"`)

// requisites are the derivations that one depends on, and itself, as full paths in a fixed order.
func (g *graph) requisites(drv string) []string {
	all := reach(g.inputs, path.Base(drv))
	for i, name := range all {
		all[i] = g.storeDir + "/" + name
	}
	slices.Sort(all)
	return all
}

// needs are the names of the images that need a derivation, sorted, each once. Of a nil graph there are none.
func (g *graph) needs(drv string) []string {
	if g == nil {
		return nil
	}
	var names []string
	for _, user := range reach(g.users, path.Base(drv)) {
		names = append(names, g.images[user]...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// reach is what can be reached from one node, and itself.
func reach(edges map[string][]string, from string) []string {
	seen := map[string]bool{from: true}
	queue := []string{from}
	for i := 0; i < len(queue); i++ {
		for _, next := range edges[queue[i]] {
			if !seen[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		}
	}
	return queue
}

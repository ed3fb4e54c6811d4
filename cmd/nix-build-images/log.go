package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/nix"
)

const (
	heartbeat = 30 * time.Second // without any other line
	stalled   = 5 * time.Minute  // without a line of one builder
)

// buildLog tells what Nix does. In a runner each builder's output is one block of the log when it ended, folded if it ended well;
// on a terminal there is a display of what runs; and everywhere there is a sign of life when nothing was said for a while.
// Its methods may be called from several goroutines.
type buildLog struct {
	env     *action.Env
	display *display // nil: there is no terminal

	mu       sync.Mutex
	running  map[string]*transcript // by derivation
	progress nix.Progress
	spoke    time.Time // when a line was written
}

// startLog starts to tell; stop ends it.
func startLog(env *action.Env) (log *buildLog, stop func()) {
	log = &buildLog{env: env, running: map[string]*transcript{}, spoke: time.Now()}
	log.display = newDisplay(env)
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case now := <-tick.C:
				log.watch(now)
			}
		}
	}()
	return log, func() {
		close(quit)
		<-gone
		log.display.close()
	}
}

// event takes one event of the build.
func (l *buildLog) event(e nix.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := drvName(e.Path)
	switch e.Kind {
	case nix.Building:
		t := &transcript{start: time.Now(), heard: time.Now()}
		l.running[e.Path] = t
		l.display.add(e.Path, name)
	case nix.Line:
		l.running[e.Path].add(e.Text)
		l.display.line(e.Path, e.Text)
		if debug(l.env) && !l.env.InRunner() {
			l.foreign(name+"> ", e.Text)
		}
	case nix.Stopped:
		t := l.running[e.Path]
		delete(l.running, e.Path)
		l.display.remove(e.Path)
		if l.env.InRunner() {
			l.block(e, t)
		}
	case nix.Progressed:
		l.progress = e.Progress
		l.display.total(e.Progress)
	case nix.Message:
		if strings.HasPrefix(e.Text, "warning:") || debug(l.env) {
			l.foreign("nix: ", e.Text)
		}
	}
}

// block writes what a builder printed.
func (l *buildLog) block(e nix.Event, t *transcript) {
	how := "built in"
	if e.Err {
		how = "failed after"
	}
	title := fmt.Sprintf("%s: %s %.1f s", drvName(e.Path), how, e.Seconds)
	if len(e.For) > 0 {
		title += ", for " + action.Names(e.For)
	}
	l.env.Block(title, !e.Err, t.lines(e.Path))
	l.spoke = time.Now()
}

func (l *buildLog) foreign(prefix, text string) {
	w := l.env.Foreign(prefix)
	fmt.Fprintln(w, text)
	w.Close()
	l.spoke = time.Now()
}

// watch gives a sign of life, and names builders that give none.
func (l *buildLog) watch(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, drv := range slices.Sorted(maps.Keys(l.running)) {
		if t := l.running[drv]; now.Sub(t.heard) >= stalled<<t.reports {
			t.reports++ // the next one after twice the time
			said := "and nothing before"
			if t.last != "" {
				said = fmt.Sprintf("after %q", cut(t.last, 200))
			}
			l.env.Warnf("the builder of %s has printed nothing for %s, %s", drvName(drv), now.Sub(t.heard).Round(time.Second), said)
			l.spoke = now
		}
	}
	if l.display == nil && now.Sub(l.spoke) >= heartbeat {
		l.env.Infof("%s", l.status(now))
		l.spoke = now
	}
}

// status says how far the build is, and names those that have run longest.
func (l *buildLog) status(now time.Time) string {
	p := l.progress
	text := fmt.Sprintf("building: %d done, %d running", p.Done, p.Running)
	drvs := slices.SortedFunc(maps.Keys(l.running), func(a, b string) int {
		return cmp.Or(l.running[a].start.Compare(l.running[b].start), cmp.Compare(a, b))
	})
	var names []string
	for _, drv := range drvs[:min(3, len(drvs))] {
		names = append(names, fmt.Sprintf("%s %s", drvName(drv), now.Sub(l.running[drv].start).Round(time.Second)))
	}
	if len(names) > 0 && p.Running > 0 {
		text += " (" + strings.Join(names, ", ") + ")"
	}
	text += fmt.Sprintf(", %d waiting", p.Waiting)
	if p.Failed > 0 {
		text += fmt.Sprintf(", %d failed", p.Failed)
	}
	if p.ToFetch > 0 || p.Fetched > 0 {
		text += fmt.Sprintf("; %s fetched", action.Size(p.Fetched))
	}
	if p.ToFetch > p.Fetched {
		text += " of " + action.Size(p.ToFetch)
	}
	return text
}

// transcript is what one builder printed, or its first and last part.
type transcript struct {
	start, heard time.Time
	reports      int // of its silence
	last         string

	head, tail         []string
	headSize, tailSize int
	left               int // lines left out between head and tail
}

const (
	maxPart = 256 << 10 // bytes of head and of tail
	maxText = 4 << 10   // bytes of a line
)

func (t *transcript) add(line string) {
	t.heard, t.last, t.reports = time.Now(), line, 0
	line = cut(line, maxText)
	if t.tail == nil && t.headSize+len(line) <= maxPart {
		t.head, t.headSize = append(t.head, line), t.headSize+len(line)+1
		return
	}
	t.tail, t.tailSize = append(t.tail, line), t.tailSize+len(line)+1
	for t.tailSize > maxPart {
		t.tailSize -= len(t.tail[0]) + 1
		t.tail[0], t.tail = "", t.tail[1:]
		t.left++
	}
}

func (t *transcript) lines(drv string) []string {
	lines := t.head
	if t.left > 0 {
		lines = append(lines, fmt.Sprintf("[%s left out; nix log %s shows all]", action.Count(t.left, "line"), drv))
	}
	return append(lines, t.tail...)
}

// cut shortens text to so many bytes.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + fmt.Sprintf("… (%d bytes)", len(text))
}

package nix

import (
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// buildLog remembers of a build what has to be said of it, and tells of it in events. Its methods may be called from several
// goroutines; events are given one at a time.
type buildLog struct {
	activity *activityLog
	event    func(Event)
	lines    int

	mu      sync.Mutex
	builds  map[string]*builderLog // by derivation
	fetched map[string]*span       // by store path
	reasons map[string]string      // why a derivation failed, by the last part of its path
	strays  []string               // errors that name no derivation

	messages *tail // what Nix said in this run
	known    int   // reasons before this run
	whole    bool  // Nix closed this run with the list of what failed: it went through all its work
}

type span struct{ start, end time.Time }

// builderLog is one builder's time and the last lines it printed.
type builderLog struct {
	span
	over bool     // Stopped was told
	tail []string // a ring
	next int
}

// maxLogLine is how much of a line is kept, in bytes.
const maxLogLine = 2000

func newBuildLog(lines int, event func(Event)) *buildLog {
	if event == nil {
		event = func(Event) {}
	}
	l := &buildLog{messages: &tail{max: maxStderr}, event: event, lines: lines, builds: map[string]*builderLog{}, fetched: map[string]*span{}, reasons: map[string]string{}}
	l.activity = newActivityLog(l.handle)
	return l
}

// Write takes any part of Nix's log.
func (l *buildLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.activity.Write(p)
}

// handle is called by activity, that is with the lock held.
func (l *buildLog) handle(e Event) {
	switch e.Kind {
	case Building:
		if b := l.builds[e.Path]; b == nil || b.over { // built in an earlier run, and once more
			l.builds[e.Path] = &builderLog{span: span{start: time.Now()}}
		}
	case Line:
		l.builds[e.Path].add(e.Text, l.lines)
	case Stopped:
		l.builds[e.Path].end = time.Now()
		return // told by stopped: why it failed comes after this since 2.30, and this long after it before
	case Fetching:
		if l.fetched[e.Path] == nil {
			l.fetched[e.Path] = &span{start: time.Now()}
		}
	case Fetched:
		l.fetched[e.Path].end = time.Now()
	case Message:
		io.WriteString(l.messages, e.Text+"\n")
		if e.Err {
			l.fail(parseFailure(e.Text))
		}
	}
	l.event(e)
}

func (l *buildLog) fail(f failure) {
	name := path.Base(f.drv)
	switch {
	case f.summary:
		l.whole = true
	case f.dependency:
	case f.drv == "":
		l.strays = append(l.strays, f.reason)
	case l.reasons[name] == "": // the first message is the one closest to the cause
		l.reasons[name] = f.reason
	}
}

// add keeps text as one of the last n lines.
func (b *builderLog) add(text string, n int) {
	if n <= 0 {
		return
	}
	if len(text) > maxLogLine {
		text = strings.ToValidUTF8(text[:maxLogLine], "") + "…"
	}
	if len(b.tail) < n {
		b.tail = append(b.tail, text)
		return
	}
	b.tail[b.next] = text
	b.next = (b.next + 1) % n
}

// ended counts what ended so far, well or not: when it grows, there may be outputs that were not there before.
func (l *buildLog) ended() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.activity.meter.ended() + int64(len(l.reasons))
}

// running are the derivations whose end was not told.
func (l *buildLog) running() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var drvs []string
	for drv, b := range l.builds {
		if !b.over {
			drvs = append(drvs, drv)
		}
	}
	return drvs
}

// settled says of a running derivation whether it is known to have ended badly, or when Nix said that it ended: zero, not yet.
func (l *buildLog) settled(drv string) (failed bool, end time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, failed = l.reasons[path.Base(drv)]
	return failed, l.builds[drv].end
}

// stopped tells that a builder ended; appeared is when its output came into the store, zero when it did not.
func (l *buildLog) stopped(drv string, failed bool, images []string, appeared time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.builds[drv]
	if b.over = true; b.end.IsZero() {
		b.end = time.Now()
	}
	if appeared.After(b.start) && appeared.Before(b.end) {
		b.end = appeared
	}
	l.event(Event{Kind: Stopped, Path: drv, Err: failed, For: images, Seconds: b.end.Sub(b.start).Seconds()})
}

// reason is why a derivation failed.
func (l *buildLog) reason(drv string) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.reasons[path.Base(drv)]
	return r, ok
}

// say tells of something that Nix did not say.
func (l *buildLog) say(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.event(Event{Kind: Message, Text: text})
}

// forget makes a derivation one that did not fail, for another try.
func (l *buildLog) forget(drv string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.reasons, path.Base(drv))
}

// failed says whether any derivation did.
func (l *buildLog) failed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.reasons) > 0
}

// stray is the last error that names no derivation.
func (l *buildLog) stray() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.strays) == 0 {
		return ""
	}
	return l.strays[len(l.strays)-1]
}

// chance is the last error of this run that names no derivation and may not come again; empty: there was none.
func (l *buildLog) chance() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range slices.Backward(l.strays) {
		if transient.MatchString(text) {
			return text
		}
	}
	return ""
}

// begin is called before each run of Nix.
func (l *buildLog) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages, l.strays, l.whole, l.known = &tail{max: maxStderr}, nil, false, len(l.reasons)
}

// end is called after it.
func (l *buildLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.activity.Close()
}

// said is what Nix said in this run, in place of the log for machines.
func (l *buildLog) said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.messages.String()
}

// gaveUp says whether this run ended because of one derivation, with others still to do. Nix that goes through all its work
// closes with a list when more than one thing failed.
func (l *buildLog) gaveUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.whole && len(l.reasons) > l.known
}

// idle says whether nothing was started and nothing failed so far.
func (l *buildLog) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.builds)+len(l.fetched)+len(l.reasons) == 0
}

// tail are the last lines a builder printed.
func (l *buildLog) tail(drv string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.builds[drv]
	if b == nil {
		return nil
	}
	return append(append([]string(nil), b.tail[b.next:]...), b.tail[:b.next]...)
}

func (l *buildLog) wasBuilt(drv string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.builds[drv] != nil
}

func (l *buildLog) wasFetched(path string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fetched[path] != nil
}

// took is how many seconds a derivation's builder ran or, when it did not, its output was fetched. Before 2.30 Nix reports the
// end of many only when all its work is done; appeared, when the output came into the store, is closer to the truth.
func (l *buildLog) took(drv, out string, appeared time.Time) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.fetched[out]
	if b := l.builds[drv]; b != nil {
		s = &b.span
	}
	switch {
	case s == nil:
		return 0
	case appeared.After(s.start) && (s.end.IsZero() || appeared.Before(s.end)):
		return appeared.Sub(s.start).Seconds()
	case s.end.IsZero():
		return 0
	}
	return s.end.Sub(s.start).Seconds()
}

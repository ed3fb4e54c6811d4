package nix

import (
	"io"
	"path"
	"strings"
	"time"
)

// buildLog remembers of a build what has to be said of it afterwards.
type buildLog struct {
	activity *activityLog
	event    func(Event)
	lines    int

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
	tail []string // a ring
	next int
}

// maxLogLine is how much of a line is kept, in bytes.
const maxLogLine = 2000

func newBuildLog(lines int, event func(Event)) *buildLog {
	l := &buildLog{messages: &tail{max: maxStderr}, event: event, lines: lines, builds: map[string]*builderLog{}, fetched: map[string]*span{}, reasons: map[string]string{}}
	l.activity = newActivityLog(l.handle)
	return l
}

func (l *buildLog) handle(e Event) {
	switch e.Kind {
	case Building:
		if l.builds[e.Path] == nil {
			l.builds[e.Path] = &builderLog{span: span{start: time.Now()}}
		}
	case Line:
		l.builds[e.Path].add(e.Text, l.lines)
	case Stopped:
		l.builds[e.Path].end = time.Now()
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
	if l.event != nil {
		l.event(e)
	}
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

// reason is why a derivation failed.
func (l *buildLog) reason(drv string) (string, bool) {
	if r, ok := l.reasons[path.Base(drv)]; ok {
		return r, true
	}
	return "", false
}

// failed says whether any derivation did.
func (l *buildLog) failed() bool { return len(l.reasons) > 0 }

// stray is the last error that names no derivation.
func (l *buildLog) stray() string {
	if len(l.strays) == 0 {
		return ""
	}
	return l.strays[len(l.strays)-1]
}

// begin is called before each run of Nix.
func (l *buildLog) begin() {
	l.messages, l.strays, l.whole, l.known = &tail{max: maxStderr}, nil, false, len(l.reasons)
}

// gaveUp says whether this run ended because of one derivation, with others still to do. Nix that goes through all its work
// closes with a list when more than one thing failed.
func (l *buildLog) gaveUp() bool { return !l.whole && len(l.reasons) > l.known }

// idle says whether nothing was started and nothing failed so far.
func (l *buildLog) idle() bool { return len(l.builds)+len(l.fetched)+len(l.reasons) == 0 }

func (l *buildLog) tail(drv string) []string {
	b := l.builds[drv]
	if b == nil {
		return nil
	}
	return append(append([]string(nil), b.tail[b.next:]...), b.tail[:b.next]...)
}

func (l *buildLog) wasBuilt(drv string) bool    { return l.builds[drv] != nil }
func (l *buildLog) wasFetched(path string) bool { return l.fetched[path] != nil }

// took is how many seconds a derivation's builder ran or, when it did not, its output was fetched. Before 2.30 Nix reports the
// end of many only when all its work is done; appeared, when the output came into the store, is closer to the truth.
func (l *buildLog) took(drv, out string, appeared time.Time) float64 {
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

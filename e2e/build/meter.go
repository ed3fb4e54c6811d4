package build

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// meter turns the output of `go build -v` into progress: one line kept up to
// date on a terminal, elsewhere a line every 15 seconds.
type meter struct {
	out      io.Writer
	title    string
	total    int // packages, those already compiled included
	terminal bool
	start    time.Time
	stop     chan struct{}
	stopped  chan struct{}

	mu       sync.Mutex
	partial  string // unfinished line
	compiled int
	other    strings.Builder // what is not a package's name: errors
}

func newMeter(out io.Writer, title string, total int) *meter {
	m := &meter{
		out: out, title: title, total: total, terminal: isTerminal(out),
		start: time.Now(), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	fmt.Fprintf(out, "compiling %s: %d packages, several minutes if none of them was compiled before\n", title, total)
	go m.report()
	return m
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Write takes what the go tool prints.
func (m *meter) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := strings.Split(m.partial+string(p), "\n")
	m.partial = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		m.line(line)
	}
	return len(p), nil
}

func (m *meter) line(line string) {
	switch {
	case line == "" || strings.HasPrefix(line, "go: downloading "):
	case strings.ContainsAny(line, " :\t"): // no import path has these
		m.other.WriteString(line + "\n")
	default:
		m.compiled++
	}
}

func (m *meter) report() {
	defer close(m.stopped)
	interval := 15 * time.Second
	if m.terminal {
		interval = 500 * time.Millisecond
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-tick.C:
			m.print()
		}
	}
}

func (m *meter) print() {
	m.mu.Lock()
	text := fmt.Sprintf("compiling: %d of at most %d packages after %s", m.compiled, m.total, m.elapsed())
	m.mu.Unlock()
	if m.terminal {
		fmt.Fprintf(m.out, "\r\x1b[K%s", text)
		return
	}
	fmt.Fprintln(m.out, text)
}

func (m *meter) elapsed() time.Duration { return time.Since(m.start).Round(time.Second) }

// finish ends the report and returns what the go tool printed besides names.
func (m *meter) finish(ok bool) string {
	close(m.stop)
	<-m.stopped
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.partial != "" {
		m.line(m.partial)
	}
	if m.terminal {
		fmt.Fprint(m.out, "\r\x1b[K")
	}
	if ok {
		fmt.Fprintf(m.out, "compiled %d packages in %s\n", m.compiled, m.elapsed())
	}
	return m.other.String()
}

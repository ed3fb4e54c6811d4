package nix

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Event is one thing that Nix reports while it builds or fetches.
type Event struct {
	Kind     EventKind
	Path     string   // derivation that is built, store path that is fetched; empty for a message that belongs to none
	Text     string   // Line: one line of a builder's output. Message: what Nix says, without colours; it may have several lines
	From     string   // Fetching, Fetched: the cache
	Err      bool     // Message: an error. Stopped: it failed
	Seconds  float64  // Stopped: the builder ran
	For      []string // Stopped: names of the images that need the derivation
	Progress Progress // Progressed
}

// Progress is how far Nix is with all its work, dependencies included.
type Progress struct {
	Done, Failed, Running, Waiting int   // derivations; Waiting grows as Nix finds out what there is to do
	Fetched, ToFetch               int64 // bytes, as they come over the network where there is one; ToFetch is 0 when not known
}

// EventKind says what an Event is.
type EventKind int

// The kinds of events.
const (
	Building   EventKind = iota // a derivation's builder starts
	Line                        // it prints a line
	Stopped                     // it ended; comes once for each Building, within a second
	Fetching                    // a store path is fetched from a cache
	Fetched                     // that ended; before 2.30 it may come late, at the latest when everything is done
	Message                     // Nix says something
	Progressed                  // the counts are others than before
)

// Numbers of the activities and results that matter here, the same from 2.8 to 2.35 and in Lix.
const (
	activityCopyPath   = 100
	activityTransfer   = 101
	activityFetches    = 103
	activityBuilds     = 104
	activityBuild      = 105
	activitySubstitute = 108
	resultBuildLog     = 101
	resultProgress     = 105
	resultExpected     = 106
	resultPostBuildLog = 107
)

// maxActivityLine is where a line is given up: a builder may print megabytes without a line feed, and each byte of it can take six
// in JSON.
const maxActivityLine = 16 << 20

// activityLog reads what Nix prints under --log-format internal-json and gives an event for each thing of interest. It is an
// io.Writer. Lines that are none of that format, as programs that Nix starts print them, are messages.
type activityLog struct {
	event func(Event)

	line    []byte
	skip    bool // the rest of an endless line
	running map[uint64]Event
	meter   meter
}

func newActivityLog(event func(Event)) *activityLog {
	return &activityLog{event: event, running: map[uint64]Event{}, meter: newMeter()}
}

// Write takes any part of the log.
func (a *activityLog) Write(p []byte) (int, error) {
	n := len(p)
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			a.keep(p)
			return n, nil
		}
		if len(a.line) == 0 && !a.skip {
			a.read(p[:end])
		} else {
			a.keep(p[:end])
			a.Close()
		}
		p = p[end+1:]
	}
}

func (a *activityLog) keep(p []byte) {
	if a.skip {
		return
	}
	if len(a.line)+len(p) > maxActivityLine {
		a.line, a.skip = a.line[:0], true
		a.event(Event{Kind: Message, Text: "a line of more than 16 MiB is left out"})
		return
	}
	a.line = append(a.line, p...)
}

// Close ends the last line, if it has no line feed.
func (a *activityLog) Close() error {
	if len(a.line) > 0 {
		a.read(a.line)
	}
	a.line, a.skip = a.line[:0], false
	return nil
}

// read takes one line without its line feed.
func (a *activityLog) read(line []byte) {
	text, ok := bytes.CutPrefix(line, []byte("@nix "))
	var m struct {
		Action string            `json:"action"`
		ID     uint64            `json:"id"`
		Type   int               `json:"type"`
		Level  int               `json:"level"`
		Msg    string            `json:"msg"`
		Fields []json.RawMessage `json:"fields"`
	}
	if !ok || json.Unmarshal(text, &m) != nil {
		if text := strings.TrimRight(plain(strings.ToValidUTF8(string(line), "\ufffd")), "\r "); text != "" {
			a.event(Event{Kind: Message, Text: text, Err: isErrorText(text)})
		}
		return
	}
	field := func(i int) string {
		var s string
		if i < len(m.Fields) {
			json.Unmarshal(m.Fields[i], &s) // a field that is a number is none of those read here
		}
		return s
	}
	number := func(i int) int64 {
		var n int64
		if i < len(m.Fields) {
			json.Unmarshal(m.Fields[i], &n)
		}
		return n
	}
	switch {
	case m.Action == "msg":
		text := plain(m.Msg)
		a.event(Event{Kind: Message, Text: text, Err: m.Level == 0 && isErrorText(text)})
	case m.Action == "start" && m.Type == activityBuild:
		a.start(m.ID, Event{Kind: Building, Path: field(0)})
	case m.Action == "start" && m.Type == activitySubstitute:
		a.start(m.ID, Event{Kind: Fetching, Path: field(0), From: field(1)})
	case m.Action == "start":
		a.meter.start(m.ID, m.Type)
	case m.Action == "result" && m.Type == resultProgress && a.meter.progress(m.ID, [3]int64{number(0), number(1), number(2)}, number(3)),
		m.Action == "result" && m.Type == resultExpected && number(0) == activityTransfer && a.meter.expect(m.ID, number(1)):
		a.event(Event{Kind: Progressed, Progress: a.meter.now()})
	case m.Action == "result" && (m.Type == resultBuildLog || m.Type == resultPostBuildLog):
		if e, known := a.running[m.ID]; known {
			a.event(Event{Kind: Line, Path: e.Path, Text: plain(field(0))})
		}
	case m.Action == "stop":
		a.meter.stop(m.ID)
		if e, known := a.running[m.ID]; known {
			delete(a.running, m.ID)
			e.Kind = map[EventKind]EventKind{Building: Stopped, Fetching: Fetched}[e.Kind]
			a.event(e)
		}
	}
}

func (a *activityLog) start(id uint64, e Event) {
	a.running[id] = e
	a.event(e)
}

func isErrorText(text string) bool { return strings.HasPrefix(strings.TrimSpace(text), "error:") }

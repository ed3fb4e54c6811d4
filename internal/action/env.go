package action

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/sethvargo/go-githubactions"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/inert"
)

// Env is one run of an action: its inputs and the ways to say something. It may be used from several goroutines.
type Env struct {
	Process
	spec   Spec
	values map[string]string
	sdk    *githubactions.Action
	runner bool // outputs go to the runner's file, and the log is a command channel

	table, details string           // of the summary
	written        handoff.Document // the result; nil: none was written
	failures       []*Failure       // in the order they were reported
	secrets        []string         // lines that are masked

	mu    sync.Mutex
	log   io.Writer
	token string // commands are stopped until this token is written; empty: they are not
}

func newEnv(p Process, spec Spec, values map[string]string) *Env {
	e := &Env{Process: p, spec: spec, values: values, log: p.Stderr, runner: p.Getenv("GITHUB_OUTPUT") != ""}
	if e.runner {
		e.log = p.Stdout // runners read commands from standard output; one stream keeps the order
	}
	e.sdk = githubactions.New(githubactions.WithWriter(e.log), githubactions.WithGetenv(p.Getenv))
	for _, in := range spec.All() {
		if in.Secret {
			e.Mask(values[in.Name])
		}
	}
	return e
}

// InRunner says whether an actions runner, and not a person, started the process.
func (e *Env) InRunner() bool { return e.runner }

// command writes a workflow command, if there is a runner to read it.
func (e *Env) command(name, message string) {
	if !e.runner {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.resume()
	e.sdk.IssueCommand(&githubactions.Command{Name: name, Message: message})
}

// Mask keeps text out of the log from now on. Runners mask single lines only, so each line is masked on its own.
func (e *Env) Mask(secret string) {
	for line := range strings.Lines(secret) {
		if line = strings.TrimSpace(line); len(line) > 1 { // runners ignore masks of one character
			e.mu.Lock()
			e.secrets = append(e.secrets, line)
			e.mu.Unlock()
			e.command("add-mask", line)
		}
	}
}

// Through sends the log through w until restore is called: something that draws on the same terminal.
func (e *Env) Through(w io.Writer) (restore func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.log
	e.log = w
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.log = before
	}
}

// Group opens a folded part of the log; the returned function ends it. Runners do not nest groups.
func (e *Env) Group(title string) (end func()) {
	if !e.runner {
		e.print(title)
		return func() {}
	}
	e.command("group", Clean(title))
	return func() { e.command("endgroup", "") }
}

// Infof writes one line to the log. Text from outside goes through arguments; control characters and runner commands in it
// are made harmless.
func (e *Env) Infof(format string, args ...any) { e.print(fmt.Sprintf(format, args...)) }

// Warnf is Infof for what a person should look at.
func (e *Env) Warnf(format string, args ...any) {
	e.print(e.spec.Name + ": warning: " + fmt.Sprintf(format, args...))
}

// Debugf is Infof for log-level debug, or a runner that was asked to debug.
func (e *Env) Debugf(format string, args ...any) {
	if e.values["log-level"] == "debug" || e.Getenv("RUNNER_DEBUG") == "1" {
		e.print("debug: " + fmt.Sprintf(format, args...))
	}
}

// print writes text, of one or several lines.
func (e *Env) print(text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.resume()
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		fmt.Fprintln(e.log, Clean(line))
	}
}

// report writes a failure: what the failing tool said, then one error: and one hint: line. On GitHub it is an annotation too.
func (e *Env) report(f *Failure) {
	e.failures = append(e.failures, f)
	if f.Detail != "" {
		w := e.Foreign("  | ")
		io.WriteString(w, strings.TrimRight(f.Detail, "\n")+"\n")
		w.Close()
	}
	message := inert.OneLine(f.Err.Error())
	e.print(e.spec.Name + ": error: " + message)
	if f.Hint != "" {
		e.print(e.spec.Name + ": hint: " + inert.OneLine(f.Hint))
	}
	if e.annotates() {
		e.command("error", Clean(message))
	}
}

// annotates says whether an annotation is more than a line of the log. Gitea, Forgejo and act show it as one more of those, which would
// only repeat what was said.
func (e *Env) annotates() bool {
	return e.Getenv("GITHUB_ACTIONS") == "true" && e.Getenv("GITEA_ACTIONS") == "" && e.Getenv("FORGEJO_ACTIONS") == "" && e.Getenv("ACT") == ""
}

// Foreign returns a writer for what a child process or a server prints: each line gets the prefix, and runner commands are
// stopped with a random token while it is written. Lines of Env's other methods may come in between. Writers may be used at
// the same time; each keeps its unfinished line to itself until Close.
func (e *Env) Foreign(prefix string) io.WriteCloser { return &foreign{env: e, prefix: prefix} }

type foreign struct {
	env    *Env
	prefix string
	mu     sync.Mutex
	rest   []byte
}

// maxLine is where an endless line is broken: runners choke on longer ones.
const maxLine = 32 << 10

func (f *foreign) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rest = append(f.rest, p...)
	for {
		end := bytes.IndexByte(f.rest, '\n')
		switch {
		case end >= 0:
			f.env.printForeign(f.prefix, string(f.rest[:end]))
			f.rest = f.rest[end+1:]
		case len(f.rest) > maxLine:
			f.env.printForeign(f.prefix, string(f.rest[:maxLine]))
			f.rest = f.rest[maxLine:]
		default:
			return len(p), nil
		}
	}
}

func (f *foreign) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.rest) > 0 {
		f.env.printForeign(f.prefix, string(f.rest))
		f.rest = nil
	}
	f.env.EndForeign()
	return nil
}

// Block writes what a child process printed under a title, with nothing in between. A folded one is a group of the log, if
// there is a runner and anything to fold.
func (e *Env) Block(title string, folded bool, lines []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.resume()
	group := e.runner && folded && len(lines) > 0
	if group {
		e.sdk.IssueCommand(&githubactions.Command{Name: "group", Message: Clean(title)})
	} else {
		fmt.Fprintln(e.log, Clean(title))
	}
	for _, line := range lines {
		e.writeForeign("  ", line)
	}
	e.resume()
	if group {
		e.sdk.IssueCommand(&githubactions.Command{Name: "endgroup"})
	}
}

func (e *Env) printForeign(prefix, line string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.writeForeign(prefix, line)
}

// writeForeign is printForeign for callers that hold the lock.
func (e *Env) writeForeign(prefix, line string) {
	if e.runner && e.token == "" {
		e.token = "flakeship-" + rand.Text()
		e.sdk.IssueCommand(&githubactions.Command{Name: "stop-commands", Message: e.token})
	}
	fmt.Fprintln(e.log, prefix+Clean(strings.TrimSuffix(line, "\r")))
}

// EndForeign lets the runner read commands again.
func (e *Env) EndForeign() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.resume()
}

// resume is EndForeign for callers that hold the lock.
func (e *Env) resume() {
	if e.token != "" {
		fmt.Fprintf(e.log, "::%s::\n", e.token)
		e.token = ""
	}
}

// Clean makes one line of text from outside harmless, see package inert.
func Clean(line string) string { return inert.Line(line) }

package nix

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// CommandError is a nix command that failed.
type CommandError struct {
	Command string // what was run, without arguments: "nix flake metadata"
	Code    int    // exit code; -1 when a signal ended it
	Stderr  string // the last of what it printed, without colours
}

func (e *CommandError) Error() string {
	s := fmt.Sprintf("%s failed with exit code %d", e.Command, e.Code)
	if c := e.Cause(); c != "" {
		s += ": " + c
	}
	return s
}

// Message is Nix's own error message: all lines from the first that begins with "error:". Empty when there is none.
func (e *CommandError) Message() string {
	at := strings.Index("\n"+e.Stderr, "\nerror:")
	if at < 0 {
		return strings.TrimSpace(e.Stderr)
	}
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(e.Stderr[at:]), "\n") {
		if !strings.Contains(line, "--show-trace") { // advice about a flag nobody can pass here
			lines = append(lines, line)
		}
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// Cause is the one line of Message that says what went wrong. Since 2.19 the trace comes first and the cause is the last
// line that begins with "error:".
func (e *CommandError) Cause() string {
	message := e.Message()
	cause, _, _ := strings.Cut(message, "\n")
	for line := range strings.SplitSeq(message, "\n") {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "error:"); ok && strings.TrimSpace(rest) != "" {
			cause = rest
		}
	}
	return strings.TrimSpace(strings.TrimPrefix(cause, "error:"))
}

func isCommandError(err error) bool { return errors.As(err, new(*CommandError)) }

// commandMessage is Nix's own message in the *CommandError that err is.
func commandMessage(err error) string {
	var c *CommandError
	errors.As(err, &c)
	return c.Message()
}

// command is one run of nix.
type command struct {
	program string // instead of nix: nix-store
	args    []string
	env     []string   // added to the Nix's own
	stderr  io.Writer  // instead of the log
	files   []*os.File // open in it as 3, 4, ...
	bare    bool       // without the feature flags, for `nix --version`
	kill    bool       // when ctx ends, at once: it has nothing to stop or unlock
	started func(pid int)
	lines   func(line []byte) bool // gets each line of standard error, and says whether it was meant for it: then nobody else gets it
}

// maxStderr is how much of the end of standard error an error keeps: an evaluation's trace has a few kilobytes.
const maxStderr = 64 << 10

// grace is how long nix has to stop its builders and unlock its store after SIGTERM; then it is killed.
const grace = 20 * time.Second

// run executes nix and returns what it wrote to standard output, once it exited with 0. When ctx ends, nix and all it
// started are stopped.
//
// Errors: *CommandError, ctx.Err().
func (n *Nix) run(ctx context.Context, c command) ([]byte, error) {
	args := c.args
	if !c.bare && c.program == "" {
		// Both features are experimental in every release so far, and off unless nix.conf says otherwise.
		args = append([]string{"--extra-experimental-features", "nix-command flakes"}, args...)
	}
	var stdout bytes.Buffer
	tail := tail{max: maxStderr}
	cmd := exec.CommandContext(ctx, n.program(c.program), args...)
	cmd.Dir = n.dir
	cmd.Env = append(append([]string(nil), n.env...), c.env...)
	cmd.Stdout = &stdout
	cmd.ExtraFiles = c.files
	var log io.Writer = n.log
	if c.stderr != nil {
		log = c.stderr
	}
	cmd.Stderr = io.MultiWriter(&tail, log)
	var split *lineWriter
	if c.lines != nil {
		split = &lineWriter{take: c.lines, rest: cmd.Stderr}
		cmd.Stderr = split
	}
	cmd.SysProcAttr = group()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ended := make(chan struct{})
	cmd.Cancel = func() error {
		if c.kill {
			return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		go stop(cmd.Process.Pid, ended)
		return nil
	}
	cmd.WaitDelay = grace
	adopt()
	err := cmd.Start()
	if err == nil {
		if c.started != nil {
			c.started(cmd.Process.Pid)
		}
		err = cmd.Wait()
	}
	close(ended)
	if split != nil {
		split.flush()
	}
	if cmd.Process != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whatever outlived it; the usual answer is that there is nothing
	}
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		killOrphans()
		return nil, ctx.Err()
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return nil, fmt.Errorf("run nix: %w", err)
	}
	return nil, &CommandError{Command: verb(c), Code: exit.ExitCode(), Stderr: plain(tail.String())}
}

// stop asks a process group to end, again and again: Nix misses a signal that comes between its check for one and the wait
// for its builders, and notices the next.
func stop(pid int, ended <-chan struct{}) {
	for {
		syscall.Kill(-pid, syscall.SIGTERM)
		select {
		case <-ended:
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// program is the path of a program of Nix: all of them are in one folder.
func (n *Nix) program(name string) string {
	if name == "" {
		return n.path
	}
	if beside := filepath.Join(filepath.Dir(n.path), name); fileExists(beside) {
		return beside
	}
	return name // exec finds it on PATH, or says that it is not there
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// verb names a command in error messages: "nix flake metadata", "nix-store --realise".
func verb(c command) string {
	words := c.args[:min(1, len(c.args))]
	if len(c.args) > 1 && slices.Contains([]string{"flake", "store", "config"}, c.args[0]) {
		words = c.args[:2]
	}
	return strings.Join(append([]string{cmp.Or(c.program, "nix")}, words...), " ")
}

var colours = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

// plain removes colours: Nix puts them into messages even when it does not write to a terminal.
func plain(text string) string { return colours.ReplaceAllString(text, "") }

// lineWriter takes whole lines out of what is written to it.
type lineWriter struct {
	take func(line []byte) bool
	rest io.Writer // gets the lines that take does not want
	line []byte    // the beginning of one
}

func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		line, after, whole := bytes.Cut(p, []byte("\n"))
		w.line = append(w.line, line...)
		if !whole {
			return n, nil
		}
		if !w.take(w.line) {
			w.rest.Write(append(w.line, '\n')) // a log that fails does not stop Nix
		}
		w.line, p = w.line[:0], after
	}
}

func (w *lineWriter) flush() {
	if len(w.line) > 0 {
		w.rest.Write(w.line)
	}
}

// tail keeps the last max bytes that were written to it.
type tail struct {
	max int
	buf []byte
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*t.max { // twice, so that bytes are moved rarely
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.max:]...)
		t.cut = true
	}
	return len(p), nil
}

func (t *tail) String() string {
	b := t.buf
	if len(b) > t.max {
		b, t.cut = b[len(b)-t.max:], true
	}
	if t.cut { // begin with a whole line
		if _, rest, ok := bytes.Cut(b, []byte("\n")); ok {
			b = rest
		}
	}
	return strings.ToValidUTF8(string(b), "\ufffd")
}

package action

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
)

// Version and Commit are the release this binary belongs to and the source it was built from; the release build sets them.
var Version, Commit = "dev", ""

// Code is a process's exit code; the four binaries share them.
type Code int

// The exit codes.
const (
	Done          Code = 0
	Failed        Code = 1
	BadInput      Code = 2
	Denied        Code = 3 // credentials, RBAC, trust
	Conflict      Code = 4 // stale hand-over, field ownership
	RolloutFailed Code = 5
	TimedOut      Code = 6
	Cancelled     Code = 130
)

// Failure is an error a person can act on: it ends as one error: line and one hint: line.
type Failure struct {
	Code   Code
	Err    error  // what happened, to what, the cause
	Hint   string // what to do
	Detail string // the failing tool's own words, any number of lines, shown above the error line
}

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

// Fail makes a Failure. The hint is a format.
func Fail(code Code, err error, hint string, args ...any) *Failure {
	return &Failure{Code: code, Err: err, Hint: fmt.Sprintf(hint, args...)}
}

// Process is what a binary touches of its surroundings.
type Process struct {
	Args           []string // without the program's name
	Getenv         func(string) string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// OS is the real process.
func OS() Process {
	return Process{Args: os.Args[1:], Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
}

// Exit is the whole main function of a binary: Main on the real process, with a cancellation ending run's context. That is
// SIGINT, SIGTERM or, unless nohup has it ignored, SIGHUP, which a step on a terminal of the runner's gets; and in a runner the
// end of the step's shell.
func Exit(spec Spec, run func(context.Context, *Env) error) {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	if os.Getenv("GITHUB_OUTPUT") != "" {
		endWithParent()
	}
	code := Main(ctx, OS(), spec, run)
	stop()
	os.Exit(code)
}

// Main reads the inputs spec declares, calls run, prints what went wrong and returns the exit code.
//
// All bad inputs are reported together before run is called. When spec has an input "timeout", run's context ends after it.
// run may return several failures as errors.Join; each is printed. A context that ended makes the code Cancelled or
// TimedOut, unless run's failure has a code of its own.
func Main(ctx context.Context, p Process, spec Spec, run func(context.Context, *Env) error) int {
	if slices.ContainsFunc(p.Args, func(a string) bool { return a == "--help" || a == "-help" || a == "-h" }) {
		fmt.Fprint(p.Stdout, Usage(spec))
		return int(Done)
	}
	if slices.ContainsFunc(p.Args, func(a string) bool { return a == "--version" || a == "-version" }) {
		fmt.Fprintln(p.Stdout, version(spec.Name))
		return int(Done)
	}
	values, problems := parseInputs(spec, p.Args, p.Getenv)
	env := newEnv(p, spec, values)
	problems = append(problems, env.checkWritable()...)
	if len(problems) > 0 {
		env.printPipeline(true)
		for _, problem := range problems {
			env.report(Fail(BadInput, problem, "see %s --help, or actions/%s/README.md", spec.Name, spec.Name))
		}
		env.writeSummary(BadInput)
		return int(BadInput)
	}
	ctx = context.WithValue(ctx, untimed{}, ctx)
	if timeout, ok := values["timeout"]; ok && timeout != "" {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, env.Duration("timeout"))
		defer stop()
	}
	err := run(ctx, env)
	env.EndForeign()
	env.printPipeline(err != nil)
	code := Done
	if err != nil {
		code = env.reportAll(ctx, err)
	}
	env.writeSummary(code)
	return int(code)
}

type untimed struct{}

// Untimed is run's context without the input "timeout": it ends with the process. What has to be put right when the time is
// over is done in it, with a limit of its own.
func Untimed(ctx context.Context) context.Context {
	if base, ok := ctx.Value(untimed{}).(context.Context); ok {
		return base
	}
	return ctx
}

// reportAll prints each failure in err and picks the exit code: the first failure's.
func (e *Env) reportAll(ctx context.Context, err error) Code {
	code := Done
	for _, one := range Split(err) {
		var f *Failure
		if !errors.As(one, &f) {
			f = e.asFailure(ctx, one)
		}
		e.report(f)
		if code == Done {
			code = f.Code
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return Cancelled
	}
	return code
}

func (e *Env) asFailure(ctx context.Context, err error) *Failure {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return Fail(Cancelled, fmt.Errorf("cancelled: %w", err), "run it again: what was finished is kept")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return Fail(TimedOut, fmt.Errorf("timed out after %s: %w", e.values["timeout"], err), "run it again, or give a longer timeout")
	}
	return Fail(Failed, err, "run it again with log-level: debug to see each step")
}

// Split takes errors.Join apart, down to single errors; of nil there are none.
func Split(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, one := range joined.Unwrap() {
			all = append(all, Split(one)...)
		}
		return all
	}
	return []error{err}
}

// Usage is the text of --help.
func Usage(spec Spec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\nusage: %s [--input value ...]\n\nEvery input is also read from INPUT_NAME in the environment; a flag wins.\n\ninputs:\n", spec.Name, spec.Summary, spec.Name)
	for _, in := range spec.All() {
		fmt.Fprintf(&b, "  --%-22s %s%s\n", in.Name, in.Help, note(in))
	}
	b.WriteString("\noutputs:\n")
	for _, out := range spec.Outputs {
		fmt.Fprintf(&b, "  %-24s %s\n", out.Name, out.Help)
	}
	b.WriteString("\nexit codes: 0 done, 1 failed, 2 bad input, 3 denied, 4 conflict, 5 rollout failed, 6 timed out, 130 cancelled\n")
	return b.String()
}

// note says in brackets what an input's help does not: choices, default, whether it is required.
func note(in Input) string {
	var notes []string
	if in.Required {
		notes = append(notes, "required")
	}
	if len(in.Choices) > 0 {
		notes = append(notes, strings.Join(in.Choices, " or "))
	}
	if in.Default != "" {
		notes = append(notes, "default "+in.Default)
	} else if in.Says != "" {
		notes = append(notes, "default: "+in.Says)
	}
	if len(notes) == 0 {
		return ""
	}
	return " (" + strings.Join(notes, "; ") + ")"
}

func version(name string) string {
	commit := cmp.Or(Commit, "unknown")
	if info, ok := debug.ReadBuildInfo(); ok && Commit == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	return fmt.Sprintf("%s %s (commit %s, %s, %s/%s)", name, Version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

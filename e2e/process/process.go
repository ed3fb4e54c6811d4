// Package process starts the test services and takes them down again, so that
// none outlives its parent: not when the parent stops it, and not when the
// parent is killed without a chance to.
//
// It needs Linux, whose kernel kills a child when its parent dies.
package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say what to start.
type Options struct {
	Name string   // of the process, in errors and of its log file
	Path string   // of the program
	Args []string // without the program's name
	Env  []string // as in exec.Cmd; nil is the parent's
	Dir  string   // working directory; empty is the parent's
	// LogDir receives Name.log with both output streams; a process started
	// again under the same name appends to it.
	LogDir string
	// Stdin is read by the process; nil is empty input.
	Stdin io.Reader
	// Stdout receives standard output instead of the log; nil means the log.
	Stdout io.Writer
	// DeathSignal is what the process gets when its parent dies; zero means SIGKILL.
	DeathSignal syscall.Signal
}

// Process is a running or finished process. Its methods may be called from
// several goroutines.
type Process struct {
	Name    string
	LogFile string

	cmd  *exec.Cmd
	done chan struct{} // closed once the process was waited for
	err  error         // of Wait; read after done

	stopping sync.Once
}

// Start starts a process in a group of its own.
func Start(o Options) (*Process, error) {
	if err := os.MkdirAll(o.LogDir, 0o755); err != nil {
		return nil, err
	}
	logFile := filepath.Join(o.LogDir, o.Name+".log")
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own copy

	cmd := exec.Command(o.Path, o.Args...)
	cmd.Env, cmd.Dir, cmd.Stdin = o.Env, o.Dir, o.Stdin
	cmd.Stdout, cmd.Stderr = log, log
	if o.Stdout != nil {
		cmd.Stdout = o.Stdout
	}
	deathSignal := o.DeathSignal
	if deathSignal == 0 {
		deathSignal = syscall.SIGKILL
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: deathSignal}
	// A grandchild that holds standard output open must not hold up Wait.
	cmd.WaitDelay = 5 * time.Second
	if err := startOnLastingThread(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}

	p := &Process{Name: o.Name, LogFile: logFile, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// starts hands commands to the one thread that starts them all. The kernel's
// "parent died" means the thread that forked, and Go ends threads as it likes.
var starts = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
})

func startOnLastingThread(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	starts() <- func() { result <- cmd.Start() }
	return <-result
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID is the process's id, which is also that of its group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Wait waits for the end and returns what exec.Cmd.Wait does: an
// *exec.ExitError when the process failed.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Signal sends a signal to the process alone.
func (p *Process) Signal(s syscall.Signal) error {
	return p.cmd.Process.Signal(s)
}

// Stop asks the process to end with SIGTERM and, after grace, kills its whole
// group. It returns once nothing of it is left. How the process exited is no error.
func (p *Process) Stop(grace time.Duration) {
	p.stopping.Do(func() {
		_ = p.Signal(syscall.SIGTERM) // already ended: Wait below returns at once
		select {
		case <-p.done:
		case <-time.After(grace):
		}
		// A kill is carried out a little after it is sent. The dead stay in the
		// group until init has waited for them, so patience has an end.
		for range 100 {
			if err := syscall.Kill(-p.PID(), syscall.SIGKILL); err == syscall.ESRCH {
				break // nothing is left
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	<-p.done
}

// Failed is the error to report when the process ended before it was of use:
// how it ended, and the last lines it wrote.
func (p *Process) Failed() error {
	<-p.done
	how := "exited"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s: %s; the end of %s:\n%s", p.Name, how, p.LogFile, p.Tail(20))
}

// Tail returns the last lines of the log, each indented by four blanks.
func (p *Process) Tail(lines int) string {
	const most = 64 << 10
	f, err := os.Open(p.LogFile)
	if err != nil {
		return "    " + err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	text, err := io.ReadAll(f)
	if err != nil && !errors.Is(err, io.EOF) {
		return "    " + err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "    " + strings.Join(all, "\n    ")
}

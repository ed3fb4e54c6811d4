package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Supervise runs the command in args and, when that ends or a signal tells this
// process to stop, kills every process the command left behind, however they detached
// themselves. The runners start each step in a group or session of its own and
// do not reach a step's grandchildren when they are cancelled; a build or push
// that runs on would disturb the next test.
//
// It is the whole work of a process, whose parent gives it SIGTERM as the
// signal of its own death (Options.DeathSignal), and returns its exit code.
func Supervise(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: services supervise program [arguments]")
		return 2
	}
	// Orphans of the command become children of this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "services supervise: become subreaper:", err)
		return 1
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, CancelByTerm)

	runtime.LockOSThread() // Pdeathsig is about the thread that started the child
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "services supervise:", err)
		return 1
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()

	var err error
	select {
	case err = <-done:
	case s := <-signals:
		if s == os.Interrupt || s == CancelByTerm {
			err = cancelled(cmd, s == os.Interrupt, done)
			break
		}
		// Each step has a moment to clean up: its shell does not pass the signal on.
		for _, pid := range descendants(os.Getpid()) {
			_ = syscall.Kill(pid, s.(syscall.Signal))
		}
		select {
		case err = <-done:
		case <-time.After(3 * time.Second):
			err = errors.New("killed after a stop signal")
		}
	}
	killDescendants()

	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	default:
		fmt.Fprintln(os.Stderr, "services supervise:", err)
		return 1
	}
}

// CancelByTerm makes Supervise cancel the command with SIGTERM as an interrupt makes it with an interrupt.
const CancelByTerm = syscall.SIGUSR1

// cancelled signals the command alone, as a person or a service manager does, and waits for its end and that of everything it
// started. What stays is named on standard error.
func cancelled(cmd *exec.Cmd, interrupt bool, done <-chan error) error {
	signal := os.Signal(syscall.SIGTERM)
	if interrupt {
		signal = os.Interrupt
	}
	_ = cmd.Process.Signal(signal) // it has ended: done says how
	deadline := time.Now().Add(30 * time.Second)
	var err error
	select {
	case err = <-done:
	case <-time.After(time.Until(deadline)):
		err = errors.New("killed half a minute after it was told to stop")
	}
	left := descendants(os.Getpid())
	for len(left) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
		left = descendants(os.Getpid())
	}
	for _, pid := range left {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // gone: it has just ended
		fmt.Fprintf(os.Stderr, "services supervise: left running: %d %q\n", pid, args)
	}
	return err
}

// killDescendants repeats until a look at the process table finds none: a
// process may fork between being listed and being killed.
func killDescendants() {
	for range 50 {
		pids := descendants(os.Getpid())
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(10 * time.Millisecond)
		// The dead were adopted, so they are ours to bury; who looks for one by
		// its id would find it until then.
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

// descendants lists the processes below root, unless they are dead and only not
// yet waited for.
func descendants(root int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	zombie := map[int]bool{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has just ended
		}
		// "pid (name) state ppid ...": a name may hold blanks and brackets.
		_, rest, ok := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 {
			continue
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			continue
		}
		children[parent] = append(children[parent], pid)
		zombie[pid] = fields[0] == "Z"
	}
	var found []int
	for queue := children[root]; len(queue) > 0; queue = queue[1:] {
		if !zombie[queue[0]] {
			found = append(found, queue[0])
		}
		queue = append(queue, children[queue[0]]...)
	}
	return found
}

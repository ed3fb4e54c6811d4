package action

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// endWithParent makes the death of the parent process, the step's shell, a SIGTERM to this one. Runners cancel a step in host
// mode by killing its shell (Gitea's runner 1.0.8, act 0.2.89) or by telling it alone (GitHub's), and a shell does not pass that
// on: what it started would run to its end, with nobody who sees the log.
func endWithParent() {
	parent := os.Getppid()
	// The setting is this thread's, and Go ends no thread that nothing is locked to.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0); err != nil {
		return // it runs on, as it does on other systems
	}
	if os.Getppid() != parent { // it died in between
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}
}

package nix

import "syscall"

// group puts a child process into a process group of its own: a terminal's Ctrl-C must not reach nix before us, and git, ssh and
// build hooks end with it. When this process is killed, nix gets SIGTERM; the thread that starts it has to stay for that.
func group() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

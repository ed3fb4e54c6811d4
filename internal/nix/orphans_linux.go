package nix

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// adopt makes this process the parent of those whose own has ended, from now on.
var adopt = sync.OnceFunc(func() {
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // an old kernel's init adopts them instead
})

// killOrphans ends the builders that a cancelled nix has left behind: it was killed, or cancelled in the moment in which it
// started one. A builder is in a session of its own, what this process starts in its own.
func killOrphans() {
	own, err := unix.Getsid(0)
	if err != nil {
		return
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is a good one
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// proc(5): pid (command) state parent group session …; the command may hold anything.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) < 4 || string(fields[1]) != strconv.Itoa(os.Getpid()) || string(fields[3]) == strconv.Itoa(own) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue
		}
		syscall.Kill(-pid, syscall.SIGKILL) // a session's first process leads its group as well
		syscall.Kill(pid, syscall.SIGKILL)
		syscall.Wait4(pid, nil, 0, nil)
	}
}

package deployset

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// pulse tells other processes on this machine that this one lives: a file in the temporary folder that is locked for as long as
// it does, however it ends. A waiting run that finds the file of a holder's token unlocked knows that the holder has died. No
// file says nothing: the holder may be elsewhere, or in a container with a temporary folder of its own.
type pulse struct{ file *os.File }

const tokenLength = 12

var validToken = regexp.MustCompile(`^[a-z2-7]{12}$`)

func pulsePath(token string) string { return filepath.Join(os.TempDir(), "flakeship-lock-"+token) }

// startPulse is called before the token is known to anybody else. It is nil where there is no such folder.
func startPulse(token string) *pulse {
	f, err := os.OpenFile(pulsePath(token), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil
	}
	p := &pulse{f}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		p.end()
		return nil
	}
	if _, err := f.WriteString(bootID()); err != nil {
		p.end()
		return nil
	}
	return p
}

func (p *pulse) end() {
	if p != nil {
		os.Remove(p.file.Name()) //nolint:errcheck // a leftover misleads nobody: the token is not used again
		p.file.Close()
	}
}

// isGone says whether the process with this token is known to have ended. A file of another user proves nothing, nor does one of
// another machine, with which the folder may be shared without its locks.
func isGone(token string) bool {
	if !validToken.MatchString(token) { // it comes from the cluster
		return false
	}
	f, err := os.OpenFile(pulsePath(token), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
		return false
	}
	boot, err := io.ReadAll(io.LimitReader(f, 1<<10))
	return err == nil && string(boot) == bootID() && syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil
}

// forgetPulse removes what a holder that died has left on this machine, if anything.
func forgetPulse(token string) {
	if isGone(token) {
		os.Remove(pulsePath(token)) //nolint:errcheck // as in end
	}
}

// bootID tells machines apart, and what they ran before they were last started; empty where the system has none.
func bootID() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text))
}

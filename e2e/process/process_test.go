package process_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flakeship/flakeship/e2e/process"
)

func shell(t *testing.T, script string) *process.Process {
	t.Helper()
	p, err := process.Start(process.Options{Name: "shell", Path: "/bin/sh", Args: []string{"-c", script}, LogDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(0) })
	return p
}

func TestStopKillsTheGroupOfAStubbornProcess(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	p := shell(t, `trap "" TERM; sleep 1000 & echo $! > `+ready+`.new; mv `+ready+`.new `+ready+`; while :; do sleep 1; done`)
	for {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	begin := time.Now()
	p.Stop(100 * time.Millisecond)
	if took := time.Since(begin); took < 100*time.Millisecond || took > 30*time.Second {
		t.Errorf("Stop took %s, want a little more than the grace period of 100ms", took)
	}
	var child int
	text, err := os.ReadFile(ready)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(text), &child); err != nil {
		t.Fatal(err)
	}
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
	if err == nil && !strings.Contains(string(state), ") Z ") {
		t.Errorf("the child still runs: %s", state)
	}
}

func TestStopOfAWillingProcessIsQuick(t *testing.T) {
	p := shell(t, `exec sleep 1000`)
	begin := time.Now()
	p.Stop(time.Minute)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("Stop took %s", took)
	}
	p.Stop(time.Minute) // does nothing
}

func TestFailedShowsTheEndOfTheLog(t *testing.T) {
	p := shell(t, `for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22; do echo "line $i"; done; exit 4`)
	got := p.Failed().Error()
	if !strings.HasPrefix(got, "shell: exit status 4; the end of ") || strings.Contains(got, "line 2\n") || !strings.HasSuffix(got, "    line 21\n    line 22") {
		t.Errorf("Failed = %q", got)
	}
}

func TestStdinAndStdout(t *testing.T) {
	var out bytes.Buffer
	p, err := process.Start(process.Options{
		Name: "cat", Path: "/bin/cat", LogDir: t.TempDir(), Stdin: strings.NewReader("through"), Stdout: &out,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil || out.String() != "through" {
		t.Errorf("cat printed %q, %v", out.String(), err)
	}
}

func TestStartNamesWhatCannotBeStarted(t *testing.T) {
	_, err := process.Start(process.Options{Name: "etcd", Path: "/no/such/program", LogDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "start etcd: ") {
		t.Errorf("error %v", err)
	}
}

func TestSignal(t *testing.T) {
	p := shell(t, `exec sleep 1000`)
	if err := p.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil || !strings.Contains(err.Error(), "interrupt") {
		t.Errorf("Wait = %v, want interrupt", err)
	}
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/nix"
)

// withEnv runs a function as the step's, and returns what was logged.
func withEnv(t *testing.T, stderr io.Writer, vars map[string]string, run func(env *action.Env)) string {
	t.Helper()
	var out bytes.Buffer
	p := action.Process{Args: []string{"--plan", "plan.json"}, Getenv: func(name string) string { return vars[name] }, Stdout: &out, Stderr: stderr}
	if stderr == nil {
		p.Stderr = &out
	}
	code := action.Main(context.Background(), p, spec, func(_ context.Context, env *action.Env) error {
		run(env)
		return nil
	})
	if code != 0 {
		t.Errorf("exit code %d\n%s", code, out.String())
	}
	return out.String()
}

const someDrv = "/nix/store/00000000000000000000000000000000-app.drv"

// A log that is silent for half a minute says what runs; a builder that is silent for five says so, and after ten once more.
func TestSignsOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := withEnv(t, nil, nil, func(env *action.Env) {
			log, stop := startLog(env)
			defer stop()
			log.event(nix.Event{Kind: nix.Building, Path: someDrv})
			log.event(nix.Event{Kind: nix.Progressed, Progress: nix.Progress{Done: 3, Running: 1, Waiting: 2, Fetched: 5 << 20, ToFetch: 7 << 20}})
			time.Sleep(45 * time.Second)
			log.event(nix.Event{Kind: nix.Line, Path: someDrv, Text: "linking"})
			time.Sleep(11 * time.Minute)
			log.event(nix.Event{Kind: nix.Stopped, Path: someDrv})
		})
		lines := strings.Split(strings.TrimSpace(text), "\n")
		if want := "building: 3 done, 1 running (app 30s), 2 waiting; 5.0 MiB fetched of 7.0 MiB"; lines[0] != want {
			t.Errorf("the first line is %q, want %q", lines[0], want)
		}
		stalls := 0
		for _, line := range lines {
			if strings.Contains(line, "has printed nothing for") {
				stalls++
			}
		}
		if stalls != 2 || !strings.Contains(text, `warning: the builder of app has printed nothing for 5m0s, after "linking"`) {
			t.Errorf("%d reports of silence:\n%s", stalls, text)
		}
		if len(lines) < 20 || len(lines) > 30 { // eleven minutes and three quarters
			t.Errorf("%d lines:\n%s", len(lines), text)
		}
	})
}

func TestTranscriptKeepsHeadAndTail(t *testing.T) {
	var tr transcript
	tr.add(strings.Repeat("é", maxText))
	for i := range 200_000 {
		tr.add(fmt.Sprintf("line %d", i))
	}
	lines := tr.lines(someDrv)
	size := 0
	for _, line := range lines {
		size += len(line) + 1
	}
	if size > 2*maxPart+1000 {
		t.Errorf("%d bytes are kept", size)
	}
	all := strings.Join(lines, "\n")
	for _, want := range []string{fmt.Sprintf("… (%d bytes)\nline 0\nline 1\n", 2*maxText), " lines left out; nix log " + someDrv + " shows all]\nline ", "\nline 199999"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

// On a terminal there is a line for what runs, which is gone in the end; what is logged in between stays.
func TestDisplayOnATerminal(t *testing.T) {
	terminal, screen := openTerminal(t)
	withEnv(t, terminal, nil, func(env *action.Env) {
		log, stop := startLog(env)
		log.event(nix.Event{Kind: nix.Building, Path: someDrv})
		log.event(nix.Event{Kind: nix.Progressed, Progress: nix.Progress{Done: 3, Running: 1, Waiting: 2}})
		log.event(nix.Event{Kind: nix.Line, Path: someDrv, Text: "compiling \x1b[2J main"})
		log.event(nix.Event{Kind: nix.Message, Text: "warning: a warning"})
		for range 100 {
			if text := screen(); strings.Contains(text, "compiling") && strings.Contains(text, "3 done, 1 running, 2 waiting") {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		log.event(nix.Event{Kind: nix.Stopped, Path: someDrv})
		stop()
		env.Infof("the end")
	})
	text := screen()
	for _, want := range []string{"app", `compiling \x1b[2J main`, "3 done, 1 running, 2 waiting", "nix: warning: a warning", "the end"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not on the terminal:\n%q", want, text)
		}
	}
	if at := strings.LastIndex(text, "1 running"); at > strings.Index(text, "the end") {
		t.Errorf("something is drawn after the end:\n%q", text)
	}
}

// openTerminal is a terminal of 100 columns, and a function that says what was written to it so far.
func openTerminal(t *testing.T) (terminal *os.File, screen func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 100})
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(filepath.Join("/dev/pts", fmt.Sprint(n)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	texts, got := make(chan string, 1000), ""
	go func() {
		defer close(texts)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			if err != nil {
				return
			}
			texts <- string(b[:n])
		}
	}()
	t.Cleanup(func() { terminal.Close(); master.Close() })
	return terminal, func() string {
		enough := time.After(time.Second) // a display is never quiet
		for {
			select {
			case text, open := <-texts:
				if !open {
					return got
				}
				got += text
			case <-time.After(200 * time.Millisecond):
				return got
			case <-enough:
				return got
			}
		}
	}
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a new terminal: what is written to tty is read from screen.
func openTerminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 150}); err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	return screen, tty
}

// On a terminal there are bars while the push goes on; lines go above them, and nothing of them is left.
func TestBars(t *testing.T) {
	quick := registry.New()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(150 * time.Millisecond)
		quick.ServeHTTP(w, r)
	}))
	defer server.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "api.tar")
	if err := os.WriteFile(file, archive("amd64", "base", "api"), 0o644); err != nil {
		t.Fatal(err)
	}
	screen, tty := openTerminal(t)
	cmd := exec.Command(buildBinary(t), "--registry", strings.TrimPrefix(server.URL, "http://"), "--image", "api:v1="+file, "--out", filepath.Join(dir, "push.json"))
	cmd.Env = append(os.Environ(), "HOME="+dir, "DOCKER_CONFIG="+dir, "RUNNER_TEMP="+dir, "GITHUB_OUTPUT=", "TERM=xterm")
	cmd.Stderr = tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	var shown bytes.Buffer
	if _, err := io.Copy(&shown, screen); err != nil && !errors.Is(err, syscall.EIO) { // EIO: nobody has the other end any more
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &shown)
	}
	for _, want := range []string{"images    [", "compress  [", "send      [", "api  uploaded   layers: 2 uploaded"} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("never shown: %q", want)
		}
	}
	// The last thing drawn is text: after it no bar comes, and before it those that were there are wiped.
	end := shown.String()[strings.LastIndex(shown.String(), "images in "):]
	if strings.Contains(end, "[=") || !strings.Contains(end, "push: 1 image: 1 uploaded") || !strings.Contains(shown.String(), "\x1b[J") {
		t.Errorf("in the end: %q", end)
	}
}

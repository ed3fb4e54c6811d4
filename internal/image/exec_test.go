package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/handoff"
)

// script writes an executable script.
func script(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "stream")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestExecRunsTheScript(t *testing.T) {
	for name, content := range layouts(t) {
		archive := write(t, content)
		img, err := Exec(t.Context(), script(t, "echo working >&2; exec cat "+archive), Options{Temp: t.TempDir()})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ids, _ := writeAll(t, img)
		if img.Family != handoff.Stream || len(ids) != 2 || ids[1].String() != hash256([]byte(layerB)) {
			t.Errorf("%s: %+v", name, img)
		}
		img.Close()
	}
	// What is no script is opened as ever.
	img, err := Exec(t.Context(), write(t, layouts(t)["docker 25: blobs by digest"]), Options{})
	if err != nil || img.Family != handoff.DockerArchive {
		t.Fatalf("an archive: %+v, %v", img, err)
	}
	img.Close()
}

func TestExecOfScriptsThatFail(t *testing.T) {
	archive := write(t, layouts(t)["docker 25: blobs by digest"])
	temp := t.TempDir()
	for name, test := range map[string]struct{ text, want string }{
		"half-way":       {"head -c 700 " + archive + "; echo 'first line' >&2; echo 'no space in the store' >&2; exit 3", "exit status 3: no space in the store"},
		"no archive":     {"echo hello", "cut short"},
		"nothing at all": {"exit 0", "cut short"},
		"half an image":  {"head -c 700 " + archive, "cut short"},
	} {
		img, err := Exec(t.Context(), script(t, test.text), Options{Temp: temp})
		if err == nil {
			img.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	chroot := Options{Store: handoff.Store{Dir: "/nix/store", Root: "/elsewhere"}}
	if _, err := Exec(t.Context(), script(t, "exit 0"), chroot); err == nil || !strings.Contains(err.Error(), "cannot be run") {
		t.Errorf("in a chroot store: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Exec(ctx, script(t, "exec sleep 1000"), Options{Temp: temp}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
}

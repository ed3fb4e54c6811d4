package nix

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestOpenReadsTheStoresSettings(t *testing.T) {
	n, store := open(t, "substituters = https://a.example https://b.example?priority=3", "trusted-public-keys = k:AAAA", "netrc-file = /somewhere/netrc")
	want := Settings{
		Substituters:      []string{"https://a.example", "https://b.example?priority=3"},
		TrustedPublicKeys: []string{"k:AAAA"},
		NetrcFile:         "/somewhere/netrc",
		System:            "x86_64-linux",
		StoreDir:          "/nix/store",
		StoreRoot:         store.Root,
	}
	if diff := cmp.Diff(want, n.Settings, cmpopts.IgnoreUnexported(Settings{}), cmpopts.IgnoreFields(Settings{}, "CertFile")); diff != "" {
		t.Errorf("Settings (-want +got):\n%s", diff)
	}
	if n.Version.Major != 2 {
		t.Errorf("Version = %v", n.Version)
	}
}

func TestOpenWithoutNix(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := Open(t.Context(), Options{}); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("Open = %v, want ErrNotInstalled", err)
	}
	if _, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "nix")}); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("Open = %v, want ErrNotInstalled", err)
	}
}

func TestStoreRoot(t *testing.T) {
	getenv := func(string) string { return "" }
	auto := ""
	if _, err := os.Stat("/nix"); os.Getuid() != 0 && os.IsNotExist(err) {
		auto = ".local/share/nix/root" // below the home, which is nowhere here
	}
	for store, want := range map[string]string{
		"auto":                        auto,
		"daemon":                      "",
		"local":                       "",
		"local?root=/tmp/x":           "/tmp/x",
		"local?state=/s&root=/tmp/x/": "/tmp/x",
		"local?root=/tmp/a%20b":       "/tmp/a b",
		"/tmp/x":                      "/tmp/x",
		"/tmp/x/?trusted=1":           "/tmp/x",
		"unix:///run/nix.sock":        "",
		"unix:///run/s?root=/tmp/x":   "/tmp/x",
		"ssh-ng://host?root=/tmp/x":   "",
		"/":                           "",
	} {
		if got := storeRoot(store, getenv); got != want {
			t.Errorf("storeRoot(%q) = %q, want %q", store, got, want)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for banner, want := range map[string]struct {
		version Version
		text    string
		config  string
		outputs string
	}{
		"nix (Nix) 2.8.0\n":                        {Version{"Nix", 2, 8, 0}, "2.8.0", "show-config", "x.drv"},
		"nix (Nix) 2.19.3":                         {Version{"Nix", 2, 19, 3}, "2.19.3", "show-config", "x.drv^*"},
		"nix (Nix) 2.31.2+1":                       {Version{"Nix", 2, 31, 2}, "2.31.2", "config show", "x.drv^*"},
		"nix (Nix) 2.35.2":                         {Version{"Nix", 2, 35, 2}, "2.35.2", "config show", "x.drv^*"},
		"nix (Nix) 2.34.8+1":                       {Version{"Nix", 2, 34, 8}, "2.34.8", "config show", "x.drv^*"},
		"nix (Nix) 2.35.0pre20260901_0a1b2c3":      {Version{"Nix", 2, 35, 0}, "2.35.0", "config show", "x.drv^*"},
		"nix (Lix, like Nix) 2.93.3":               {Version{"Lix", 2, 93, 3}, "Lix 2.93.3", "show-config", "x.drv^*"},
		"nix (Lix, like Nix) 2.90-beta.1":          {Version{"Lix", 2, 90, 0}, "Lix 2.90.0", "show-config", "x.drv^*"},
		"nix (Determinate Nix 3.8.5) 2.30.2":       {Version{"Determinate Nix", 2, 30, 2}, "Determinate Nix 2.30.2", "config show", "x.drv^*"},
		"warning: x 1.2\nnix (Nix) 2.14.1\n":       {Version{"Nix", 2, 14, 1}, "2.14.1", "show-config", "x.drv"},
		"nix (Determinate Nix 3.12.0-rc1) 2.32.1 ": {Version{"Determinate Nix", 2, 32, 1}, "Determinate Nix 2.32.1", "config show", "x.drv^*"},
	} {
		v, err := ParseVersion(banner)
		if err != nil || v != want.version || v.String() != want.text {
			t.Errorf("ParseVersion(%q) = %+v (%s), %v, want %+v (%s)", banner, v, v, err, want.version, want.text)
		}
		if got := strings.Join(v.showConfig(), " "); got != want.config {
			t.Errorf("%s: settings are shown by %q, want %q", v, got, want.config)
		}
		if got := v.allOutputs("x.drv"); got != want.outputs {
			t.Errorf("%s: all outputs are %q, want %q", v, got, want.outputs)
		}
	}
	if _, err := ParseVersion("nix (Nix) unknown"); err == nil {
		t.Error("ParseVersion without a number gave no error")
	}
}

func TestCommandErrorFindsTheCause(t *testing.T) {
	for _, test := range []struct{ stderr, cause string }{
		{"warning: dirty\nerror: boom\n       second\n(use '--show-trace' to show detailed location information)\n", "boom"},
		{"error:\n       … while evaluating the attribute 'x'\n         at /f.nix:1:1:\n\n       error: boom\n       at /f.nix:2:3:\n", "boom"},
		{"error:\n       … while calling the 'throw' builtin\n       error: first\n\nerror: 1 dependencies failed\n", "1 dependencies failed"},
		{"Segmentation fault\n", "Segmentation fault"},
		{"", ""},
	} {
		e := &CommandError{Command: "nix eval", Code: 1, Stderr: test.stderr}
		if got := e.Cause(); got != test.cause {
			t.Errorf("Cause of %q = %q, want %q", test.stderr, got, test.cause)
		}
		if strings.Contains(e.Message(), "--show-trace") {
			t.Errorf("Message of %q has the advice in it", test.stderr)
		}
	}
}

// A context that ends stops nix and what it started, although that ignores SIGTERM for a while, or has a session of its own as
// builders have.
func TestRunStopsTheWholeGroup(t *testing.T) {
	for name, started := range map[string]string{"in its group": "sleep 100", "in a session of its own": "setsid sleep 100 >/dev/null 2>&1"} {
		t.Run(name, func(t *testing.T) { testRunStops(t, started) })
	}
}

func testRunStops(t *testing.T, started string) {
	dir := t.TempDir()
	script := filepath.Join(dir, "nix")
	pidFile := filepath.Join(dir, "pid")
	text := "#!/bin/sh\n" + started + " &\necho $! > " + pidFile + "\nwait\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	n := &Nix{path: script, env: os.Environ(), log: &syncWriter{}}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for range 500 {
			if b, _ := os.ReadFile(pidFile); len(b) > 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	if _, err := n.run(ctx, command{args: []string{"x"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("run = %v, want context.Canceled", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(readFile(t, pidFile))))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) || zombie(pid) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
}

func zombie(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && strings.Contains(string(b), ") Z ")
}

package nix

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

// openDaemon is the installed Nix as most machines have it: a daemon owns the store, here one on a private store.
func openDaemon(t *testing.T) (*Nix, *nixstore.Store) {
	t.Helper()
	store := nixstore.New(t, "max-jobs = 2")
	socket := filepath.Join(store.Dir, "socket")
	daemon := exec.Command("nix", "daemon")
	daemon.Env = append(store.Env, "NIX_DAEMON_SOCKET_PATH="+socket)
	daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-daemon.Process.Pid, syscall.SIGTERM)
		daemon.Wait()
	})
	for range 500 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	store.Env = append(store.Env, "NIX_CONFIG=store = unix://"+socket+"?root="+store.Root)
	n := openStore(t, store)
	if n.Settings.StoreRoot != store.Root {
		t.Fatalf("StoreRoot = %q, want %q", n.Settings.StoreRoot, store.Root)
	}
	return n, store
}

func TestBuildThroughTheDaemon(t *testing.T) {
	n, store := openDaemon(t)
	dir := flake(t, store, map[string]string{
		"api":  `image "api" "echo api > $out" {}`,
		"bad":  `image "bad" "echo too bad; exit 3" {}`,
		"uses": `image "uses" "echo > $out" { dep = mk "lib" "exit 7" {}; }`,
	})
	flake, targets := plan(t, n, dir)
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: flake, KeepGoing: true, LogLines: 5})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"api": "built", "bad": "failed image-bad: builder failed with exit code 3", "uses": "failed lib: builder failed with exit code 7",
	}
	if diff := cmp.Diff(want, states(built)); diff != "" {
		t.Errorf("Build (-want +got):\n%s", diff)
	}
	if log := built[1].Failure.Log; !cmp.Equal(log, []string{"too bad"}) {
		t.Errorf("last lines of bad: %q", log)
	}
	if err := n.CopyToStore(t.Context(), "file://"+filepath.Join(store.Dir, "cache"), []string{built[0].OutPath}, CopyOptions{}); err != nil {
		t.Error(err)
	}
	if err := n.AddRoots(t.Context(), filepath.Join(store.Dir, "roots"), []string{built[0].OutPath}); err != nil {
		t.Error(err)
	}
}

// The builders are the daemon's children, not ours; they end all the same.
func TestCancelThroughTheDaemon(t *testing.T) {
	n, store := openDaemon(t)
	flake, targets := plan(t, n, flake(t, store, map[string]string{"endless": `image "endless" "echo started; busybox sleep 300" {}`}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	built, err := n.Build(ctx, targets, BuildOptions{Flake: flake, Event: func(e Event) {
		if e.Kind == Line {
			// Not at once: a daemon since 2.26 can miss a client that leaves while it starts a builder.
			time.AfterFunc(300*time.Millisecond, cancel)
		}
	}})
	if !errors.Is(err, context.Canceled) || !built[0].NotReached {
		t.Errorf("Build = %v, %v", states(built), err)
	}
	for range 100 {
		if !strings.Contains(strings.Join(processesIn(t, store.Root), "\n"), "sleep") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("left running: %q", processesIn(t, store.Root))
}

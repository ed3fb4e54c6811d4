package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

// buildBinary makes a process that is only that, for tests that kill it or give it a terminal.
func buildBinary(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "push-images")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// The binary is killed at many moments of a push. No manifest in the registry ever names a blob that is not there, no file
// stays in the temporary folder, and the push that is let run to its end gets everything in.
func TestKilledPush(t *testing.T) {
	dir := t.TempDir()
	binary := buildBinary(t)
	// Layers that do not shrink, so that sending them takes a while.
	random := rand.NewChaCha8([32]byte{1})
	noise := func(size int) string {
		b := make([]byte, size)
		random.Read(b)
		return string(b)
	}
	base := noise(8 << 20)
	const images = 4
	registry := distribution.Start(t)
	temp := filepath.Join(dir, "temp")
	if err := os.Mkdir(temp, 0o755); err != nil {
		t.Fatal(err)
	}
	var list []string
	for i := range images {
		file := filepath.Join(dir, fmt.Sprintf("%d.tar", i))
		if err := os.WriteFile(file, archive("amd64", base, noise(2<<20), noise(100)), 0o644); err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("svc%d:v1=%s", i, file))
	}
	push := func() *exec.Cmd {
		cmd := exec.Command(binary, "--registry", registry.Host+"/team", "--tags", "main", "--jobs", "2",
			"--image", strings.Join(list, "\n"), "--out", filepath.Join(dir, "push.json"))
		cmd.Env = append(os.Environ(), "RUNNER_TEMP="+temp, "HOME="+dir, "DOCKER_CONFIG="+dir, "GITHUB_OUTPUT=")
		return cmd
	}

	killed := 0
	for after := 20 * time.Millisecond; ; after += 40 * time.Millisecond {
		cmd := push()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		n := registry.Check(t)
		if err == nil {
			if n != images {
				t.Errorf("%d manifests after the push that was let run, want %d", n, images)
			}
			break
		}
		killed++
		if left, _ := os.ReadDir(temp); len(left) > 0 {
			t.Errorf("killed after %s: the temporary folder has %v", after, left)
		}
	}
	if killed < 3 {
		t.Errorf("killed %d times only", killed)
	}
	out, err := push().CombinedOutput()
	if err != nil || registry.Check(t) != images {
		t.Errorf("run again: %v\n%s", err, out)
	}
}

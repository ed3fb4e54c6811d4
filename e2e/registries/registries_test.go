// Package registries runs push-images' own tests, which are against distribution 2.8 otherwise, against version 3.
package registries

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/e2e/build"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

func TestDistribution3(t *testing.T) {
	services, err := build.Services(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	root, err := build.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range []string{"./internal/push", "./cmd/push-images"} {
		cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", pkg)
		cmd.Dir = filepath.Dir(root)
		cmd.Env = append(os.Environ(), distribution.Program+"="+services)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", pkg, err, out)
		}
		if !strings.Contains(string(out), "--- PASS: Test") {
			t.Errorf("%s: no test was run\n%s", pkg, out)
		}
	}
}

// Package pipelinetest is what tests that ship the example monorepo have in common.
package pipelinetest

import (
	"os"
	"testing"

	"github.com/flakeship/flakeship/e2e/pipeline"
)

// Start starts a pipeline that ends, and leaves nothing behind, when the test does.
func Start(t *testing.T) *pipeline.Pipeline {
	t.Helper()
	dir, err := os.MkdirTemp("", "flakeship-e2e-") // not t.TempDir: a Nix store is read-only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pipeline.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	p, err := pipeline.Start(t.Context(), pipeline.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

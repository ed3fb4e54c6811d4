package env_test

import (
	"os"
	"testing"
	"time"

	"github.com/flakeship/flakeship/e2e/env"
)

func TestStart(t *testing.T) {
	begin := time.Now()
	e, err := env.Start(t.Context(), env.Options{Dir: t.TempDir(), Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up in %s", time.Since(begin))
	begin = time.Now()
	e.Stop()
	t.Logf("down in %s", time.Since(begin))
}

package deploy_test

import (
	"testing"
	"time"
)

// await waits until what is true; a test that waits for two minutes hangs.
func await(t *testing.T, what string, isTrue func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !isTrue(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("two minutes went by and never was it so that %s", what)
		}
	}
}

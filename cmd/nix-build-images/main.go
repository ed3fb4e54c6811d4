// Command nix-build-images builds what a Plan says no cache can serve, fetches what one can, and copies the result to a cache.
// It writes the BuildResult.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/flakeship/flakeship/internal/action"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := action.Main(ctx, action.OS(), spec, run)
	stop()
	os.Exit(code)
}

// Command nix-cache-check says what one commit's container images need: nothing, a push, or a build. It writes the Plan.
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

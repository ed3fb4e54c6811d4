// Command push-images brings built container images to a registry and says which digest each has there. It writes the PushResult.
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

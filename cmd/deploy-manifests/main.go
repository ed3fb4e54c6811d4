// Command deploy-manifests puts pushed digests into Kubernetes manifests, applies them and waits until they run. It writes
// the DeployResult.
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

// Command build makes the programs of the end-to-end tests ahead of them, with
// progress, and prints where they are. The first time takes minutes.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/flakeship/flakeship/e2e/build"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, program := range []func(context.Context, io.Writer) (string, error){build.Services, build.Act, build.GiteaAct, build.Cosign, build.S3} {
		path, err := program(ctx, os.Stderr)
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		fmt.Println(path)
	}
}

// Command nix-build-images builds what a Plan says no cache can serve, fetches what one can, and copies the result to a cache.
// It writes the BuildResult.
package main

import "github.com/flakeship/flakeship/internal/action"

func main() { action.Exit(spec, run) }

// Command nix-cache-check says what one commit's container images need: nothing, a push, or a build. It writes the Plan.
package main

import "github.com/flakeship/flakeship/internal/action"

func main() { action.Exit(spec, run) }

// Command push-images brings built container images to a registry and says which digest each has there. It writes the PushResult.
package main

import "github.com/flakeship/flakeship/internal/action"

func main() { action.Exit(spec, run) }

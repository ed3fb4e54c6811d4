// Command deploy-manifests puts pushed digests into Kubernetes manifests, applies them and waits until they run. It writes
// the DeployResult.
package main

import "github.com/flakeship/flakeship/internal/action"

func main() { action.Exit(spec, run) }

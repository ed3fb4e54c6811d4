// Command services is the whole test environment in one program: etcd, the
// Kubernetes control plane, KWOK, kubectl, a container registry and the Gitea
// runner, each a subcommand that runs as a process of its own.
//
// One program rather than eight, because they share most of their packages:
// linking them once takes seconds and 200 MB instead of a minute and a
// gigabyte. Package e2e/build makes it, package e2e/env runs it.
//
// Only what ties them together is here: a linter that looks at this package
// looks at all of Kubernetes first, for minutes.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/e2e/env/registryserver"
	"github.com/flakeship/flakeship/e2e/process"
	"github.com/flakeship/flakeship/e2e/runner/artifact"
)

// commands maps a subcommand to its main function. Each finds its own
// arguments in os.Args[1:], as if it were a program of its own.
var commands = map[string]func() int{
	"etcd":                    etcd,
	"kube-apiserver":          kubeAPIServer,
	"kube-controller-manager": kubeControllerManager,
	"kube-scheduler":          kubeScheduler,
	"kubectl":                 kubectl,
	"kwok":                    kwok,
	"registry":                registryserver.Main,
	"supervise":               func() int { return process.Supervise(os.Args[1:]) },
	"gitea-runner":            giteaRunner,
	"artifact":                func() int { return artifact.Main(os.Args[1:]) },
}

func main() {
	if len(os.Args) < 2 {
		usage(os.Stderr)
		os.Exit(2)
	}
	name := os.Args[1]
	run, ok := commands[name]
	if !ok {
		usage(os.Stderr)
		os.Exit(2)
	}
	os.Args = append([]string{name}, os.Args[2:]...)
	os.Exit(run())
}

func usage(w io.Writer) {
	names := make([]string, 0, len(commands))
	for name := range commands {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(w, "usage: services {%s} [arguments]\n", strings.Join(names, "|"))
}

// Command deploy measures deploy-manifests beside kubectl and Flux's library, on a real API server with real controllers, at the
// given round trips: a set of objects is created in a new namespace and waited for, applied again unchanged, compared with a
// version of it whose images are new, and that is applied. The tools take turns; requests are counted from the API server's
// audit log.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/flakeship/flakeship/e2e/build"
	"github.com/flakeship/flakeship/e2e/env"
	"github.com/flakeship/flakeship/e2e/pipeline"
)

func main() {
	log.SetFlags(0)
	sizes := flag.String("sizes", "100,500,1000", "numbers of objects; a quarter of them are Deployments of one replica")
	trips := flag.String("round-trips", "0,50", "milliseconds")
	runs := flag.Int("runs", 1, "of each; medians are shown")
	flag.Parse()
	if err := measure(context.Background(), numbers(*sizes), numbers(*trips), *runs); err != nil {
		log.Fatal(err)
	}
}

func numbers(list string) (all []int) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			log.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

// What is measured, in this order.
const (
	create    = "create, ready"
	unchanged = "unchanged"
	diff      = "diff, new images"
	update    = "new images"
)

var all = []string{create, unchanged, diff, update}

// tool is one way to do them. args gives the command lines, which are run one after the other; none: it cannot.
type tool struct {
	name, agent string // agent is in the user agent of its requests
	args        func(what string, s set) [][]string
}

// sample is what one run took.
type sample struct {
	wall, cpu time.Duration
	requests  int
	memory    int64 // most of any process, in KiB
}

func measure(ctx context.Context, sizes, trips []int, runs int) error {
	dir, err := os.MkdirTemp("", "flakeship-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root, err := build.Root()
	if err != nil {
		return err
	}
	if err := pipeline.GoBuild(ctx, filepath.Dir(root), dir, "./cmd/deploy-manifests"); err != nil {
		return err
	}
	if err := pipeline.GoBuild(ctx, filepath.Join(root, "bench", "flux"), dir, "."); err != nil {
		return err
	}
	size, err := os.Stat(filepath.Join(dir, "deploy-manifests"))
	if err != nil {
		return err
	}
	c, err := env.StartCluster(ctx, env.Options{Dir: dir, Audit: true, Nodes: 20, Progress: os.Stderr})
	if err != nil {
		return err
	}
	defer c.Stop()
	b := &bench{cluster: c, dir: dir}
	fmt.Printf("deploy-manifests has %.1f MB; kubectl is part of a large program here, which takes %s to start; medians of %d\n\n", float64(size.Size())/1e6, b.startup(ctx), runs)
	fmt.Printf("%-4s %-8s %-18s %-22s %8s %7s %8s %9s %8s\n", "RTT", "objects", "", "", "wall s", "ratio", "CPU s", "requests", "RSS MiB")
	for _, trip := range trips {
		kubeconfig, err := b.kubeconfig(trip)
		if err != nil {
			return err
		}
		for _, size := range sizes {
			if err := b.compare(ctx, tools(c, dir), kubeconfig, trip, size, runs); err != nil {
				return err
			}
		}
	}
	return nil
}

// tools are ours first, which the others are compared with.
func tools(c *env.Cluster, dir string) []tool {
	ours := func(what string, s set) [][]string {
		args := []string{filepath.Join(dir, "deploy-manifests"), "--kubeconfig", s.kubeconfig, "--name", "bench", "--namespace", s.namespace, "--timeout", "30m", "--out", filepath.Join(dir, "out.json")}
		if what == diff {
			args = append(args, "--mode", "diff")
		}
		return [][]string{append(args, "--manifests", s.file(what))}
	}
	kubectl := func(what string, s set) [][]string {
		line := func(args ...string) []string {
			return c.Kubectl(append([]string{"--kubeconfig=" + s.kubeconfig, "--cache-dir=" + filepath.Join(dir, "kube-cache")}, args...)...)
		}
		if what == diff {
			return [][]string{line("diff", "--server-side", "-f", s.file(what))}
		}
		lines := [][]string{line("apply", "--server-side", "-f", s.file(what))}
		for i := range s.size / 4 {
			if what != unchanged { // which kubectl apply alone says as much about as it can
				lines = append(lines, line("rollout", "status", "--timeout=10m", "-n", s.namespace, fmt.Sprint("deployment/s", i)))
			}
		}
		return lines
	}
	flux := func(what string, s set) [][]string {
		if what == diff {
			return nil
		}
		return [][]string{{filepath.Join(dir, "flux"), "--kubeconfig", s.kubeconfig, "--file", s.file(what), fmt.Sprintf("--wait=%v", what != unchanged)}}
	}
	return []tool{{"deploy-manifests", "deploy-manifests", ours}, {"kubectl", "kubectl", kubectl}, {"flux, 4 at a time", "flux-ssa", flux}}
}

func (b *bench) compare(ctx context.Context, tools []tool, kubeconfig string, trip, size, runs int) error {
	samples := map[string][]sample{}
	for i := range runs {
		for _, t := range tools {
			s, err := b.prepare(ctx, fmt.Sprintf("%.4s-%d-%d-%d", t.agent, trip, size, i), size)
			if err != nil {
				return err
			}
			s.kubeconfig = kubeconfig
			for _, what := range all {
				if len(t.args(what, s)) == 0 {
					continue
				}
				one, err := b.run(ctx, t, what, s)
				if err == nil {
					err = b.settle(ctx, s.namespace)
				}
				if err != nil {
					return err
				}
				samples[what+t.name] = append(samples[what+t.name], one)
			}
		}
	}
	for _, what := range all {
		var ours time.Duration // of the first tool
		for _, t := range tools {
			all := samples[what+t.name]
			if len(all) == 0 {
				continue
			}
			slices.SortFunc(all, func(a, b sample) int { return cmp.Compare(a.wall, b.wall) })
			m := all[len(all)/2]
			if ours == 0 {
				ours = m.wall
			}
			fmt.Printf("%-4d %-8d %-18s %-22s %8.2f %7.1f %8.2f %9d %8.0f\n", trip, size, what, t.name, m.wall.Seconds(), m.wall.Seconds()/ours.Seconds(), m.cpu.Seconds(), m.requests, float64(m.memory)/1024)
		}
	}
	return nil
}

func (b *bench) run(ctx context.Context, t tool, what string, s set) (sample, error) {
	if _, err := b.requests(t.agent); err != nil {
		return sample{}, err
	}
	var one sample
	begin := time.Now()
	for _, args := range t.args(what, s) {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = []string{"HOME=" + b.dir, "PATH=" + os.Getenv("PATH"), "RUNNER_TEMP=" + b.dir}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if what == diff && errors.As(err, &exit) && exit.ExitCode() == 1 { // kubectl: there is a difference
			err = nil
		}
		if err != nil {
			return one, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
		}
		one.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		one.memory = max(one.memory, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	}
	one.wall = time.Since(begin)
	var err error
	one.requests, err = b.requests(t.agent)
	return one, err
}

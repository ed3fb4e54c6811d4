// Command unchanged measures the state a pipeline is in most of the time: a
// commit that changes no image and no object. It ships the example monorepo
// once, then runs the four binaries as the root action does and prints how long
// each took, beside `nix eval` alone, which the first one contains.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/e2e/runner"
)

const runs = 7

func main() {
	log.SetFlags(0)
	if err := measure(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func measure(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "flakeship-bench-")
	if err != nil {
		return err
	}
	defer pipeline.Remove(dir)
	p, err := pipeline.Start(ctx, pipeline.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer p.Stop()
	run, err := p.Ship(ctx, runner.Gitea, nil)
	if err != nil {
		return err
	}
	if run.ExitCode != 0 {
		return fmt.Errorf("the first run failed:\n%s", run.Result.Log)
	}

	at := func(name string) string { return filepath.Join(dir, name) }
	steps := []*exec.Cmd{
		p.Nix.Command(ctx, "eval", "--json", "--read-only", p.Repo+"#packages.x86_64-linux", "--apply", "builtins.mapAttrs (_: d: d.drvPath)"),
		p.Tool(ctx, "nix-cache-check", "--flake", ".", "--substituters", p.Env.Cache.URL, "--trusted-public-keys", p.Nix.PublicKey, "--registry", p.Registry(), "--out", at("plan.json")),
		p.Tool(ctx, "nix-build-images", "--plan", at("plan.json"), "--out", at("build-result.json")),
		p.Tool(ctx, "push-images", "--build-result", at("build-result.json"), "--registry", p.Registry(), "--out", at("push-result.json")),
		p.Tool(ctx, "deploy-manifests", "--push-result", at("push-result.json"), "--manifests", "deploy", "--kubeconfig", p.Env.Cluster.Kubeconfig, "--out", at("deploy-result.json")),
	}
	took := make([][]time.Duration, len(steps))
	for range runs {
		for i, step := range steps {
			cmd := exec.CommandContext(ctx, step.Path, step.Args[1:]...)
			cmd.Dir, cmd.Env = p.Repo, step.Env
			begin := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w\n%s", strings.Join(step.Args, " "), err, out)
			}
			took[i] = append(took[i], time.Since(begin))
		}
	}
	counts := run.Counts()
	fmt.Printf("%d images, %d objects, nothing changed; %d runs\n\n%-18s %9s %9s %9s\n", counts.Images, counts.Objects, runs, "", "fastest", "median", "slowest")
	var ours time.Duration
	for i, step := range steps {
		slices.Sort(took[i])
		name := filepath.Base(step.Path)
		if i == 0 {
			name = "nix eval alone"
		} else {
			ours += took[i][runs/2]
		}
		fmt.Printf("%-18s %9s %9s %9s\n", name, ms(took[i][0]), ms(took[i][runs/2]), ms(took[i][runs-1]))
	}
	fmt.Printf("\nall four, medians  %9s, of which %s beyond nix eval\n", ms(ours), ms(ours-took[0][runs/2]))
	return nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

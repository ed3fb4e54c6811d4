// Command demo ships an example monorepo three times, with real services on
// this machine: everything is new, nothing changed, one service changed. It
// ends with a table of what each run did.
//
// On a terminal it then waits, so that the cluster can be looked at. All it
// starts is below one folder, .demo in the repository, and ends with it.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"golang.org/x/term"

	"github.com/flakeship/flakeship/e2e/build"
	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/e2e/runner"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demo(ctx)
	stop()
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "\nstopped; make demo starts again from the beginning")
		os.Exit(130)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: error:", err)
		os.Exit(1)
	}
}

// act is one of the three runs.
type act struct {
	title  string
	change func(*pipeline.Pipeline) error
}

var acts = []act{
	{"the first push: everything is new", func(*pipeline.Pipeline) error { return nil }},
	{"nothing changed but the README", func(p *pipeline.Pipeline) error {
		return p.Edit("README.md", "# The shop", "# The little shop")
	}},
	{"one service's source changed: web", func(p *pipeline.Pipeline) error {
		return p.Edit("services/web/www/index.html", "Welcome", "Hello")
	}},
}

func demo(ctx context.Context) error {
	root, err := build.Root()
	if err != nil {
		return err
	}
	dir := filepath.Join(filepath.Dir(root), ".demo")
	if err := pipeline.Remove(dir); err != nil {
		return fmt.Errorf("remove what an earlier demo left: %w", err)
	}
	fmt.Println("flakeship demo: a monorepo of seven services goes from a commit to a running cluster, three times.")
	fmt.Println("Everything runs on this machine, below .demo; your own Nix, Docker and Kubernetes settings are not touched.")
	fmt.Println()
	p, err := pipeline.Start(ctx, pipeline.Options{Dir: dir, Progress: os.Stdout})
	if err != nil {
		return err
	}
	defer p.Stop()

	var table []pipeline.Counts
	for i, a := range acts {
		fmt.Printf("\nrun %d  %s\n", i+1, a.title)
		if err := a.change(p); err != nil {
			return err
		}
		run, err := p.Ship(ctx, runner.Gitea, &steps{out: os.Stdout})
		if err != nil {
			return err
		}
		if run.ExitCode != 0 {
			return fmt.Errorf("run %d failed; its log is %s", i+1, run.Log)
		}
		table = append(table, run.Counts())
	}
	printTable(table)
	return look(ctx, p)
}

func printTable(table []pipeline.Counts) {
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "run\timages\tbuilt\tpushed\tsent\tobjects\tchanged\tseconds\t")
	for i, c := range table {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%s\t%d\t%d\t%.1f\t\n", i+1, c.Images, c.Built, c.Pushed, size(c.Bytes), c.Objects, c.Changed, c.Elapsed.Seconds())
	}
	w.Flush()
}

func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// look shows what runs, and how to see more of it.
func look(ctx context.Context, p *pipeline.Pipeline) error {
	kubectl := p.Env.Cluster.Kubectl("get", "pods", "--namespace", "shop", "--output", "custom-columns=POD:.metadata.name,PHASE:.status.phase,IMAGE:.spec.containers[0].image")
	cmd := exec.CommandContext(ctx, kubectl[0], kubectl[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	fmt.Println("\nwhat runs now:")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("kubectl: %w", err)
	}
	fmt.Printf("\nthe whole logs: %s\n", filepath.Join(p.Dir, "runs", "*", "log.txt"))
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		fmt.Println("The services stop now; in a terminal, make demo keeps them until you press Enter.")
		return nil
	}
	fmt.Printf("to look around:\n  %s\n  curl -u shop-ci:a-password-of-the-registry http://%s/v2/_catalog\n",
		strings.Join(p.Env.Cluster.Kubectl("get", "all", "--namespace", "shop"), " "), p.Env.Registry.Host)
	fmt.Print("\nThe services run until you press Enter. ")
	entered := make(chan struct{})
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n') // Enter, or the end of input
		close(entered)
	}()
	select {
	case <-entered:
	case <-ctx.Done():
		fmt.Println()
	}
	return nil
}

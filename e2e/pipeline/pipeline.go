// Package pipeline ships the example monorepo as its users would: its own
// workflow file, in a real runner, with real Nix, against a real registry,
// binary cache and control plane.
//
//	p, err := pipeline.Start(ctx, pipeline.Options{Dir: dir})
//	defer p.Stop()
//	run, err := p.Ship(ctx, runner.Gitea, nil)
//	p.Edit("services/web/www/index.html", "Welcome", "Hello")
//	run, err = p.Ship(ctx, runner.Gitea, nil)
package pipeline

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/flakeship/flakeship/e2e/build"
	"github.com/flakeship/flakeship/e2e/env"
	"github.com/flakeship/flakeship/e2e/env/traffic"
	"github.com/flakeship/flakeship/e2e/nixenv"
	"github.com/flakeship/flakeship/e2e/runner"
	"github.com/flakeship/flakeship/internal/handoff"
)

// Names of what the monorepo's workflow asks the forge for.
const (
	registryUser     = "shop-ci"
	registryPassword = "a-password-of-the-registry"
)

// Tools are the names of the four binaries.
var Tools = []string{"nix-cache-check", "nix-build-images", "push-images", "deploy-manifests"}

// Options say where everything is kept.
type Options struct {
	Dir      string    // gets all state; made when missing
	Progress io.Writer // a line for each thing that is started; nil: none
}

// Pipeline is a monorepo, its forge, and everything it is shipped with.
type Pipeline struct {
	Dir  string
	Env  *env.Env
	Nix  *nixenv.Nix
	Repo string // the monorepo's git repository
	// Workflow is the file in Repo that Ship runs.
	Workflow string
	// ActionsURL is a git server to clone the actions from; empty: they are a
	// folder, and nothing is cloned.
	ActionsURL string

	action string // folder of a flakeship release
	runs   int
}

// Run is one run of the workflow and what it left behind. Documents of steps
// that were not reached are nil.
type Run struct {
	runner.Result
	Dir     string // of all that the runner kept
	Log     string // path of the whole log
	Plan    *handoff.Plan
	Build   *handoff.BuildResult
	Push    *handoff.PushResult
	Deploy  *handoff.DeployResult
	Traffic traffic.Summary // what the registry saw
}

// Start builds the binaries, starts the services and commits the monorepo to a
// repository of its own.
func Start(ctx context.Context, o Options) (*Pipeline, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	p := &Pipeline{Dir: dir, Workflow: ".gitea/workflows/ship.yaml", Repo: filepath.Join(dir, "monorepo"), action: filepath.Join(dir, "flakeship")}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	for _, step := range []func(context.Context, Options) error{p.buildAction, p.startServices, p.writeMonorepo} {
		if err := step(ctx, o); err != nil {
			p.Stop()
			return nil, err
		}
	}
	return p, nil
}

// Stop ends every service. State stays below Dir.
func (p *Pipeline) Stop() {
	if p.Env != nil {
		p.Env.Stop()
	}
}

// Remove deletes a state folder, the read-only Nix store in it included.
func Remove(dir string) error {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(path, 0o755) // what cannot be changed is named by RemoveAll
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// buildAction makes the folder that a release tag of flakeship holds: the
// action files and the binaries for this machine.
func (p *Pipeline) buildAction(ctx context.Context, o Options) error {
	e2e, err := build.Root()
	if err != nil {
		return err
	}
	root := filepath.Dir(e2e)
	fmt.Fprintln(o.Progress, "building the four binaries")
	if err := GoBuild(ctx, root, filepath.Join(p.action, "dist", runtime.GOOS+"-"+runtime.GOARCH), prefixed("./cmd/", Tools)...); err != nil {
		return err
	}
	return runner.CopyAction(root, p.action)
}

// GoBuild builds static programs of the main module, whose folder is root,
// into the folder out.
func GoBuild(ctx context.Context, root, out string, packages ...string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out + "/"}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", strings.Join(packages, " "), err, text)
	}
	return nil
}

func prefixed(prefix string, names []string) []string {
	var out []string
	for _, name := range names {
		out = append(out, prefix+name)
	}
	return out
}

func (p *Pipeline) startServices(ctx context.Context, o Options) error {
	var err error
	p.Env, err = env.Start(ctx, env.Options{
		Dir: filepath.Join(p.Dir, "services"), Progress: o.Progress,
		RegistryUser: registryUser, RegistryPassword: registryPassword,
	})
	if err != nil {
		return err
	}
	return p.freshStore(ctx)
}

// freshStore gives the runner an empty Nix store.
func (p *Pipeline) freshStore(ctx context.Context) error {
	var err error
	p.Nix, err = nixenv.New(ctx, filepath.Join(p.Dir, "nix"), nixenv.Options{})
	return err
}

// FreshRunner forgets what a runner keeps between jobs, its Nix store and its
// home. Cache, registry and cluster stay.
func (p *Pipeline) FreshRunner(ctx context.Context) error {
	for _, folder := range []string{"root", "home"} {
		if err := Remove(filepath.Join(p.Nix.Dir, folder)); err != nil {
			return err
		}
	}
	return p.freshStore(ctx)
}

// Tool is one of the four binaries as a person would run it, on the private
// Nix and with no settings of the user's.
func (p *Pipeline) Tool(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.action, "dist", runtime.GOOS+"-"+runtime.GOARCH, name), args...)
	cmd.Dir = p.Repo
	cmd.Env = append(p.Nix.Environ(), "GITHUB_REPOSITORY=example/monorepo", "INPUT_REGISTRY_USERNAME="+registryUser, "INPUT_REGISTRY_PASSWORD="+registryPassword)
	return cmd
}

// Release makes a git repository of flakeship below root, as a forge has it:
// the branch main with the source commit, and on top of that a commit with the
// binaries, which tag names. It returns that commit.
func (p *Pipeline) Release(ctx context.Context, root, tag string) (string, error) {
	repo := filepath.Join(root, "flakeship", "flakeship")
	if err := os.CopyFS(repo, os.DirFS(p.action)); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=main"},
		{"add", "action.yml", "actions"}, {"commit", "--quiet", "--message", "source"},
		{"checkout", "--quiet", "--detach"},
		{"add", "dist"}, {"commit", "--quiet", "--message", tag}, {"tag", "--annotate", "--message", tag, tag},
		{"checkout", "--quiet", "main"}, // what a forge answers to who names no ref
	} {
		if _, err := git(ctx, repo, args...); err != nil {
			return "", err
		}
	}
	return git(ctx, repo, "rev-parse", tag+"^{commit}")
}

// Registry is the prefix that images are pushed to.
func (p *Pipeline) Registry() string { return p.Env.Registry.Host + "/shop" }

// Ship runs the workflow for the newest commit. A failed run is no error: see
// Run.ExitCode. The log goes to live as well, when that is not nil.
func (p *Pipeline) Ship(ctx context.Context, r runner.Runner, live io.Writer) (*Run, error) {
	return p.ShipAs(ctx, r, func(j *runner.Job) { j.Log = live })
}

// ShipAs is Ship for a job that is not like the others: change is given it before it runs.
func (p *Pipeline) ShipAs(ctx context.Context, r runner.Runner, change func(*runner.Job)) (*Run, error) {
	key, err := os.ReadFile(p.Nix.SecretKeyFile)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := os.ReadFile(p.Env.Cluster.Kubeconfig)
	if err != nil {
		return nil, err
	}
	if _, err := p.Env.Registry.Traffic(); err != nil { // from now on
		return nil, err
	}
	p.runs++
	dir := filepath.Join(p.Dir, "runs", fmt.Sprint(p.runs))
	job := runner.Job{
		Runner: r, Dir: dir, Source: p.Repo, Workflow: p.Workflow,
		Actions: map[string]string{"flakeship/flakeship@v1": p.action}, ActionsURL: p.ActionsURL,
		Env: p.Nix.Env(),
		Vars: map[string]string{
			"CACHE_URL": p.Env.Cache.URL, "CACHE_PUBLIC_KEY": p.Nix.PublicKey,
			"REGISTRY": p.Registry(), "REGISTRY_USERNAME": registryUser,
		},
		Secrets: map[string]string{
			"CACHE_SIGNING_KEY": strings.TrimSpace(string(key)), "REGISTRY_PASSWORD": registryPassword, "REGISTRY_TOKEN": registryPassword,
			"KUBECONFIG": string(kubeconfig),
		},
	}
	change(&job)
	result, err := runner.Run(ctx, job)
	if err != nil {
		return nil, err
	}
	run := &Run{Result: result, Dir: job.Dir, Log: filepath.Join(job.Dir, "log.txt")}
	if err := os.WriteFile(run.Log, []byte(result.Log), 0o644); err != nil {
		return nil, err
	}
	requests, err := p.Env.Registry.Traffic()
	if err != nil {
		return nil, err
	}
	run.Traffic = traffic.Sum(requests)
	return run, run.readDocuments()
}

// readDocuments reads the hand-over documents from the outputs of the four
// steps inside the root action.
func (run *Run) readDocuments() error {
	find := func(name string, d handoff.Document) (bool, error) {
		for _, outputs := range run.Outputs {
			if text := outputs[name]; text != "" {
				return true, handoff.Load(text, d)
			}
		}
		return false, nil
	}
	var plan handoff.Plan
	var built handoff.BuildResult
	var pushed handoff.PushResult
	var deployed handoff.DeployResult
	for name, d := range map[string]handoff.Document{"plan-json": &plan, "build-result-json": &built, "push-result-json": &pushed, "deploy-result-json": &deployed} {
		found, err := find(name, d)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		switch d.(type) {
		case *handoff.Plan:
			run.Plan = &plan
		case *handoff.BuildResult:
			run.Build = &built
		case *handoff.PushResult:
			run.Push = &pushed
		case *handoff.DeployResult:
			run.Deploy = &deployed
		}
	}
	return nil
}

// Counts are a run's numbers as the demo's table shows them.
type Counts struct {
	Images, Built, Pushed, Objects, Changed int
	Bytes                                   int64
	Elapsed                                 time.Duration
}

// Counts counts what the run did, by its own documents; bytes are the registry's count.
func (run *Run) Counts() Counts {
	c := Counts{Bytes: run.Traffic.BytesIn, Elapsed: run.Elapsed}
	if run.Plan != nil {
		c.Images = len(run.Plan.Images)
	}
	if run.Build != nil {
		for _, image := range run.Build.Images {
			if image.State == handoff.BuildBuilt {
				c.Built++
			}
		}
	}
	if run.Push != nil {
		for _, image := range run.Push.Images {
			if image.State == handoff.PushUploaded {
				c.Pushed++
			}
		}
	}
	if run.Deploy != nil {
		c.Objects = len(run.Deploy.Objects)
		for _, object := range run.Deploy.Objects {
			if object.Action == handoff.ActionCreated || object.Action == handoff.ActionConfigured || object.Action == handoff.ActionRecreated {
				c.Changed++
			}
		}
	}
	return c
}

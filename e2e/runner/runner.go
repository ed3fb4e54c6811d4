// Package runner runs one workflow of one commit under a real runner: the
// Gitea runner or act, which keeps closer to GitHub. Both run the steps on the
// host, without containers and without network:
//
//	result, err := runner.Run(ctx, runner.Job{
//		Runner:   runner.Gitea,
//		Dir:      t.TempDir(),
//		Source:   repository,
//		Workflow: ".gitea/workflows/ship.yaml",
//		Actions:  map[string]string{"flakeship/flakeship@v1": actionFolder},
//		Secrets:  map[string]string{"REGISTRY_PASSWORD": "…"},
//	})
//
// A step sees PATH of the calling process, a home and caches of its own below
// Dir, and Job.Env; nothing else of the user's environment.
//
// actions/checkout works: both runners replace it by a copy of the commit.
// Every other action must be in Job.Actions.
package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/flakeship/flakeship/e2e/build"
	"github.com/flakeship/flakeship/e2e/process"
	"github.com/flakeship/flakeship/e2e/runner/task"
)

// Runner names a runner.
type Runner string

// The runners.
const (
	Gitea Runner = "gitea" // Gitea runner v1.0.8
	Act   Runner = "act"   // nektos/act v0.2.89; its steps see a terminal

	// GiteaAct is Gitea's fork of act at v0.261.10, which its runners were up to version 0.4. It loses a line of output of
	// more than 64 KiB, and every output after it.
	GiteaAct Runner = "gitea-act"
)

// All are the runners of today, for tests that hold under each of them.
var All = []Runner{Gitea, Act}

// Job is what to run.
type Job struct {
	Runner Runner
	// Dir gets all files of the run; a folder used before keeps its home and caches.
	Dir string
	// Source is a git repository on disk. It is cloned, never written to.
	Source string
	Commit string // revision to run; empty is HEAD
	Branch string // branch the event is about; empty is main
	// Workflow is the path of the workflow file inside the repository.
	Workflow string
	JobID    string // the one job to run; empty runs all jobs of the event
	// Repository is owner/name as the workflow sees it; empty is example/monorepo.
	Repository string
	EventName  string         // empty is push
	Event      map[string]any // payload; nil is that of a push of Commit
	// Env is seen by every step.
	Env     map[string]string
	Secrets map[string]string // masked in the log; names are upper case
	Vars    map[string]string
	// Actions maps owner/name@ref, as in `uses: owner/name/path@ref`, to the
	// folder that holds the action's repository (see CopyAction).
	Actions map[string]string
	// ActionsURL is a git server that the Gitea runner clones actions from, as
	// it does in production; Actions is not looked at then.
	ActionsURL string
	// Artifacts starts the runner's own artifact server on loopback, which keeps its files in Dir/artifacts. The actions that
	// users upload and download with are then there, see artifactActions.
	Artifacts bool
	// Cancel gives SIGINT or SIGTERM to the runner alone, which cancels the run then. What that does not end has a while to
	// end by itself; what is still there after it is named in the log as "left running".
	Cancel <-chan syscall.Signal
	// Log gets the log as it is written; nil keeps it for Result.
	Log io.Writer
	// Services and ActPath are the programs; empty builds them.
	Services, ActPath string

	artifactPort string
}

// Result is what came of it.
type Result struct {
	ExitCode int // of the runner: 0 when all jobs succeeded
	// Log is what a user would see: masked, a line per line of output, without
	// colours, starting with the job's name in brackets.
	Log string
	// Outputs are those of each step of a job: Outputs[step][name], a step
	// without id under its number from 0. Steps of composite actions are
	// named "outer/inner".
	Outputs map[string]map[string]string
	Elapsed time.Duration
}

// Run runs the job and returns once nothing of it is left running. A failed
// job is no error: see Result.ExitCode. When ctx ends, everything the job
// started is killed and ctx's error returned with the result so far.
func Run(ctx context.Context, j Job) (Result, error) {
	if err := j.setDefaults(ctx); err != nil {
		return Result{}, err
	}
	workspace := filepath.Join(j.Dir, "checkout")
	if err := j.checkout(ctx, workspace); err != nil {
		return Result{}, err
	}
	if _, err := os.Stat(filepath.Join(workspace, j.Workflow)); err != nil {
		return Result{}, fmt.Errorf("workflow in commit %s: %w", j.Commit, err)
	}
	defer os.RemoveAll(j.inputDir()) // no error: a folder of our own
	args, stdin, err := j.commandLine(workspace)
	if err != nil {
		return Result{}, err
	}
	env, err := j.hostEnv()
	if err != nil {
		return Result{}, err
	}

	begin := time.Now()
	log := newLog(j.Log)
	p, err := process.Start(process.Options{
		Name: "runner", Path: j.Services, Args: append([]string{"supervise"}, args...),
		Env: env, Dir: workspace, Stdin: stdin, Stdout: log, LogDir: j.Dir,
		// supervise then ends what the steps have started.
		DeathSignal: syscall.SIGTERM,
	})
	if err != nil {
		return Result{}, err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
	case s := <-j.Cancel:
		if s == syscall.SIGTERM {
			s = process.CancelByTerm
		}
		_ = p.Signal(s) // it has ended: so has the run
		select {
		case <-p.Done():
		case <-ctx.Done():
		}
	}
	p.Stop(10 * time.Second) // more than supervise takes
	result := log.result()
	result.Elapsed = time.Since(begin)
	if ctx.Err() != nil {
		result.ExitCode = -1
		return result, fmt.Errorf("run workflow: %w", context.Cause(ctx))
	}
	var exit *exec.ExitError
	if err := p.Wait(); errors.As(err, &exit) {
		result.ExitCode = exit.ExitCode()
		// Why the runner itself failed is on standard error.
		result.Log += p.Tail(20) + "\n"
	} else if err != nil {
		return result, err
	}
	return result, nil
}

// acts makes the programs of the runners with act's command line.
var acts = map[Runner]func(context.Context, io.Writer) (string, error){Act: build.Act, GiteaAct: build.GiteaAct}

func (j *Job) setDefaults(ctx context.Context) error {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&j.Branch, "main"}, {&j.Commit, "HEAD"}, {&j.Repository, "example/monorepo"}, {&j.EventName, "push"},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	var err error
	if j.Dir, err = filepath.Abs(j.Dir); err != nil {
		return err
	}
	if j.Source, err = filepath.Abs(j.Source); err != nil {
		return err
	}
	if j.Services == "" {
		if j.Services, err = build.Services(ctx, j.Log); err != nil {
			return err
		}
	}
	if program := acts[j.Runner]; program != nil && j.ActPath == "" {
		if j.ActPath, err = program(ctx, j.Log); err != nil {
			return err
		}
	}
	if j.Artifacts {
		if err := j.artifactActions(); err != nil {
			return err
		}
	}
	commit, err := j.git(ctx, j.Source, "rev-parse", "--verify", j.Commit+"^{commit}")
	if err != nil {
		return err
	}
	j.Commit = strings.TrimSpace(commit)
	if j.Event == nil {
		j.Event = j.pushEvent(ctx)
	}
	return nil
}

// pushEvent has the fields of a push that workflows read.
func (j *Job) pushEvent(ctx context.Context) map[string]any {
	before, err := j.git(ctx, j.Source, "rev-parse", "--verify", j.Commit+"^")
	if err != nil {
		before = strings.Repeat("0", 40) // the first commit has no parent
	}
	owner, name, _ := strings.Cut(j.Repository, "/")
	return map[string]any{
		"ref": "refs/heads/" + j.Branch, "before": strings.TrimSpace(before), "after": j.Commit,
		"repository": map[string]any{
			"full_name": j.Repository, "name": name, "default_branch": "main",
			"owner": map[string]any{"login": owner},
		},
	}
}

// checkout makes workspace a clone of its own, at the commit, on the branch.
func (j *Job) checkout(ctx context.Context, workspace string) error {
	if err := os.RemoveAll(workspace); err != nil {
		return err
	}
	if err := os.MkdirAll(j.Dir, 0o755); err != nil {
		return err
	}
	if _, err := j.git(ctx, j.Dir, "clone", "--quiet", "--no-checkout", j.Source, workspace); err != nil {
		return err
	}
	if _, err := j.git(ctx, workspace, "checkout", "--quiet", "-B", j.Branch, j.Commit); err != nil {
		return err
	}
	_, err := j.git(ctx, workspace, "remote", "set-url", "origin", serverURL+"/"+j.Repository+".git")
	return err
}

// git runs without the user's and the system's settings.
func (j *Job) git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + j.Dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// serverURL stands for the forge; nothing listens there.
const serverURL = "http://forge.test"

// commandLine is the runner's, and what it reads from standard input.
func (j *Job) commandLine(workspace string) (args []string, stdin io.Reader, err error) {
	cache := filepath.Join(j.Dir, "runner-cache")
	workflow := filepath.Join(workspace, j.Workflow)
	env := map[string]string{"GITHUB_SERVER_URL": serverURL}
	if j.Runner == Gitea {
		env["GITEA_ACTIONS"] = "true"
		env["GITEA_ACTIONS_RUNNER_VERSION"] = "v1.0.8"
		maps.Copy(env, j.Env)
		text, err := json.Marshal(task.Task{
			Workflow: workflow, Job: j.JobID, Workspace: workspace, CacheDir: cache,
			ServerURL: serverURL, Repository: j.Repository, Branch: j.Branch, Commit: j.Commit, Actor: actor,
			EventName: j.EventName, Event: j.Event, Env: env, Secrets: j.Secrets, Vars: j.Vars, Actions: j.Actions, ActionsURL: j.ActionsURL,
			ArtifactDir: j.artifactDir(), ArtifactPort: j.artifactPort,
		})
		return []string{j.Services, "gitea-runner"}, bytes.NewReader(text), err
	}

	env["GITHUB_REPOSITORY"] = j.Repository
	maps.Copy(env, j.Env)
	secrets := map[string]string{"GITHUB_TOKEN": ""} // act would ask the gh command for one
	maps.Copy(secrets, j.Secrets)
	args = []string{
		j.ActPath, j.EventName, "--json", "--directory", workspace, "--workflows", workflow, "--actor", actor,
		"--no-cache-server", "--action-offline-mode", "--use-new-action-cache", "--action-cache-path", cache,
		"--use-gitignore=false", "--pull=false", "--container-daemon-socket", "-", "--input-file", os.DevNull,
	}
	// Files, since a command line can be read by everyone; JSON is YAML, which act takes.
	if err := os.MkdirAll(j.inputDir(), 0o700); err != nil {
		return nil, nil, err
	}
	for flag, value := range map[string]any{"secret-file": secrets, "env-file": env, "var-file": j.Vars, "eventpath": j.Event} {
		file := filepath.Join(j.inputDir(), flag+".yaml")
		text, err := json.Marshal(value)
		if err != nil {
			return nil, nil, err
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return nil, nil, err
		}
		args = append(args, "--"+flag, file)
	}
	if j.JobID != "" {
		args = append(args, "--job", j.JobID)
	}
	for _, label := range hostLabels {
		args = append(args, "--platform", label+"=-self-hosted")
	}
	for name, folder := range j.Actions {
		args = append(args, "--local-repository", name+"="+folder)
	}
	if j.Artifacts {
		args = append(args, "--artifact-server-path", j.artifactDir(), "--artifact-server-addr", "127.0.0.1", "--artifact-server-port", j.artifactPort)
	}
	return args, nil, nil
}

// inputDir holds secrets while act runs.
func (j *Job) inputDir() string { return filepath.Join(j.Dir, "act-input") }

const actor = "flakeship-e2e"

// hostLabels are the runs-on labels that act may run on the host; the Gitea
// runner is told to take any.
var hostLabels = []string{"ubuntu-latest", "self-hosted", "nix", "linux"}

// hostEnv is the environment of the runner, which hands all of it to the steps.
func (j *Job) hostEnv() ([]string, error) {
	home := filepath.Join(j.Dir, "home")
	tmp := filepath.Join(j.Dir, "tmp")
	env := []string{
		"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "USER=" + actor,
		"HOME=" + home, "TMPDIR=" + tmp,
		"XDG_CACHE_HOME=" + filepath.Join(home, ".cache"), "XDG_CONFIG_HOME=" + filepath.Join(home, ".config"),
		"XDG_DATA_HOME=" + filepath.Join(home, ".local", "share"), "XDG_STATE_HOME=" + filepath.Join(home, ".local", "state"),
		"DOCKER_CONFIG=" + filepath.Join(home, ".docker"),
		"GIT_CONFIG_NOSYSTEM=1",
	}
	return env, errors.Join(os.MkdirAll(home, 0o700), os.MkdirAll(tmp, 0o700))
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"gitea.com/gitea/runner/act/artifacts"
	"gitea.com/gitea/runner/act/common"
	"gitea.com/gitea/runner/act/model"
	"gitea.com/gitea/runner/act/runner"
	"github.com/sirupsen/logrus"

	"github.com/flakeship/flakeship/e2e/runner/task"
)

// giteaRunner runs one workflow in host mode, as the Gitea runner does with a
// task of a Gitea server, but reads the task from standard input and resolves
// actions to local folders, unless the task names a server to clone them from.
func giteaRunner() int {
	var t task.Task
	if err := json.NewDecoder(os.Stdin).Decode(&t); err != nil {
		fmt.Fprintln(os.Stderr, "services gitea-runner: task on standard input:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := runTask(ctx, t); err != nil {
		fmt.Fprintln(os.Stderr, "services gitea-runner:", err)
		return 1
	}
	return 0
}

func runTask(ctx context.Context, t task.Task) error {
	planner, err := model.NewWorkflowPlanner(t.Workflow, true)
	if err != nil {
		return err
	}
	plan, err := planner.PlanEvent(t.EventName)
	if t.Job != "" {
		plan, err = planner.PlanJob(t.Job)
	}
	if err != nil {
		return err
	}
	if len(plan.Stages) == 0 {
		return fmt.Errorf("%s: no job for event %q", t.Workflow, t.EventName)
	}
	eventJSON, err := json.Marshal(t.Event)
	if err != nil {
		return err
	}
	logLevel := logrus.InfoLevel
	config := &runner.Config{
		Workdir:        t.Workspace,
		ActionCacheDir: t.CacheDir,
		LogOutput:      true,
		JSONLogger:     true,
		JobLoggerLevel: &logLevel,
		Env:            t.Env,
		Secrets:        t.Secrets,
		Vars:           t.Vars,
		GitHubInstance: t.ServerURL,
		EventJSON:      string(eventJSON),
		// actions/checkout copies Workdir, which package runner fills with the commit:
		// the real action is JavaScript fetched from the network.
		NoSkipCheckout: false,
		PlatformPicker: func([]string) string { return "-self-hosted" },
		PresetGitHubContext: &model.GithubContext{
			Event: t.Event, EventName: t.EventName,
			RunID: "1", RunNumber: "1", RunAttempt: "1", RetentionDays: "0",
			Actor: t.Actor, Repository: t.Repository, RepositoryOwner: t.Owner(),
			Sha: t.Commit, Ref: "refs/heads/" + t.Branch, RefName: t.Branch, RefType: "branch",
			Token: t.Secrets["GITHUB_TOKEN"],
		},
	}
	if t.ActionsURL != "" {
		config.DefaultActionInstance = t.ActionsURL
	} else {
		config.ActionCache = &runner.LocalRepositoryCache{
			Parent:            noNetwork{},
			LocalRepositories: t.Actions,
			CacheDirCache:     map[string]string{},
		}
	}
	if t.ArtifactDir != "" {
		config.ArtifactServerPath, config.ArtifactServerAddr, config.ArtifactServerPort = t.ArtifactDir, "127.0.0.1", t.ArtifactPort
		defer artifacts.Serve(ctx, t.ArtifactDir, "127.0.0.1", t.ArtifactPort)()
	}
	r, err := runner.New(config)
	if err != nil {
		return err
	}
	return r.NewPlanExecutor(plan)(common.WithDryrun(ctx, false))
}

// noNetwork is asked for actions that are not among the task's.
type noNetwork struct{}

func (noNetwork) Fetch(_ context.Context, _, url, ref, _ string) (string, error) {
	return "", fmt.Errorf("action %s@%s is not among the local ones, and this runner has no network", url, ref)
}

func (noNetwork) GetTarArchive(_ context.Context, dir, sha, _ string) (io.ReadCloser, error) {
	return nil, fmt.Errorf("action %s@%s was never fetched", dir, sha)
}

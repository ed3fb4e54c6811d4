package action_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/internal/action"
)

// event is the environment of a run of an event, whose payload is in testdata, changed as the pairs of replaced say.
func event(t *testing.T, name, file string, replaced ...string) map[string]string {
	t.Helper()
	env := runnerEnv(t)
	env["GITHUB_EVENT_NAME"] = name
	env["GITHUB_EVENT_PATH"] = filepath.Join(t.TempDir(), "event.json")
	payload, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(replaced...).Replace(string(payload))
	if text == string(payload) && len(replaced) > 0 {
		t.Fatalf("%s does not hold %q", file, replaced)
	}
	if err := os.WriteFile(env["GITHUB_EVENT_PATH"], []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return env
}

func forkOf(t *testing.T, env map[string]string) (fork string) {
	t.Helper()
	start(t, env, nil, func(_ context.Context, e *action.Env) error { fork = e.Fork(); return nil })
	return fork
}

// The payloads have the shape in which each forge sends them, with what flakeship does not read left out.
func TestForksAreTold(t *testing.T) {
	gone := event(t, "pull_request", "github-fork.json")
	gone["GITHUB_EVENT_PATH"] += ".gone"
	for _, c := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"GitHub", event(t, "pull_request", "github-fork.json"), "stranger/shop"},
		{"Gitea", event(t, "pull_request", "gitea-fork.json"), "stranger/shop"},
		{"a review", event(t, "pull_request_review", "github-fork.json"), "stranger/shop"},
		{"the head was deleted", event(t, "pull_request", "gitea-fork.json", `"repo": {"id": 202, "name": "shop", "full_name": "stranger/shop", "private": false, "fork": true, "parent": {"id": 101, "full_name": "team/shop"}}`, `"repo": null`), "a repository that was deleted"},
		{"without ids", event(t, "pull_request", "github-fork.json", `"id": 202,`, "", `"id": 101,`, ""), "stranger/shop"},
		{"renamed meanwhile", event(t, "pull_request", "github-fork.json", `"id": 202`, `"id": 101`), ""},
		{"a branch of the same repository", event(t, "pull_request", "gitea-fork.json", "stranger/shop", "team/shop", `"id": 202`, `"id": 101`), ""},
		{"a branch of a repository that is a fork itself", event(t, "pull_request", "github-fork.json", "stranger/shop", "team/shop", `"id": 202`, `"id": 101`, `"fork": false`, `"fork": true`), ""},
		{"an event with secrets", event(t, "pull_request_target", "github-fork.json"), ""},
		{"a push", event(t, "push", "github-fork.json"), ""},
		{"no JSON", event(t, "pull_request", "github-fork.json", "{", "<"), ""},
		{"no file", gone, ""},
		{"no runner", map[string]string{"INPUT_PLAN": "p"}, ""},
	} {
		if got := forkOf(t, c.env); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestOneNoticeForAllSteps(t *testing.T) {
	env := event(t, "pull_request", "gitea-fork.json", "stranger/shop", "::error::x/y")
	env["GITHUB_RUN_ID"] = "../17"
	out := ""
	for range 3 {
		out += start(t, env, nil, func(_ context.Context, e *action.Env) error {
			e.LeaveOut("the push to %s", "registry.example.org\n::error::boo")
			e.LeaveOut("the deploy")
			return nil
		}).stdout
	}
	if strings.Count(out, "try-it: notice: this pull request comes from ::error::x/y, and runs of forks get no secrets: ") != 1 || strings.Count(out, "\n::notice::") != 1 ||
		strings.Count(out, "\nleft out: the push to registry.example.org\n: :error::boo\n") != 3 || strings.Count(out, "\nleft out: the deploy\n") != 3 {
		t.Error(out)
	}
	env["GITHUB_RUN_ATTEMPT"] = "2" // a re-run on a runner that keeps its folder
	again := start(t, env, nil, func(_ context.Context, e *action.Env) error { e.LeaveOut("the push"); return nil }).stdout
	if !strings.Contains(again, "notice: ") {
		t.Errorf("a re-run says nothing: %s", again)
	}
}

func FuzzFork(f *testing.F) {
	for _, file := range []string{"github-fork.json", "gitea-fork.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "event.json")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		forkOf(t, map[string]string{"INPUT_PLAN": "p", "GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": path})
	})
}

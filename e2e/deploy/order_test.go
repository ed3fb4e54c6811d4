package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Where nobody counts runs, the time of the commits says which is older.
func TestStaleCommitByTime(t *testing.T) {
	t.Parallel()
	ns, repository := namespace(t), t.TempDir()
	git := func(day int, args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = repository
		when := fmt.Sprintf("2026-01-%02dT00:00:00Z", day)
		cmd.Env = []string{"HOME=" + repository, "PATH=" + os.Getenv("PATH"), "GIT_AUTHOR_DATE=" + when, "GIT_COMMITTER_DATE=" + when,
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git(1, "init", "--quiet")
	commit := func(day int) string {
		git(day, "commit", "--quiet", "--allow-empty", "--message", fmt.Sprint(day))
		return git(day, "rev-parse", "HEAD")
	}
	first, second, third := commit(1), commit(2), commit(3)
	with := func(commit, value string, more ...string) outcome {
		environ := []string{"GITHUB_SHA=" + commit, "GIT_DIR=" + filepath.Join(repository, ".git")}
		return deployIn(t, environ, fmt.Sprintf(configMap, "a", ns, value), append([]string{"--namespace", ns}, more...)...)
	}
	with(second, "2").wants(t, 0)
	with(first, "1").wants(t, 4, "commit "+first[:12]+" (process ", ") is older than commit "+second[:12]+" (process ", "allow-older: true")
	if got := value(t, ns, "a"); got != "2" {
		t.Errorf("a is %s", got)
	}
	with(third, "3").wants(t, 0, "1 configured")
	with(first, "1", "--allow-older").wants(t, 0, "1 configured")
}

package pipeline

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/flakeship/flakeship/e2e/build"
)

// writeMonorepo copies the example to a git repository of its own and commits
// it, with the two programs its builds need beside the flake.
func (p *Pipeline) writeMonorepo(ctx context.Context, o Options) error {
	e2e, err := build.Root()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(p.Repo); err != nil {
		return err
	}
	if err := os.CopyFS(p.Repo, os.DirFS(filepath.Join(e2e, "testdata", "monorepo"))); err != nil {
		return err
	}
	tools := filepath.Join(p.Repo, "tools")
	if err := GoBuild(ctx, filepath.Dir(e2e), tools, "./internal/testenv/imagetool"); err != nil {
		return err
	}
	busybox, err := os.ReadFile(p.Nix.Busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tools, "busybox"), busybox, 0o755); err != nil {
		return err
	}
	fmt.Fprintf(o.Progress, "committing the example monorepo to %s\n", p.Repo)
	if _, err := git(ctx, p.Repo, "init", "--quiet", "--initial-branch", "main"); err != nil {
		return err
	}
	return p.commit("seven services")
}

// Another makes a second repository, of lib and tools of the monorepo and of files by their paths, and ships that from now on.
func (p *Pipeline) Another(ctx context.Context, name string, files map[string]string) error {
	repo := filepath.Join(p.Dir, name)
	for _, folder := range []string{"lib", "tools"} {
		if err := os.CopyFS(filepath.Join(repo, folder), os.DirFS(filepath.Join(p.Repo, folder))); err != nil {
			return err
		}
	}
	for file, text := range files {
		path := filepath.Join(repo, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if _, err := git(ctx, repo, "init", "--quiet", "--initial-branch", "main"); err != nil {
		return err
	}
	p.Repo = repo
	return p.commit(name)
}

// Edit replaces old, which must be there, by new in a file of the monorepo and
// commits the change.
func (p *Pipeline) Edit(file, old, new string) error {
	path := filepath.Join(p.Repo, file)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), old) {
		return fmt.Errorf("%s does not hold %q", file, old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, new, 1)), 0o644); err != nil {
		return err
	}
	return p.commit("change " + file)
}

// Write writes a file of the monorepo and commits it.
func (p *Pipeline) Write(file, text string) error {
	if err := os.WriteFile(filepath.Join(p.Repo, file), []byte(text), 0o644); err != nil {
		return err
	}
	return p.commit("write " + file)
}

func (p *Pipeline) commit(message string) error {
	ctx := context.Background() // too quick to be cancelled
	if _, err := git(ctx, p.Repo, "add", "--all"); err != nil {
		return err
	}
	_, err := git(ctx, p.Repo, "commit", "--quiet", "--message", message)
	return err
}

// git runs in dir without the user's settings and returns what it printed.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=demo", "GIT_AUTHOR_EMAIL=demo@example.org", "GIT_COMMITTER_NAME=demo", "GIT_COMMITTER_EMAIL=demo@example.org")
	text, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, text)
	}
	return strings.TrimSpace(string(text)), nil
}

// Command release makes a release of flakeship, and checks one.
//
//	release dist v0.1.0 dist     the binaries of this tree, and SHA256SUMS
//	release tag v0.1.0           a commit on top of HEAD that adds dist/, and an annotated tag on it; no branch moves
//	release verify v0.1.0        rebuilds what a tag was made of, and compares
//
// It works on the repository it is started in. With FLAKESHIP_MINISIGN_KEY (and FLAKESHIP_MINISIGN_PASSWORD for an encrypted
// one) SHA256SUMS is signed; with FLAKESHIP_MINISIGN_PUBLIC_KEY verify wants that signature.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
)

var versionForm = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: release dist VERSION FOLDER | release tag VERSION | release verify VERSION")
	}
	version := args[1]
	if !versionForm.MatchString(version) {
		return fmt.Errorf("%q is no version such as v0.1.0", version)
	}
	top, err := git(ctx, "", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	switch {
	case args[0] == "dist" && len(args) == 3:
		commit, err := git(ctx, top, "rev-parse", "HEAD")
		if err != nil {
			return err
		}
		return dist(ctx, release{source: top, version: version, commit: commit}, args[2])
	case args[0] == "tag" && len(args) == 2:
		return tag(ctx, top, version)
	case args[0] == "verify" && len(args) == 2:
		return verify(ctx, top, version)
	}
	return fmt.Errorf("release %s: unknown, or not with these arguments", args[0])
}

// git runs git in a folder and returns what it printed, without the last newline.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	return gitEnv(ctx, dir, nil, args...)
}

func gitEnv(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// checkout makes a work tree of a commit, with nothing in it that git does not know of. Call remove when done.
func checkout(ctx context.Context, top, commit string) (dir string, remove func(), err error) {
	parent, err := os.MkdirTemp("", "flakeship-release-")
	if err != nil {
		return "", nil, err
	}
	dir = parent + "/source"
	if _, err := git(ctx, top, "worktree", "add", "--detach", dir, commit); err != nil {
		os.RemoveAll(parent)
		return "", nil, err
	}
	return dir, func() {
		_, _ = git(context.WithoutCancel(ctx), top, "worktree", "remove", "--force", dir) // prune cleans up after a failure
		os.RemoveAll(parent)
		_, _ = git(context.WithoutCancel(ctx), top, "worktree", "prune")
	}, nil
}

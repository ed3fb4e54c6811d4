package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// tag makes a commit on top of HEAD that adds dist/, and an annotated tag on it. The branch stays where it is, so that its
// history never carries binaries.
func tag(ctx context.Context, top, version string) error {
	if dirty, err := git(ctx, top, "status", "--porcelain"); err != nil {
		return err
	} else if dirty != "" {
		return fmt.Errorf("the work tree has changes that no commit has:\n%s", dirty)
	}
	if _, err := git(ctx, top, "rev-parse", "--verify", "--quiet", "refs/tags/"+version); err == nil {
		return fmt.Errorf("tag %s is there already, and a tag never moves", version)
	}
	commit, err := git(ctx, top, "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	notes, err := notes(ctx, top, commit, version)
	if err != nil {
		return err
	}
	source, remove, err := checkout(ctx, top, commit)
	if err != nil {
		return err
	}
	defer remove()
	if err := dist(ctx, release{source: source, version: version, commit: commit}, filepath.Join(source, "dist")); err != nil {
		return err
	}
	// An index and a work tree of its own: a release does not touch what somebody is working on.
	if _, err := git(ctx, source, "add", "--force", "dist"); err != nil {
		return err
	}
	tree, err := git(ctx, source, "write-tree")
	if err != nil {
		return err
	}
	message := version + "\n\nThe source of " + commit + " with the binaries built from it."
	made, err := git(ctx, source, "commit-tree", tree, "-p", commit, "-m", message)
	if err != nil {
		return err
	}
	if _, err := git(ctx, source, "tag", "--annotate", "--cleanup=verbatim", "--message", version+"\n\n"+notes, version, made); err != nil {
		return err
	}
	fmt.Printf("tagged %s as %s; publish it with: git push origin %s\n", made, version, version)
	return nil
}

// notes is the version's section of CHANGELOG.md: who pins a version wants to read what it changes.
func notes(ctx context.Context, top, commit, version string) (string, error) {
	text, err := git(ctx, top, "show", commit+":CHANGELOG.md")
	if err != nil {
		return "", err
	}
	_, section, found := strings.Cut("\n"+text, "\n## "+version+"\n")
	if !found {
		return "", fmt.Errorf("CHANGELOG.md has no section %q", "## "+version)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return strings.TrimSpace(section) + "\n", nil
}

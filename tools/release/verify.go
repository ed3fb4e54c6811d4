package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// verify rebuilds a tag from the commit below it and compares every byte.
func verify(ctx context.Context, top, version string) error {
	tagged, err := git(ctx, top, "rev-parse", "--verify", "refs/tags/"+version+"^{commit}")
	if err != nil {
		return fmt.Errorf("no tag %s: %w", version, err)
	}
	source, err := git(ctx, top, "rev-parse", "--verify", tagged+"^")
	if err != nil {
		return fmt.Errorf("%s is not on top of a source commit: %w", version, err)
	}
	// Binaries that match prove nothing when the launcher beside them is another one.
	changed, err := git(ctx, top, "diff", "--name-only", source, tagged)
	if err != nil {
		return err
	}
	for path := range strings.Lines(changed) {
		if path = strings.TrimSpace(path); !strings.HasPrefix(path, "dist/") {
			return fmt.Errorf("%s changes %s of its source commit %s; it may only add dist/", version, path, source)
		}
	}

	published, removePublished, err := checkout(ctx, top, tagged)
	if err != nil {
		return err
	}
	defer removePublished()
	rebuilt, removeRebuilt, err := checkout(ctx, top, source)
	if err != nil {
		return err
	}
	defer removeRebuilt()

	sums, err := os.ReadFile(filepath.Join(published, "dist", "SHA256SUMS"))
	if err != nil {
		return err
	}
	if err := verifySignature(filepath.Join(published, "dist", "SHA256SUMS")); err != nil {
		return err
	}
	actual, err := checksums(os.DirFS(filepath.Join(published, "dist")))
	if err != nil {
		return err
	}
	if actual != string(sums) {
		return fmt.Errorf("%s: dist/SHA256SUMS is not of the files beside it:%s", version, difference(string(sums), actual))
	}
	out := filepath.Join(rebuilt, "dist")
	if err := dist(ctx, release{source: rebuilt, version: version, commit: source}, out); err != nil {
		return err
	}
	again, err := checksums(os.DirFS(out))
	if err != nil {
		return err
	}
	if again != string(sums) {
		return fmt.Errorf("%s: built again from %s, these differ:%s", version, source, difference(string(sums), again))
	}
	fmt.Printf("%s: %d files are what %s builds to\n", version, strings.Count(again, "\n"), source)
	return nil
}

// difference lists the lines of two texts that only one of them has.
func difference(was, is string) string {
	var lines strings.Builder
	for _, side := range []struct{ sign, has, other string }{{"-", was, is}, {"+", is, was}} {
		for line := range strings.Lines(side.has) {
			if !strings.Contains("\n"+side.other, "\n"+line) {
				lines.WriteString("\n" + side.sign + " " + strings.TrimSuffix(line, "\n"))
			}
		}
	}
	return lines.String()
}

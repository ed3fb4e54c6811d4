package runner

import (
	"fmt"
	"os"
	"path/filepath"
)

// CopyAction copies the action files of the flakeship repository at root,
// action.yml and actions/, to dir, where a release has the binaries beside
// them in dist/. A runner copies an action's whole folder per use, so a work
// tree with its caches is not given to it.
func CopyAction(root, dir string) error {
	if err := copyAction(root, dir); err != nil {
		return fmt.Errorf("copy the action to %s: %w", dir, err)
	}
	return nil
}

func copyAction(root, dir string) error {
	folder := filepath.Join(dir, "actions")
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := os.CopyFS(folder, os.DirFS(filepath.Join(root, "actions"))); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(root, "action.yml"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "action.yml"), text, 0o644)
}

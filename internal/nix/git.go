package nix

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// trustRepository is the environment that lets Git and Nix read the repository of a local flake reference, although
// another user owns it. Jobs in containers run as root on a checkout of the host's user, and both Git (since 2.35.2) and
// libgit2, which Nix has used since 2.20, refuse that: "detected dubious ownership".
//
// Git honours safe.directory in its global configuration alone, libgit2 in ~/.gitconfig and $XDG_CONFIG_HOME/git/config. So
// a folder of ours takes the place of the latter, and includes what the user has in either.
//
// remove deletes the folder; it is never nil.
func (n *Nix) trustRepository(ref string) (env []string, remove func(), err error) {
	nothing := func() {}
	top := repository(ref, n.dir)
	if top == "" || ownedByUs(top, filepath.Join(top, ".git")) {
		return nil, nothing, nil
	}
	dir, err := os.MkdirTemp(n.getenv("RUNNER_TEMP"), "flakeship-git-")
	if err != nil {
		return nil, nothing, fmt.Errorf("git settings for a repository of another user: %w", err)
	}
	remove = func() { os.RemoveAll(dir) }
	home := n.getenv("HOME")
	config := n.getenv("XDG_CONFIG_HOME")
	if config == "" {
		config = filepath.Join(home, ".config")
	}
	includes := []string{filepath.Join(config, "git", "config"), filepath.Join(home, ".gitconfig")}
	if global := n.getenv("GIT_CONFIG_GLOBAL"); global != "" {
		includes = []string{global}
	}
	var text strings.Builder
	for _, file := range includes {
		fmt.Fprintf(&text, "[include]\n\tpath = %q\n", file)
	}
	for _, safe := range []string{top, resolved(top)} {
		fmt.Fprintf(&text, "[safe]\n\tdirectory = %q\n", safe)
	}
	err = errors.Join(
		os.Mkdir(filepath.Join(dir, "git"), 0o755),
		os.WriteFile(filepath.Join(dir, "git", "config"), []byte(text.String()), 0o644))
	// Nix looks for its own settings in the same place.
	entries, _ := os.ReadDir(config)
	for _, e := range entries {
		if e.Name() != "git" {
			err = errors.Join(err, os.Symlink(filepath.Join(config, e.Name()), filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		remove()
		return nil, nothing, fmt.Errorf("git settings for a repository of another user: %w", err)
	}
	return []string{"GIT_CONFIG_GLOBAL=" + filepath.Join(dir, "git", "config"), "XDG_CONFIG_HOME=" + dir}, remove, nil
}

// repository is the top folder of the git work tree that a local flake reference is in; empty: there is none.
func repository(ref, workDir string) string {
	path, _, _ := strings.Cut(ref, "?")
	if file, ok := strings.CutPrefix(path, "git+file://"); ok {
		path = file
	} else if !strings.HasPrefix(path, ".") && !strings.HasPrefix(path, "/") {
		return "" // path:, github:, the name of a registry entry: not read through a local git
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(workDir, path)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	for ; ; path = filepath.Dir(path) {
		if _, err := os.Stat(filepath.Join(path, ".git")); err == nil {
			return path
		}
		if path == filepath.Dir(path) {
			return ""
		}
	}
}

func ownedByUs(paths ...string) bool {
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
			return false
		}
	}
	return true
}

func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

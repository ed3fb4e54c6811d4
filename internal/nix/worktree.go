package nix

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// worktree is the git work tree or the commit in it that a local flake reference names, as Git sees it. Nix is not asked.
type worktree struct {
	top     string // absolute folder
	dir     string // of the flake below top, with slashes; empty: top itself
	params  string // of the reference, besides dir: submodules=1
	commit  string // 40 hex digits
	tree    string // of the commit, likewise
	dirty   bool   // tracked files are not as in the commit
	shallow bool

	git func(ctx context.Context, args ...string) (string, error)
}

// errNoWorktree means that a flake reference is not the current state of a local git repository.
var errNoWorktree = errors.New("the flake is in no local git repository")

// worktree looks at the repository of a flake reference. env lets Git read it; see trustRepository.
//
// Errors: errNoWorktree, ctx.Err(), those of git.
func (n *Nix) worktree(ctx context.Context, ref string, env []string) (*worktree, error) {
	top := repository(ref, n.dir)
	if top == "" {
		return nil, errNoWorktree
	}
	path, query, _ := strings.Cut(ref, "?")
	params, err := url.ParseQuery(query)
	if err != nil || params.Has("ref") {
		return nil, errNoWorktree
	}
	rev := params.Get("rev")
	w := &worktree{top: top}
	if w.dir, err = flakeDir(path, params.Get("dir"), n.dir, top); err != nil {
		return nil, err
	}
	params.Del("dir")
	params.Del("rev")
	params.Del("shallow")
	w.params = params.Encode()
	w.git = func(ctx context.Context, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", top}, args...)...)
		cmd.Env = append(append([]string(nil), n.env...), env...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		text, err := cmd.Output()
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if err != nil {
			return "", fmt.Errorf("git %s: %w: %s", args[0], err, firstLine(strings.TrimSpace(stderr.String())))
		}
		return strings.TrimSpace(string(text)), nil
	}
	head := cmp.Or(rev, "HEAD")
	text, err := w.git(ctx, "rev-parse", head, head+"^{tree}", "--is-shallow-repository")
	if err != nil {
		return nil, err
	}
	if fields := strings.Fields(text); len(fields) == 3 {
		w.commit, w.tree, w.shallow = fields[0], fields[1], fields[2] == "true"
	} else {
		return nil, fmt.Errorf("git rev-parse says %q", text)
	}
	if rev != "" {
		return w, nil // what is in the folder does not matter
	}
	changes, err := w.git(ctx, "status", "--porcelain", "--untracked-files=no")
	w.dirty = changes != ""
	return w, err
}

// flakeDir is where below top a reference finds its flake.nix: a folder without one stands for the next above that has one.
func flakeDir(path, dir, workDir, top string) (string, error) {
	if dir != "" {
		return filepath.ToSlash(filepath.Clean(dir)), nil
	}
	path = strings.TrimPrefix(path, "git+file://")
	if !filepath.IsAbs(path) {
		path = filepath.Join(workDir, path)
	}
	path, err := filepath.Abs(path)
	for ; err == nil && path != top; path = filepath.Dir(path) {
		if _, err := os.Stat(filepath.Join(path, "flake.nix")); err == nil {
			rel, err := filepath.Rel(top, path)
			return filepath.ToSlash(rel), err
		}
		if path == filepath.Dir(path) {
			return "", errNoWorktree
		}
	}
	return "", err
}

// at is the reference of the flake at a commit of the repository.
func (w *worktree) at(commit string) string {
	params, _ := url.ParseQuery(w.params) // it was encoded here
	params.Set("rev", commit)
	if w.dir != "" {
		params.Set("dir", w.dir)
	}
	if w.shallow {
		params.Set("shallow", "1") // the source is the same; only the number of commits is not known
	}
	return (&url.URL{Scheme: "git+file", Path: w.top, RawQuery: params.Encode()}).String()
}

// file is a file of the flake's folder in the commit; empty when it is not there.
func (w *worktree) file(ctx context.Context, name string) string {
	path := name
	if w.dir != "" {
		path = w.dir + "/" + name
	}
	text, err := w.git(ctx, "cat-file", "blob", w.tree+":"+path)
	if err != nil {
		return ""
	}
	return text
}

// BaseError is a base that is no commit of the flake's repository.
type BaseError struct {
	Base    string
	Shallow bool // the repository does not have all commits
	Err     error
}

func (e *BaseError) Error() string {
	return fmt.Sprintf("base %q is no commit here: %v", e.Base, e.Err)
}
func (e *BaseError) Unwrap() error { return e.Err }

// Base is an earlier commit of a flake's repository.
type Base struct {
	Commit string   // 40 hex digits
	Flake  string   // the flake's reference at that commit
	Files  []string // what differs between the two, as paths below the repository's top folder, sorted
}

// Base finds an earlier commit by any name Git knows it by: a branch, a tag, HEAD~1.
//
// Errors: *BaseError, ctx.Err().
func (n *Nix) Base(ctx context.Context, ref, base string) (Base, error) {
	env, remove, err := n.trustRepository(ref)
	if err != nil {
		return Base{}, err
	}
	defer remove()
	work, err := n.worktree(ctx, ref, env)
	if ctx.Err() != nil {
		return Base{}, ctx.Err()
	}
	if err != nil {
		return Base{}, &BaseError{Base: base, Err: err}
	}
	commit, err := work.git(ctx, "rev-parse", "--verify", "--end-of-options", base+"^{commit}")
	if err != nil {
		return Base{}, &BaseError{Base: base, Shallow: work.shallow, Err: err}
	}
	files, err := work.git(ctx, "diff", "--name-only", "--no-renames", "-z", commit)
	if err != nil {
		return Base{}, err
	}
	return Base{Commit: commit, Flake: work.at(commit), Files: strings.FieldsFunc(files, func(r rune) bool { return r == 0 })}, ctx.Err()
}

package nix

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/handoff"
)

// source is a flake's source: what was asked for, and what of it is pinned.
type source struct {
	handoff.Flake
	commit   string   // 40 hex digits; empty for a dirty tree and for what is no git tree
	eval     string   // the reference to evaluate: the locked one, else the one given
	env      []string // to read its repository
	warnings []string

	path  string          // store path of the source
	dir   string          // of the flake in it
	locks json.RawMessage // of its inputs, as used
}

// lockFlags keep Nix from writing flake.lock into the checkout.
var lockFlags = []string{"--no-write-lock-file"}

// flake resolves and locks a flake reference. The source is fetched into the store on the way.
func (n *Nix) flake(ctx context.Context, ref string, env []string) (source, error) {
	if strings.Contains(ref, "#") {
		return source{}, &EvalError{Message: fmt.Sprintf("flake reference %q names an attribute; it is to name a flake, without #", ref)}
	}
	log := &tail{max: maxStderr}
	text, err := n.run(ctx, command{args: append([]string{"flake", "metadata", "--json", ref}, lockFlags...), env: env, stderr: log})
	if err != nil {
		return source{}, evalError("", err)
	}
	src, err := parseMetadata(text, ref)
	src.env = env
	src.warnings = warnings(log.String())
	return src, err
}

// lookup is a flake that is being resolved.
type lookup struct {
	ref  string
	done chan struct{}
	src  source
	err  error
}

// lookUp resolves a flake in the background, if that is no more than reading a repository on this machine; else nil.
func (n *Nix) lookUp(ctx context.Context, ref string) *lookup {
	if repository(ref, n.dir) == "" {
		return nil // nothing is fetched before the other inputs were checked
	}
	env, remove, err := n.trustRepository(ref)
	defer remove()
	if err != nil || env != nil {
		return nil // it needs settings for Git that somebody has to remove
	}
	l := &lookup{ref: ref, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.src, l.err = n.flake(ctx, ref, nil)
	}()
	return l
}

// source resolves a flake, unless that was begun before.
func (n *Nix) source(ctx context.Context, ref string, env []string) (source, error) {
	if n.ahead == nil || n.ahead.ref != ref {
		return n.flake(ctx, ref, env)
	}
	select {
	case <-n.ahead.done:
		return n.ahead.src, n.ahead.err
	case <-ctx.Done():
		return source{}, ctx.Err()
	}
}

// parseMetadata reads `nix flake metadata --json`.
func parseMetadata(text []byte, ref string) (source, error) {
	var m struct {
		URL      string `json:"url"`
		Revision string `json:"revision"`
		Locked   struct {
			Type    string `json:"type"`
			Rev     string `json:"rev"`
			NarHash string `json:"narHash"`
			Dir     string `json:"dir"`
		} `json:"locked"`
		Path  string          `json:"path"`
		Locks json.RawMessage `json:"locks"`
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return source{}, fmt.Errorf("read the metadata of flake %s: %w", ref, err)
	}
	var lock flakeLock
	if m.Locks != nil {
		if err := json.Unmarshal(m.Locks, &lock); err != nil {
			return source{}, fmt.Errorf("read the locks of flake %s: %w", ref, err)
		}
	}
	src := source{Flake: handoff.Flake{Ref: ref, NarHash: m.Locked.NarHash, Inputs: lock.inputs()}, eval: ref,
		path: m.Path, dir: m.Locked.Dir, locks: m.Locks}
	switch commit := cmp.Or(m.Locked.Rev, m.Revision); {
	case commit != "":
		src.commit = commit
		src.Locked, src.eval = m.URL, m.URL
	case m.Locked.Type == "git" || m.Locked.Type == "hg":
		src.Dirty = true // a work tree without a revision is one with changes
	case m.Locked.NarHash != "":
		src.Locked, src.eval = m.URL, m.URL
	}
	return src, nil
}

// flakeLock is a flake.lock.
type flakeLock struct {
	Root  string `json:"root"`
	Nodes map[string]struct {
		Locked *struct {
			Type, Owner, Repo, URL, Path, Host, Rev, NarHash string
		} `json:"locked"`
	} `json:"nodes"`
}

// inputs lists what is pinned, by name.
func (l flakeLock) inputs() []handoff.FlakeInput {
	var all []handoff.FlakeInput
	for _, name := range slices.Sorted(maps.Keys(l.Nodes)) {
		at := l.Nodes[name].Locked
		if name == l.Root || at == nil {
			continue
		}
		in := handoff.FlakeInput{Name: name, Rev: at.Rev, NarHash: at.NarHash, URI: at.URL}
		switch {
		case at.Type == "path":
			in.URI = "path:" + at.Path
		case at.Owner != "": // github, gitlab, sourcehut
			in.URI = at.Type + ":" + at.Owner + "/" + at.Repo
			if at.Rev != "" {
				in.URI += "/" + at.Rev
			}
		case at.Type == "git" && at.Rev != "":
			in.URI = "git+" + at.URL + "?rev=" + at.Rev
		}
		all = append(all, in)
	}
	return all
}

// warnings are the lines that begin with "warning:", without that word, each once.
func warnings(stderr string) []string {
	var found []string
	seen := map[string]bool{}
	for line := range strings.SplitSeq(plain(stderr), "\n") {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "warning:")
		if text = strings.TrimSpace(text); ok && !seen[text] {
			seen[text] = true
			found = append(found, text)
		}
	}
	return found
}

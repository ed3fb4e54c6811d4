package nix

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/flakeship/flakeship/internal/handoff"
)

// Closures lists the closures of store paths. An archive's output refers to nothing, as it is compressed: so the outputs of what
// the derivations in drvs depend on directly are taken too, and merged, with their closures, as far as they are in the store.
func (n *Nix) Closures(ctx context.Context, outs, drvs, merged []string) ([]handoff.StorePath, error) {
	roots := outs
	if len(drvs) > 0 {
		made, err := n.madeOf(ctx, drvs, merged)
		if err != nil {
			return nil, err
		}
		roots = append(made, outs...)
	}
	if len(roots) == 0 {
		return nil, nil
	}
	text, err := n.run(ctx, command{program: "nix-store", args: append([]string{"--query", "--requisites"}, roots...)})
	if err != nil {
		return nil, err
	}
	var all []handoff.StorePath
	paths := strings.Fields(string(text))
	for len(paths) > 0 { // an argument list has its limits
		some := paths[:min(len(paths), 5000)]
		paths = paths[len(some):]
		text, err := n.run(ctx, command{program: "nix-store", args: append([]string{"--dump-db"}, some...)})
		if err != nil {
			return nil, err
		}
		part, err := parseRegistrations(text)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}

// madeOf lists the outputs of derivations that others depend on directly, their sources, and more paths, that are in the store.
func (n *Nix) madeOf(ctx context.Context, drvs, more []string) ([]string, error) {
	text, err := n.run(ctx, command{program: "nix-store", args: append([]string{"--query", "--references"}, drvs...)})
	if err != nil {
		return nil, err
	}
	var inputs []string
	all := slices.Clone(more)
	for _, p := range strings.Fields(string(text)) {
		if strings.HasSuffix(p, ".drv") {
			inputs = append(inputs, p)
		} else {
			all = append(all, p)
		}
	}
	if len(inputs) > 0 {
		text, err := n.run(ctx, command{program: "nix-store", args: append([]string{"--query", "--outputs"}, inputs...)})
		if err != nil {
			return nil, err
		}
		all = append(all, strings.Fields(string(text))...)
	}
	valid, err := n.valid(ctx, all)
	if err != nil {
		return nil, err
	}
	var there []string
	for _, p := range all {
		if valid[p] {
			there = append(there, p)
		}
	}
	return there, nil
}

// parseRegistrations reads what nix-store --dump-db writes, which is the same in all versions: for each path, one to a line, the
// path, its hash, size and deriver, the number of references, and these.
func parseRegistrations(text []byte) ([]handoff.StorePath, error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	next := func() string {
		lines.Scan()
		return lines.Text()
	}
	var all []handoff.StorePath
	for lines.Scan() {
		p := handoff.StorePath{Path: lines.Text(), NarHash: next()}
		next() // size
		next() // deriver
		count, err := strconv.Atoi(next())
		if err != nil || count < 0 || count > len(text) || len(p.NarHash) != 64 {
			return nil, fmt.Errorf("nix-store --dump-db says of %.200s what cannot be read", p.Path)
		}
		for range count {
			p.References = append(p.References, next())
		}
		all = append(all, p)
	}
	return all, lines.Err()
}

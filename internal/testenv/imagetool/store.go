package main

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const storeDir = "/nix/store"

// store is the Nix store, or one below another folder. Paths stay logical: /nix/store/... wherever the files are.
type store struct{ root string }

func (s store) physical(path string) string { return s.root + path }

// member is one file, folder or symbolic link of a store path.
type member struct {
	path string // logical, absolute
	info fs.FileInfo
	link string // target of a symbolic link
}

// tree lists path and all below it, links not followed. Folders come before their content and siblings in the order of
// their names' bytes: the order of CPython's sorted(Path), of tar --sort=name and of filepath.Walk alike.
func (s store) tree(path string) ([]member, error) {
	var members []member
	err := filepath.WalkDir(s.physical(path), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		m := member{path: strings.TrimPrefix(p, s.root)}
		if m.info, err = d.Info(); err != nil {
			return err
		}
		if m.info.Mode()&fs.ModeSymlink != 0 {
			if m.link, err = os.Readlink(p); err != nil {
				return err
			}
		}
		members = append(members, m)
		return nil
	})
	return members, err
}

// node is a store path and what it refers to, as exportReferencesGraph gives it.
type node struct {
	Path       string   `json:"path"`
	References []string `json:"references"`
}

// byPopularity orders a closure so that what most others need comes first, whatever is added above it: the layers of two
// images that share paths then begin alike. A path counts one and what its referrers count
// (https://grahamc.com/blog/nix-and-layered-docker-images). Paths of equal count are in the order of their names.
func byPopularity(graph []node) ([]string, error) {
	references := map[string][]string{}
	waiting := map[string]int{} // referrers not yet counted
	score := map[string]int{}
	for _, n := range graph {
		references[n.Path] = n.References
		score[n.Path] = 1
	}
	for _, n := range graph {
		for _, r := range n.References {
			if _, known := score[r]; !known {
				return nil, fmt.Errorf("closure: %s refers to %s, which is not in it", n.Path, r)
			}
			if r != n.Path {
				waiting[r]++
			}
		}
	}
	var ready []string
	for _, n := range graph {
		if waiting[n.Path] == 0 {
			ready = append(ready, n.Path)
		}
	}
	var paths []string
	for len(ready) > 0 {
		p := ready[0]
		ready = ready[1:]
		paths = append(paths, p)
		for _, r := range references[p] {
			if r == p {
				continue
			}
			score[r] += score[p]
			if waiting[r]--; waiting[r] == 0 {
				ready = append(ready, r)
			}
		}
	}
	if len(paths) < len(graph) {
		return nil, fmt.Errorf("closure: references go in a circle")
	}
	slices.SortFunc(paths, func(a, b string) int {
		return cmp.Or(cmp.Compare(score[b], score[a]), cmp.Compare(a, b))
	})
	return paths, nil
}

// cut makes at most limit groups: one path each, and all that are left in the last.
func cut(paths []string, limit int) [][]string {
	var groups [][]string
	for len(paths) > 0 {
		n := 1
		if len(groups) == limit-1 {
			n = len(paths)
		}
		groups = append(groups, paths[:n])
		paths = paths[n:]
	}
	return groups
}

// hashPart is the 32 characters that identify a store path.
func hashPart(path string) string {
	hash, _, _ := strings.Cut(filepath.Base(path), "-")
	return hash
}

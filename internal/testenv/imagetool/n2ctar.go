package main

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// n2cNode is one name in the tree a layer unpacks to. A name nobody brought, /nix/store for one, has no source.
type n2cNode struct {
	children map[string]*n2cNode
	source   *member
	perms    []n2cPerm
}

// n2cTar writes a layer as nix2container does (nix/tar.go, nix/graph.go): first a tree of the names in the layer, which
// rewriting may have moved, then the tree in order, with Go's tar writer. It ends without padding to a record.
func (s store) n2cTar(w io.Writer, paths []n2cPath) error {
	root := &n2cNode{}
	for _, p := range paths {
		if err := s.n2cAdd(root, p); err != nil {
			return err
		}
	}
	t := tar.NewWriter(w)
	// The tree's own root is not a member; "/" is, as the first component of every absolute name.
	if err := s.n2cWrite(t, root, ""); err != nil {
		return err
	}
	return t.Close()
}

func (s store) n2cAdd(root *n2cNode, p n2cPath) error {
	var rewrite *regexp.Regexp
	options := n2cOptions{}
	if p.Options != nil {
		options = *p.Options
	}
	if options.Rewrite.Regex != "" {
		var err error
		if rewrite, err = regexp.Compile(options.Rewrite.Regex); err != nil {
			return fmt.Errorf("rewrite of %s: %w", p.Path, err)
		}
	}
	members, err := s.tree(p.Path)
	if err != nil {
		return err
	}
	for _, m := range members {
		name := m.path
		if rewrite != nil {
			name = rewrite.ReplaceAllString(name, options.Rewrite.Repl)
		}
		if name == "" {
			continue // the root of a path that was moved to /
		}
		node := root
		for _, part := range strings.Split(name, "/") {
			if node.children == nil {
				node.children = map[string]*n2cNode{}
			}
			if node.children[part] == nil {
				node.children[part] = &n2cNode{}
			}
			node = node.children[part]
		}
		if old := node.source; old != nil && (old.info.Mode() != m.info.Mode() || m.info.Mode().IsRegular() && old.info.Size() != m.info.Size()) {
			return fmt.Errorf("%s comes from %s and, different, from %s", name, old.path, m.path)
		}
		node.source, node.perms = &m, options.Perms
	}
	return nil
}

func (s store) n2cWrite(t *tar.Writer, node *n2cNode, base string) error {
	for _, name := range slices.Sorted(maps.Keys(node.children)) {
		child := node.children[name]
		full := path.Join(base, name)
		if name == "" {
			full = "/"
		}
		if err := s.n2cMember(t, child, full); err != nil {
			return err
		}
		if err := s.n2cWrite(t, child, full); err != nil {
			return err
		}
	}
	return nil
}

func (s store) n2cMember(t *tar.Writer, node *n2cNode, name string) error {
	modified := time.Unix(1, 0)
	if node.source == nil {
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, Uname: "root", Gname: "root", ModTime: modified})
	}
	m := node.source
	h, err := tar.FileInfoHeader(m.info, m.link)
	if err != nil {
		return err
	}
	h.Name, h.ModTime, h.AccessTime, h.ChangeTime = name, modified, time.Time{}, time.Time{}
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "root", "root"
	if m.info.Mode()&fs.ModeSymlink != 0 {
		h.Mode = 0o777
	}
	for _, p := range node.perms {
		matches, err := regexp.MatchString(p.Regex, m.path)
		if err != nil {
			return fmt.Errorf("permissions of %s: %w", m.path, err)
		}
		if !matches {
			continue
		}
		h.Uid, h.Gid = p.UID, p.GID
		if p.Uname != "" {
			h.Uname = p.Uname
		}
		if p.Gname != "" {
			h.Gname = p.Gname
		}
		if p.Mode != "" {
			if _, err := fmt.Sscanf(p.Mode, "%o", &h.Mode); err != nil {
				return fmt.Errorf("permissions of %s: mode %q: %w", m.path, p.Mode, err)
			}
		}
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	if !m.info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(s.physical(m.path))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t, f)
	return err
}

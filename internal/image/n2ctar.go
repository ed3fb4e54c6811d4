package image

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	godigest "github.com/opencontainers/go-digest"

	"github.com/flakeship/flakeship/internal/handoff"
)

func digestOf(h v1.Hash) godigest.Digest { return godigest.Digest(h.String()) }

func (f *n2cFile) writeTar(w io.Writer) error {
	r, err := f.open()
	if err != nil {
		return err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return err
	}
	return copyPlain(w, r, info.Size())
}

// n2cSource is a layer that nix2container writes from store paths, and that we write again, bit for bit.
type n2cSource struct {
	paths []compiledPath
	store handoff.Store

	mu      sync.Mutex
	variant n2cVariant
}

// n2cVariant is what versions of nix2container did differently. The zero value is the present one.
type n2cVariant struct {
	mtime0    bool // files have time 0, not 1: before July 2024
	gnameBug  bool // a group name given in perms is written as the user's: before November 2024
	noParents bool // folders above the store paths have no entries: before October 2022
}

type compiledPath struct {
	n2cPath
	rewrite *regexp.Regexp // nil: names stay
	perms   []*regexp.Regexp
}

// newN2CSource compiles the regular expressions, which come from the user's Nix code, once per layer.
func newN2CSource(paths []n2cPath, store handoff.Store) (*n2cSource, error) {
	s := &n2cSource{store: store}
	for _, p := range paths {
		if err := inStore(store, p.Path); err != nil {
			return nil, fmt.Errorf("path %.200q: %w", p.Path, err)
		}
		c := compiledPath{n2cPath: p}
		if p.Options != nil {
			if err := c.compile(); err != nil {
				return nil, err
			}
		}
		s.paths = append(s.paths, c)
	}
	return s, nil
}

func (c *compiledPath) compile() (err error) {
	if c.Options.Rewrite.Regex != "" {
		if c.rewrite, err = regexp.Compile(c.Options.Rewrite.Regex); err != nil {
			return fmt.Errorf("rewrite: %w", err)
		}
	}
	for _, perm := range c.Options.Perms {
		re, err := regexp.Compile(perm.Regex)
		if err != nil {
			return fmt.Errorf("perms: %w", err)
		}
		c.perms = append(c.perms, re)
	}
	return nil
}

func (s *n2cSource) writeTar(w io.Writer) error {
	s.mu.Lock()
	variant := s.variant
	s.mu.Unlock()
	return s.write(w, variant)
}

// settle tries how older versions wrote the layer.
func (s *n2cSource) settle(want v1.Hash) (bool, error) {
	for i := 1; i < 8; i++ {
		variant := n2cVariant{mtime0: i&1 != 0, gnameBug: i&2 != 0, noParents: i&4 != 0}
		sum := sha256.New()
		if err := s.write(sum, variant); err != nil {
			return false, err
		}
		if hash(sum.Sum(nil)) == want {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.variant = variant
			return true, nil
		}
	}
	return false, nil
}

func (s *n2cSource) write(w io.Writer, variant n2cVariant) error {
	root := &n2cNode{}
	for i := range s.paths {
		if err := s.collect(root, &s.paths[i]); err != nil {
			return err
		}
	}
	tw := tar.NewWriter(w)
	if err := root.write(tw, "", variant); err != nil {
		return err
	}
	return tw.Close()
}

// collect adds a store path and what is below it to the tree of what the layer will hold.
func (s *n2cSource) collect(root *n2cNode, p *compiledPath) error {
	return filepath.Walk(s.store.Root+p.Path, func(disk string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		logical := strings.TrimPrefix(disk, s.store.Root)
		target := logical
		if p.rewrite != nil {
			target = p.rewrite.ReplaceAllString(logical, p.Options.Rewrite.Repl)
		}
		if target == "" {
			return nil // the folder whose content is rewritten to the root
		}
		return root.add(target, &n2cFileNode{disk: disk, logical: logical, info: info, path: p})
	})
}

// n2cNode is a file or folder of the layer.
type n2cNode struct {
	file     *n2cFileNode // nil: a folder nobody named, made for what is in it
	children map[string]*n2cNode
}

type n2cFileNode struct {
	disk    string // where it is read
	logical string // its name in the store: what perms match
	info    os.FileInfo
	path    *compiledPath
}

func (n *n2cNode) add(target string, f *n2cFileNode) error {
	at := n
	clean := filepath.Clean(target)
	parts := strings.Split(clean, "/")
	if clean == "/" {
		parts = []string{""}
	}
	for _, part := range parts {
		part = withoutCaseHack(part)
		next := at.children[part]
		if next == nil {
			next = &n2cNode{}
			if at.children == nil {
				at.children = map[string]*n2cNode{}
			}
			at.children[part] = next
		}
		at = next
	}
	if old := at.file; old != nil {
		switch {
		case old.info.Mode() != f.info.Mode(), old.info.Mode().IsRegular() && old.info.Size() != f.info.Size():
			return fmt.Errorf("%s and %s both become %s but differ", old.logical, f.logical, target)
		case !reflect.DeepEqual(permsOf(old.path), permsOf(f.path)):
			return fmt.Errorf("%s and %s both become %s but have other perms", old.logical, f.logical, target)
		}
	}
	at.file = f
	return nil
}

func permsOf(p *compiledPath) []n2cPerm {
	if p.Options == nil {
		return nil
	}
	return p.Options.Perms
}

// caseHack is what Nix appends to names that differ in case only, on file systems that ignore case.
const caseHack = "~nix~case~hack~"

func withoutCaseHack(name string) string {
	base, number, ok := strings.Cut(name, caseHack)
	if n, err := strconv.Atoi(number); !ok || err != nil || n < 1 {
		return name
	}
	return base
}

// write writes what is in n, sorted by name, each folder before its content.
func (n *n2cNode) write(tw *tar.Writer, base string, variant n2cVariant) error {
	names := make([]string, 0, len(n.children))
	for name := range n.children {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		child := n.children[name]
		at := filepath.Join(base, name)
		if name == "" {
			at = "/"
		}
		if err := child.writeEntry(tw, at, variant); err != nil {
			return err
		}
		if err := child.write(tw, at, variant); err != nil {
			return err
		}
	}
	return nil
}

func (n *n2cNode) writeEntry(tw *tar.Writer, name string, variant n2cVariant) error {
	h := &tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, Uname: "root", Gname: "root", ModTime: time.Unix(1, 0)}
	if variant.mtime0 {
		h.ModTime = time.Unix(0, 0)
	}
	if n.file == nil {
		if variant.noParents {
			return nil
		}
		return tw.WriteHeader(h)
	}
	info := n.file.info
	h.Mode = unixMode(info)
	switch info.Mode().Type() {
	case os.ModeDir:
	case os.ModeSymlink:
		link, err := os.Readlink(n.file.disk)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, link, 0o777
	case 0:
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
	default:
		return fmt.Errorf("%s is neither file nor folder nor symbolic link", n.file.disk)
	}
	if err := n.file.path.setPerms(h, n.file.logical, variant); err != nil {
		return err
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	f, err := os.Open(n.file.disk)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(tw, f)
	return err
}

// setPerms applies each perm whose expression matches the name in the store, in order.
func (c *compiledPath) setPerms(h *tar.Header, logical string, variant n2cVariant) error {
	for i, re := range c.perms {
		if !re.MatchString(logical) {
			continue
		}
		perm := c.Options.Perms[i]
		h.Uid, h.Gid = perm.UID, perm.GID // also when they are not given
		if perm.Uname != "" {
			h.Uname = perm.Uname
		}
		if perm.Gname != "" {
			h.Gname = perm.Gname
			if variant.gnameBug {
				h.Gname = perm.Uname
			}
		}
		if perm.Mode != "" {
			if _, err := fmt.Sscanf(perm.Mode, "%o", &h.Mode); err != nil {
				return errors.Join(fmt.Errorf("mode %.40q in perms", perm.Mode), err)
			}
		}
		if perm.OrMode != "" {
			more, err := strconv.ParseUint(perm.OrMode, 8, 12)
			if err != nil {
				return fmt.Errorf("orMode %.40q in perms: %w", perm.OrMode, err)
			}
			h.Mode |= int64(more)
		}
	}
	return nil
}

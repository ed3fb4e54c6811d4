package image

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/streamconf"
)

// storeLayer is a layer that the stream script makes of store paths.
type storeLayer struct {
	paths []string
	owner streamconf.Owner
	store handoff.Store
}

func (l *storeLayer) writeTar(w io.Writer) error {
	t := newPyTar(w)
	for _, folder := range []string{"/nix/", "/nix/store/"} { // also where the store has another name: so does the script
		if err := t.add(l.entry(folder, '5', 0o755), nil); err != nil {
			return err
		}
	}
	for _, p := range l.paths {
		if err := l.add(t, p); err != nil {
			return err
		}
	}
	return t.close()
}

// add writes a path and what is below it: folder by folder, each sorted by name.
func (l *storeLayer) add(t *pyTar, p string) error {
	disk := l.store.Root + p
	info, err := os.Lstat(disk)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case os.ModeSymlink:
		e := l.entry(p, '2', 0o777)
		if e.link, err = os.Readlink(disk); err != nil {
			return err
		}
		return t.add(e, nil)
	case os.ModeDir:
		if err := t.add(l.entry(p, '5', unixMode(info)), nil); err != nil {
			return err
		}
		return l.addFolder(t, p)
	case 0:
		f, err := os.Open(disk)
		if err != nil {
			return err
		}
		defer f.Close()
		e := l.entry(p, '0', unixMode(info))
		e.size = info.Size()
		return t.add(e, f)
	}
	return fmt.Errorf("%s is neither file nor folder nor symbolic link", disk)
}

func (l *storeLayer) addFolder(t *pyTar, p string) error {
	entries, err := os.ReadDir(l.store.Root + p)
	if err != nil {
		return err
	}
	sort.Slice(entries, func(i, j int) bool { return pyLess(entries[i].Name(), entries[j].Name()) })
	for _, e := range entries {
		if err := l.add(t, filepath.Join(p, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (l *storeLayer) entry(name string, kind byte, mode int64) pyEntry {
	o := l.owner
	return pyEntry{name: name, kind: kind, mode: mode, uid: o.UID, gid: o.GID, uname: o.Uname, gname: o.Gname, mtime: o.Mtime}
}

// unixMode is the permissions with set-user-ID and the like, as stat has them.
func unixMode(info os.FileInfo) int64 {
	mode := int64(info.Mode().Perm())
	if info.Mode()&os.ModeSetuid != 0 {
		mode |= 0o4000
	}
	if info.Mode()&os.ModeSetgid != 0 {
		mode |= 0o2000
	}
	if info.Mode()&os.ModeSticky != 0 {
		mode |= 0o1000
	}
	return mode
}

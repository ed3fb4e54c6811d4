package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ErrNoArchive says that an image's family has no archive form to write.
var ErrNoArchive = errors.New("only a stream image can be written as an archive")

// WriteArchive writes what the stream script would print: the image as an uncompressed docker-archive, byte for byte.
//
// Errors: ErrNoArchive for images of other families.
func (i *Image) WriteArchive(w io.Writer) error {
	if i.archive == nil {
		return ErrNoArchive
	}
	return i.archive(w)
}

func (s *streamImage) writeArchive(w io.Writer, img *Image) error {
	t := newPyTar(w)
	var diffIDs []v1.Hash
	var names []any
	for n, l := range img.Layers {
		e := pyEntry{kind: '0', mode: 0o644, mtime: s.owner.Mtime}
		switch {
		case n < len(s.baseMan.Layers):
			m, err := s.base.index.find(s.baseMan.Layers[n])
			if err != nil {
				return err
			}
			e = entryOf(m.header)
		case n == len(img.Layers)-1: // taken over from the file in the store
			e.mode, e.uname, e.gname = 0o444, "root", "root"
		}
		if l.Size == 0 || l.DiffID == (v1.Hash{}) {
			// Name and size come before the content: each layer is made twice, as the script does.
			if err := l.WriteTar(io.Discard); err != nil {
				return err
			}
		}
		if e.name == "" {
			e.name = l.DiffID.Hex + "/layer.tar"
		}
		e.size = l.Size
		if err := addFrom(t, e, l); err != nil {
			return err
		}
		diffIDs = append(diffIDs, l.DiffID)
		names = append(names, e.name)
	}
	config, err := img.Config(diffIDs)
	if err != nil {
		return err
	}
	configName := hash256(config)[len("sha256:"):] + ".json"
	manifest := pyDumps([]any{pyObject{{"Config", configName}, {"RepoTags", []any{s.conf.RepoTag}}, {"Layers", names}}})
	for _, f := range []struct {
		name string
		text []byte
	}{{configName, config}, {"manifest.json", manifest}} {
		e := pyEntry{name: f.name, kind: '0', mode: 0o644, mtime: s.owner.Mtime, size: int64(len(f.text))}
		if err := t.add(e, bytes.NewReader(f.text)); err != nil {
			return err
		}
	}
	return t.close()
}

// addFrom writes a layer as a member.
func addFrom(t *pyTar, e pyEntry, l *Layer) error {
	r, w := io.Pipe()
	defer r.Close()
	go func() { w.CloseWithError(l.WriteTar(w)) }()
	if err := t.add(e, r); err != nil {
		return err
	}
	if n, err := io.Copy(io.Discard, r); err != nil || n > 0 {
		return errors.Join(err, fmt.Errorf("layer %s: %d bytes more than before", l.Name, n))
	}
	return nil
}

// entryOf is a member of another archive, taken over.
func entryOf(h *tar.Header) pyEntry {
	return pyEntry{
		name: h.Name, kind: '0', mode: h.Mode, uid: int64(h.Uid), gid: int64(h.Gid), uname: h.Uname, gname: h.Gname,
		size: h.Size, mtime: h.ModTime.Unix(),
	}
}

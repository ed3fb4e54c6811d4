// Package nar writes Nix archives of file trees and reads those that hold one file.
//
// A NAR is what a store path's hash is taken of and what a binary cache keeps: names, contents, links and the executable bit, in
// one order, and nothing else of a file system.
package nar

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const magic = "nix-archive-1"

// Write writes the archive of the file, folder or symbolic link at path.
//
// Errors: those of w; *os.PathError; one that says so for a file that changes while it is read, or is no file, folder or link.
func Write(w io.Writer, path string) error {
	d := dumper{w: bufio.NewWriterSize(w, 256<<10)}
	d.strings(magic)
	if err := d.node(path); err != nil {
		return err
	}
	return d.w.Flush() // the first error of all writes
}

type dumper struct{ w *bufio.Writer }

func (d dumper) strings(texts ...string) {
	for _, text := range texts {
		d.length(int64(len(text)))
		d.w.WriteString(text)
		d.pad(int64(len(text)))
	}
}

func (d dumper) length(n int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	d.w.Write(b[:])
}

var zeros [8]byte

func (d dumper) pad(n int64) { d.w.Write(zeros[:-n&7]) }

func (d dumper) node(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	d.strings("(", "type")
	switch mode := info.Mode(); mode.Type() {
	case 0:
		err = d.file(path, info)
	case os.ModeSymlink:
		var target string
		target, err = os.Readlink(path)
		d.strings("symlink", "target", target)
	case os.ModeDir:
		d.strings("directory")
		var entries []os.DirEntry
		entries, err = os.ReadDir(path) // sorted by bytes, as Nix does
		for _, e := range entries {
			d.strings("entry", "(", "name", e.Name(), "node")
			if err := d.node(filepath.Join(path, e.Name())); err != nil {
				return err
			}
			d.strings(")")
		}
	default:
		return fmt.Errorf("%s is no file, folder or symbolic link", path)
	}
	d.strings(")")
	return err
}

func (d dumper) file(path string, info os.FileInfo) error {
	d.strings("regular")
	if info.Mode()&0o100 != 0 {
		d.strings("executable", "")
	}
	d.strings("contents")
	d.length(info.Size())
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(d.w, io.LimitReader(f, info.Size()))
	if err == nil && n != info.Size() {
		err = fmt.Errorf("%s has become shorter while it was read", path)
	}
	d.pad(info.Size())
	return err
}

// ErrNotFile means that an archive holds a folder or a symbolic link.
var ErrNotFile = errors.New("the archive is not that of a single file")

// ReadFile reads the archive of a regular file, to its end, and returns the file's contents, at most limit bytes.
//
// Errors: ErrNotFile; those of r; others when it is no archive or holds more.
func ReadFile(r io.Reader, limit int64) ([]byte, error) {
	p := parser{r: r}
	p.expect(magic, "(", "type")
	if kind := p.text(); p.err == nil && kind != "regular" {
		if kind == "directory" || kind == "symlink" {
			return nil, ErrNotFile
		}
		return nil, fmt.Errorf("not a Nix archive: it holds a %.20q", kind)
	}
	word := p.text()
	if word == "executable" {
		p.expect("")
		word = p.text()
	}
	if p.err == nil && word != "contents" {
		p.err = fmt.Errorf("not a Nix archive: %.20q instead of contents", word)
	}
	contents := p.bytes(limit)
	p.expect(")")
	if p.err == nil {
		if n, err := r.Read(make([]byte, 1)); n > 0 || err != io.EOF {
			p.err = errors.Join(err, errors.New("not a Nix archive: more follows its end"))
		}
	}
	return contents, p.err
}

// parser reads the strings of an archive; after the first error it gives empty ones.
type parser struct {
	r   io.Reader
	err error
}

func (p *parser) expect(texts ...string) {
	for _, want := range texts {
		if got := p.text(); p.err == nil && got != want {
			p.err = fmt.Errorf("not a Nix archive: %.20q instead of %q", got, want)
		}
	}
}

// text is one of the archive's own words; the longest has 13 bytes.
func (p *parser) text() string { return string(p.bytes(16)) }

func (p *parser) bytes(limit int64) []byte {
	var head [8]byte
	p.read(head[:])
	n := binary.LittleEndian.Uint64(head[:])
	if p.err == nil && n > uint64(limit) {
		p.err = fmt.Errorf("not a Nix archive, or too long: a string of %d bytes", n)
	}
	if p.err != nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(p.r, int64(n))) // grows with what is there, not with what is claimed
	if err == nil && uint64(len(b)) < n {
		err = io.ErrUnexpectedEOF
	}
	p.err = err
	pad := make([]byte, -n&7)
	p.read(pad)
	for _, c := range pad {
		if c != 0 && p.err == nil {
			p.err = errors.New("not a Nix archive: its padding is not empty")
		}
	}
	if p.err != nil {
		return nil
	}
	return b
}

func (p *parser) read(b []byte) {
	if p.err != nil || len(b) == 0 {
		return
	}
	if _, p.err = io.ReadFull(p.r, b); p.err == io.EOF {
		p.err = io.ErrUnexpectedEOF
	}
}

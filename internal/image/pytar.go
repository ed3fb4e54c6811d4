package image

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// pyTar writes tar archives byte for byte as Python's tarfile does by default (PAX format, stream mode). nixpkgs' stream
// script makes layers with it, and a layer's digest is made of these bytes.
//
// It differs from archive/tar in five points: long names get a PAX record and are cut, never split into prefix and name;
// device numbers are empty, not zero; a PAX header has no name and no owner of its own; folders end in a slash; and the
// archive is filled up to a multiple of 10240 bytes.
type pyTar struct {
	w   *bufio.Writer
	n   int64
	err error
}

type pyEntry struct {
	name, link   string
	kind         byte // '0' file, '2' symbolic link, '5' folder
	mode         int64
	uid, gid     int64
	uname, gname string
	size, mtime  int64
}

const (
	tarBlock  = 512
	tarRecord = 20 * tarBlock
)

var zeros [tarRecord]byte

func newPyTar(w io.Writer) *pyTar { return &pyTar{w: bufio.NewWriterSize(w, 1<<16)} }

// add writes an entry and, for a file, e.size bytes of body.
func (t *pyTar) add(e pyEntry, body io.Reader) error {
	if e.kind == '5' && !strings.HasSuffix(e.name, "/") {
		e.name += "/"
	}
	if records := e.records(); len(records) > 0 {
		t.block(pyEntry{name: "././@PaxHeader", kind: 'x', size: int64(len(records))})
		t.write(records)
		t.pad(tarBlock)
	}
	t.block(e)
	if t.err == nil && e.size > 0 {
		var n int64
		n, t.err = io.CopyN(t.w, body, e.size)
		t.n += n
		if t.err == io.EOF {
			t.err = fmt.Errorf("%s is shorter than it was", e.name)
		}
		t.pad(tarBlock)
	}
	return t.err
}

// close ends the archive.
func (t *pyTar) close() error {
	t.write(zeros[:2*tarBlock])
	t.pad(tarRecord)
	if t.err == nil {
		t.err = t.w.Flush()
	}
	return t.err
}

func (t *pyTar) write(b []byte) {
	if t.err == nil {
		_, t.err = t.w.Write(b)
		t.n += int64(len(b))
	}
}

func (t *pyTar) pad(to int64) {
	if over := t.n % to; over > 0 {
		t.write(zeros[:to-over])
	}
}

// records is the content of the PAX header an entry needs for what ustar cannot hold, in tarfile's order.
func (e pyEntry) records() []byte {
	var records, binary bytes.Buffer
	add := func(key, value string) {
		if !utf8.ValidString(value) && binary.Len() == 0 {
			binary.WriteString("21 hdrcharset=BINARY\n") // names in no encoding: stored as they are
		}
		length := len(key) + len(value) + 3 // blank, equals sign, newline; and the length itself
		n := length + len(strconv.Itoa(length))
		n = length + len(strconv.Itoa(n))
		fmt.Fprintf(&records, "%d %s=%s\n", n, key, value)
	}
	text := func(key, value string, size int) {
		if utf8.RuneCountInString(value) > size || !isASCII(value) {
			add(key, value)
		}
	}
	number := func(key string, value int64, digits int) {
		if value < 0 || value >= 1<<(3*(digits-1)) {
			add(key, strconv.FormatInt(value, 10))
		}
	}
	text("path", e.name, 100)
	text("linkpath", e.link, 100)
	text("uname", e.uname, 32)
	text("gname", e.gname, 32)
	number("uid", e.uid, 8)
	number("gid", e.gid, 8)
	number("size", e.size, 12)
	number("mtime", e.mtime, 12)
	return append(binary.Bytes(), records.Bytes()...)
}

// block writes an entry's ustar header.
func (t *pyTar) block(e pyEntry) {
	var b [tarBlock]byte
	put := func(at, size int, value string) { copy(b[at:at+size], value) }
	number := func(at, size int, value int64) {
		if value < 0 || value >= 1<<(3*(size-1)) {
			value = 0 // the PAX header has it
		}
		put(at, size, fmt.Sprintf("%0*o", size-1, value))
	}
	put(0, 100, question(e.name))
	number(100, 8, e.mode&0o7777)
	number(108, 8, e.uid)
	number(116, 8, e.gid)
	number(124, 12, e.size)
	number(136, 12, e.mtime)
	put(148, 8, "        ")
	b[156] = e.kind
	put(157, 100, question(e.link))
	put(257, 8, "ustar\x0000")
	put(265, 32, question(e.uname))
	put(297, 32, question(e.gname))
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	put(148, 7, fmt.Sprintf("%06o\x00", sum))
	t.write(b[:])
}

// question puts a question mark in place of each character that is not ASCII.
func question(s string) string {
	if isASCII(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r >= utf8.RuneSelf {
			r = '?'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// pyLess orders names as Python orders the strings it decodes them to: by code point, bytes of no encoding at U+DC80 and up.
func pyLess(a, b string) bool {
	for a != "" && b != "" {
		x, n := pyRune(a)
		y, m := pyRune(b)
		if x != y {
			return x < y
		}
		a, b = a[n:], b[m:]
	}
	return a == "" && b != ""
}

func pyRune(s string) (rune, int) {
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n == 1 {
		return 0xdc00 + rune(s[0]), 1
	}
	return r, n
}

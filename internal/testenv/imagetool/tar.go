package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"unicode/utf8"
)

// tarWriter writes tar files as CPython's tarfile module does in its default format, or as GNU tar does in its own. Go's
// archive/tar chooses other encodings for the same members, and here the bytes are what counts: their digest is the layer's.
type tarWriter struct {
	w   io.Writer
	gnu bool
	n   int64 // bytes written
}

// header is what a member's header says.
type header struct {
	name         string
	link         string
	kind         byte // '0' file, '2' symbolic link, '5' folder, 'x' and 'L': about the next member
	mode         int64
	size         int64
	mtime        int64
	uid, gid     int
	uname, gname string
}

// describe gives the header of a file system entry, without name and owner.
func describe(info fs.FileInfo, link string) (header, error) {
	h := header{mode: int64(info.Mode().Perm())}
	for bit, flag := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if info.Mode()&bit != 0 {
			h.mode |= flag
		}
	}
	switch info.Mode().Type() {
	case 0:
		h.kind, h.size = '0', info.Size()
	case fs.ModeDir:
		h.kind = '5'
	case fs.ModeSymlink:
		h.kind, h.link, h.mode = '2', link, 0o777
	default:
		return h, fmt.Errorf("%s is neither file, folder nor link", info.Name())
	}
	return h, nil
}

// add writes a member; content must have exactly h.size bytes, and may be nil when that is 0.
func (t *tarWriter) add(h header, content io.Reader) error {
	if h.kind == '5' && !strings.HasSuffix(h.name, "/") {
		h.name += "/"
	}
	before := t.paxRecords
	if t.gnu {
		before = t.longNames
	}
	if err := before(h); err != nil {
		return err
	}
	if err := t.write(t.block(h)); err != nil {
		return err
	}
	if h.size == 0 {
		return nil
	}
	n, err := io.Copy(t.w, content)
	t.n += n
	if err == nil && n != h.size {
		err = fmt.Errorf("%s: %d bytes instead of %d", h.name, n, h.size)
	}
	if err != nil {
		return err
	}
	return t.pad(512)
}

// addBytes writes a file.
func (t *tarWriter) addBytes(h header, content []byte) error {
	h.kind, h.size = '0', int64(len(content))
	return t.add(h, bytes.NewReader(content))
}

// paxRecords writes the extra header CPython puts before a member that does not fit: names of more than 100 characters, or
// of other than ASCII. It never splits a name into prefix and name.
func (t *tarWriter) paxRecords(h header) error {
	var records strings.Builder
	for _, f := range []struct {
		key, value string
		limit      int
	}{{"path", h.name, 100}, {"linkpath", h.link, 100}, {"uname", h.uname, 32}, {"gname", h.gname, 32}} {
		if !utf8.ValidString(f.value) {
			return fmt.Errorf("%q is not UTF-8", f.value)
		}
		if len([]rune(f.value)) > f.limit || len(ascii(f.value)) != len(f.value) {
			records.WriteString(paxRecord(f.key, f.value))
		}
	}
	if h.size > maxOctal(12) {
		records.WriteString(paxRecord("size", strconv.FormatInt(h.size, 10)))
	}
	if records.Len() == 0 {
		return nil
	}
	return t.extra(header{name: "././@PaxHeader", kind: 'x'}, []byte(records.String()))
}

// paxRecord is "LENGTH KEY=VALUE\n", where the length counts its own digits.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest)
	for n != len(rest)+len(strconv.Itoa(n)) {
		n = len(rest) + len(strconv.Itoa(n))
	}
	return strconv.Itoa(n) + rest
}

// longNames writes the extra members GNU tar puts before one whose name or link has more than 100 bytes.
func (t *tarWriter) longNames(h header) error {
	for _, f := range []struct {
		kind  byte
		value string
	}{{'K', h.link}, {'L', h.name}} {
		if len(f.value) > 100 {
			long := header{name: "././@LongLink", kind: f.kind, mode: 0o644, uname: "root", gname: "root"}
			if err := t.extra(long, []byte(f.value+"\x00")); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tarWriter) extra(h header, content []byte) error {
	h.size = int64(len(content))
	if err := t.write(t.block(h)); err != nil {
		return err
	}
	if err := t.write(content); err != nil {
		return err
	}
	return t.pad(512)
}

// block is the 512 bytes of a header. Device numbers stay NUL: CPython 3.11 and GNU tar fill them in for devices alone.
func (t *tarWriter) block(h header) []byte {
	b := make([]byte, 512)
	encode := ascii
	if t.gnu {
		encode = func(s string) string { return s }
	}
	text := func(at, size int, s string) { copy(b[at:at+size], encode(s)) }
	octal := func(at, size int, n int64) { copy(b[at:], fmt.Sprintf("%0*o\x00", size-1, n)) }
	text(0, 100, h.name)
	octal(100, 8, h.mode)
	octal(108, 8, int64(h.uid))
	octal(116, 8, int64(h.gid))
	if h.size <= maxOctal(12) {
		octal(124, 12, h.size)
	} else {
		octal(124, 12, 0)
	}
	octal(136, 12, h.mtime)
	copy(b[148:], "        ") // the checksum counts itself as blanks
	b[156] = h.kind
	text(157, 100, h.link)
	copy(b[257:], "ustar\x0000")
	if t.gnu {
		copy(b[257:], "ustar  \x00")
	}
	text(265, 32, h.uname)
	text(297, 32, h.gname)
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00", sum))
	return b
}

// maxOctal is the largest number a numeric field of so many bytes takes.
func maxOctal(size int) int64 { return 1<<(3*(size-1)) - 1 }

// ascii puts one "?" for each character that is not ASCII.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, s)
}

// close ends the archive: two blocks of zeros, then zeros up to a whole record.
func (t *tarWriter) close() error {
	if err := t.write(make([]byte, 1024)); err != nil {
		return err
	}
	return t.pad(10240)
}

func (t *tarWriter) pad(to int64) error { return t.write(make([]byte, (to-t.n%to)%to)) }

func (t *tarWriter) write(b []byte) error {
	n, err := t.w.Write(b)
	t.n += int64(n)
	return err
}

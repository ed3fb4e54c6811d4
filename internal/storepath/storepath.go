// Package storepath parses and writes Nix store paths, such as /nix/store/<hash>-<name>.
//
// The store directory is a value: a store elsewhere has other hashes for the same things, and must not be mixed up with
// the usual one. The package is pure.
package storepath

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
)

const (
	// HashLen is the number of characters of a store path's hash: 160 bits.
	HashLen = 32
	// maxName is Nix's limit on the name: with hash and ".lock" or ".drv" it is still a file name of 255 bytes.
	maxName = 211
)

// Error says why a text is no store path.
type Error struct {
	Text   string
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("%.300q is no store path: %s", e.Text, e.Reason) }

// Path is a store path without its directory: <hash>-<name>. It is comparable; the zero value is no path.
type Path struct{ base string }

// Parse reads "<hash>-<name>", by the rules of current Nix; older versions are laxer on names that begin with a dot.
//
// Errors: *Error.
func Parse(base string) (Path, error) {
	fail := func(reason string) (Path, error) { return Path{}, &Error{base, reason} }
	if len(base) < HashLen {
		return fail("too short")
	}
	for i := range HashLen {
		if digit[base[i]] == invalid {
			return fail(fmt.Sprintf("%q is no character of a hash", base[i]))
		}
	}
	name, ok := strings.CutPrefix(base[HashLen:], "-")
	if !ok {
		return fail("no hyphen after 32 characters of hash")
	}
	if reason := badName(name); reason != "" {
		return fail(reason)
	}
	return Path{base}, nil
}

// badName says what is wrong with a name; "" is nothing.
func badName(name string) string {
	if name == "" {
		return "the name is empty"
	}
	if len(name) > maxName {
		return fmt.Sprintf("the name is longer than %d characters", maxName)
	}
	// Current Nix refuses these as the first part, and the name would else pass for a relative path.
	if first, _, _ := strings.Cut(name, "-"); first == "." || first == ".." {
		return fmt.Sprintf("the name begins with %q", first)
	}
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("+-._?=", c) >= 0) {
			return fmt.Sprintf("%q is no character of a name", c)
		}
	}
	return ""
}

// String returns "<hash>-<name>".
func (p Path) String() string { return p.base }

// Hash returns the 32 characters that identify p in a cache.
func (p Path) Hash() string {
	if p.IsZero() {
		return ""
	}
	return p.base[:HashLen]
}

// Name returns what follows the hash.
func (p Path) Name() string {
	if p.IsZero() {
		return ""
	}
	return p.base[HashLen+1:]
}

// IsZero says whether p is no path.
func (p Path) IsZero() bool { return p.base == "" }

// IsDerivation says whether p is a .drv file.
func (p Path) IsDerivation() bool { return strings.HasSuffix(p.base, ".drv") }

// Compare orders paths as Nix does, by hash and then name.
func Compare(a, b Path) int { return cmp.Compare(a.base, b.base) }

// Dir is a store's directory as derivations know it, wherever its files are.
type Dir string

// DefaultDir is the store directory of nearly every Nix.
const DefaultDir Dir = "/nix/store"

// ParseDir reads a store directory: absolute, in its shortest form, not the root.
func ParseDir(text string) (Dir, error) {
	if !path.IsAbs(text) || path.Clean(text) != text || text == "/" || strings.ContainsAny(text, "\x00\n\r:") {
		return "", fmt.Errorf("%.300q is no store directory", text)
	}
	return Dir(text), nil
}

// Parse reads a full store path directly below d; files inside one are not store paths.
//
// Errors: *Error.
func (d Dir) Parse(full string) (Path, error) {
	base, ok := strings.CutPrefix(full, string(d)+"/")
	if !ok {
		return Path{}, &Error{full, "not in " + string(d)}
	}
	p, err := Parse(base)
	if err != nil {
		return Path{}, &Error{full, err.(*Error).Reason}
	}
	return p, nil
}

// Join returns p's full path.
func (d Dir) Join(p Path) string { return string(d) + "/" + p.base }

// Make computes the path of something of the given kind, digest and name, as Nix does: kind is "text", "source" or
// "output:out", with the references it has appended to it, each after a colon.
func (d Dir) Make(kind string, digest [sha256.Size]byte, name string) (Path, error) {
	if reason := badName(name); reason != "" {
		return Path{}, &Error{name, reason}
	}
	sum := sha256.Sum256([]byte(kind + ":sha256:" + hex.EncodeToString(digest[:]) + ":" + string(d) + ":" + name))
	var short [20]byte
	for i, b := range sum {
		short[i%len(short)] ^= b
	}
	return Path{Encode(short[:]) + "-" + name}, nil
}

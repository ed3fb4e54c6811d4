// Package narinfo reads, writes, signs and checks narinfo files: a binary cache's signed description of one store path.
//
// It takes what Nix takes and refuses what Nix refuses, since a verdict on a cache is only worth something when the
// installed Nix will come to the same one. The package is pure.
package narinfo

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/flakeship/flakeship/internal/storepath"
)

// MaxSize bounds a narinfo, in bytes: a closure of 15,000 direct references fits.
const MaxSize = 1 << 20

// NarInfo describes one store path and its NAR.
type NarInfo struct {
	StorePath   storepath.Path
	URL         string           // of the compressed NAR, relative to the cache
	Compression string           // "none", "xz", "zstd", ...; never empty
	FileHash    string           // of the compressed NAR, as it was written; empty when not given
	FileSize    int64            // bytes of the compressed NAR; 0 when not given
	NarHash     Hash             // always sha256
	NarSize     int64            // bytes, more than 0
	References  []storepath.Path // sorted, without duplicates; may hold StorePath itself
	Deriver     storepath.Path   // zero when not known
	System      string
	Sigs        []string // "name:base64", in the file's order; what cannot be read is kept
	CA          string   // content address; empty when it has none
	Extra       []string // lines with keys that are not known here, kept for Format
}

// Error says why a text is no narinfo.
type Error struct{ Reason string }

func (e *Error) Error() string { return "not a narinfo: " + e.Reason }

func corrupt(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// Parse reads a narinfo of a store in dir.
//
// It scans as Nix does: a value begins two bytes after its colon and ends before a line feed; unknown keys are left alone, of
// a known key given twice the last one counts. Nix reads neither CR LF nor a last line without line feed, so both are
// errors; the latter is also how a file that was cut short shows.
//
// Errors: *Error.
func Parse(text string, dir storepath.Dir) (*NarInfo, error) {
	if len(text) > MaxSize {
		return nil, corrupt("longer than %d KiB", MaxSize>>10)
	}
	n := &NarInfo{}
	seen := map[string]bool{}
	for rest := text; rest != ""; {
		colon := strings.IndexByte(rest, ':')
		if colon < 0 {
			return nil, corrupt("%.60q has no colon", rest)
		}
		start := colon + 2
		if start > len(rest) {
			return nil, corrupt("it breaks off in %.60q", rest)
		}
		length := strings.IndexByte(rest[start:], '\n')
		if length < 0 {
			return nil, corrupt("it breaks off in %.60q", rest)
		}
		key, value, line := rest[:colon], rest[start:start+length], rest[:start+length]
		rest = rest[start+length+1:]
		if strings.HasSuffix(value, "\r") {
			return nil, corrupt("its lines end in CR LF, which Nix does not read")
		}
		known, err := n.set(key, value, dir, seen[key])
		if err != nil {
			return nil, err
		}
		if !known {
			n.Extra = append(n.Extra, line)
		}
		seen[key] = true
	}
	for _, key := range []string{"StorePath", "URL", "NarHash", "NarSize"} {
		if !seen[key] {
			return nil, corrupt("it has no %s", key)
		}
	}
	if n.URL == "" || n.NarSize == 0 {
		return nil, corrupt("URL or NarSize is empty")
	}
	if n.Compression == "" {
		n.Compression = "bzip2" // what caches used before the key existed
	}
	return n, nil
}

// set puts one key's value into n. again says that the key was there before.
func (n *NarInfo) set(key, value string, dir storepath.Dir, again bool) (known bool, err error) {
	switch key {
	case "StorePath":
		n.StorePath, err = dir.Parse(value)
	case "URL":
		n.URL = value
	case "Compression":
		n.Compression = value
	case "FileHash":
		n.FileHash = value
		_, err = ParseHash(value)
	case "FileSize":
		n.FileSize, err = parseSize(value)
	case "NarHash":
		n.NarHash, err = ParseHash(value)
		if err == nil && n.NarHash.Algorithm != "sha256" {
			err = fmt.Errorf("%s instead of sha256", n.NarHash.Algorithm)
		}
	case "NarSize":
		n.NarSize, err = parseSize(value)
	case "References":
		if again && len(n.References) > 0 {
			return true, corrupt("References is given twice")
		}
		n.References, err = parseReferences(value)
	case "Deriver":
		if value != "unknown-deriver" {
			n.Deriver, err = storepath.Parse(value)
		}
	case "System":
		n.System = value
	case "Sig":
		n.Sigs = append(n.Sigs, value)
	case "CA":
		if n.CA != "" {
			return true, corrupt("CA is given twice")
		}
		n.CA = value
	default:
		return false, nil
	}
	if err != nil {
		return true, corrupt("%s: %v", key, err)
	}
	return true, nil
}

func parseSize(text string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%.60q is no number of bytes", text)
	}
	return int64(n), nil
}

func parseReferences(text string) ([]storepath.Path, error) {
	var refs []storepath.Path
	for word := range strings.SplitSeq(text, " ") {
		if word == "" {
			continue
		}
		p, err := storepath.Parse(word)
		if err != nil {
			return nil, err
		}
		refs = append(refs, p)
	}
	return sorted(refs), nil
}

// SortReferences brings References into the order they are to have.
func (n *NarInfo) SortReferences() { n.References = sorted(n.References) }

func sorted(refs []storepath.Path) []storepath.Path {
	slices.SortFunc(refs, storepath.Compare)
	return slices.Compact(refs)
}

// Format writes n in the order Nix does; Parse reads it back. Keys that were not known follow at the end.
func (n *NarInfo) Format(dir storepath.Dir) string {
	var b strings.Builder
	line := func(key, value string) { b.WriteString(key + ": " + value + "\n") }
	line("StorePath", dir.Join(n.StorePath))
	line("URL", n.URL)
	line("Compression", n.Compression)
	if n.FileHash != "" {
		line("FileHash", n.FileHash)
	}
	if n.FileSize > 0 {
		line("FileSize", strconv.FormatInt(n.FileSize, 10))
	}
	line("NarHash", n.NarHash.String())
	line("NarSize", strconv.FormatInt(n.NarSize, 10))
	line("References", join(n.References, " ", storepath.Path.String))
	if !n.Deriver.IsZero() {
		line("Deriver", n.Deriver.String())
	}
	if n.System != "" {
		line("System", n.System)
	}
	for _, sig := range n.Sigs {
		line("Sig", sig)
	}
	if n.CA != "" {
		line("CA", n.CA)
	}
	for _, extra := range n.Extra {
		b.WriteString(extra + "\n")
	}
	return b.String()
}

// Fingerprint is the text that signatures are made of.
func (n *NarInfo) Fingerprint(dir storepath.Dir) string {
	return "1;" + dir.Join(n.StorePath) + ";" + n.NarHash.String() + ";" + strconv.FormatInt(n.NarSize, 10) + ";" + join(n.References, ",", dir.Join)
}

func join(paths []storepath.Path, sep string, text func(storepath.Path) string) string {
	words := make([]string, len(paths))
	for i, p := range paths {
		words[i] = text(p)
	}
	return strings.Join(words, sep)
}

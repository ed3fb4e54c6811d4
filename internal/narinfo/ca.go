package narinfo

import (
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/storepath"
)

// addressesItself says whether n's content address leads to n's store path. Then a NAR with other content would have another
// path, and Nix, which checks that when it unpacks, asks for no signature.
func (n *NarInfo) addressesItself(dir storepath.Dir) bool {
	if n.CA == "" {
		return false
	}
	p, ok := n.contentPath(dir)
	return ok && p == n.StorePath
}

// contentPath computes the store path that n's content address stands for: "text:<hash>" for files written by the evaluator,
// "fixed:<hash>" for a flat file, "fixed:r:<hash>" for a NAR. Newer forms give false: they then need a signature.
func (n *NarInfo) contentPath(dir storepath.Dir) (storepath.Path, bool) {
	method, text, _ := strings.Cut(n.CA, ":")
	recursive := false
	if method == "fixed" {
		text, recursive = strings.CutPrefix(text, "r:")
	}
	hash, err := ParseHash(text)
	if err != nil {
		return storepath.Path{}, false
	}
	kind, digest, refs := "", [sha256.Size]byte{}, n.References
	switch {
	case method == "text" && hash.Algorithm == "sha256":
		kind, digest = "text", [sha256.Size]byte([]byte(hash.Digest))
	case method == "fixed" && recursive && hash.Algorithm == "sha256":
		kind, digest = "source", [sha256.Size]byte([]byte(hash.Digest))
	case method == "fixed" && len(refs) == 0:
		prefix := "fixed:out:"
		if recursive {
			prefix += "r:"
		}
		kind, digest = "output:out", sha256.Sum256([]byte(prefix+hash.hex()+":"))
	default:
		return storepath.Path{}, false
	}
	self := slices.Contains(refs, n.StorePath)
	if self && kind == "text" {
		return storepath.Path{}, false // a text cannot hold its own hash
	}
	for _, ref := range refs {
		if ref != n.StorePath {
			kind += ":" + dir.Join(ref)
		}
	}
	if self {
		kind += ":self"
	}
	p, err := dir.Make(kind, digest, n.StorePath.Name())
	return p, err == nil
}

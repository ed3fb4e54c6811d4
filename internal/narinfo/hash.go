package narinfo

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/flakeship/flakeship/internal/storepath"
)

// Hash is a digest and what made it.
type Hash struct {
	Algorithm string // md5, sha1, sha256 or sha512
	Digest    string // the bytes, as many as the algorithm gives
}

var hashSize = map[string]int{"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}

// ParseHash reads a hash in each form Nix knows: "sha256:" before hexadecimal, base 32 or base 64, and "sha256-" before base 64.
func ParseHash(text string) (Hash, error) {
	fail := func(reason string) (Hash, error) { return Hash{}, fmt.Errorf("%.100q is no hash: %s", text, reason) }
	at := strings.IndexAny(text, ":-")
	if at < 0 {
		return fail("it does not name its algorithm")
	}
	algorithm, encoded := text[:at], text[at+1:]
	size, ok := hashSize[algorithm]
	if !ok {
		return fail("its algorithm is not known")
	}
	var digest []byte
	var err error
	switch is64 := len(encoded) == base64.StdEncoding.EncodedLen(size); {
	case text[at] == '-' && !is64:
		return fail("its length is wrong")
	case is64:
		digest, err = base64.StdEncoding.Strict().DecodeString(encoded)
	case len(encoded) == hex.EncodedLen(size):
		digest, err = hex.DecodeString(encoded)
	case len(encoded) == storepath.EncodedLen(size):
		digest, err = storepath.Decode(encoded)
	default:
		return fail("its length is wrong")
	}
	if err != nil || len(digest) != size {
		return fail("its digits are wrong")
	}
	return Hash{algorithm, string(digest)}, nil
}

// String returns the form Nix writes: algorithm, colon, base 32.
func (h Hash) String() string { return h.Algorithm + ":" + storepath.Encode([]byte(h.Digest)) }

// hex is the form of which store paths are computed.
func (h Hash) hex() string { return h.Algorithm + ":" + hex.EncodeToString([]byte(h.Digest)) }

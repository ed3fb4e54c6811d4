package narinfo

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/storepath"
)

// PublicKey checks signatures that carry its name.
type PublicKey struct {
	Name string
	key  ed25519.PublicKey
}

// SecretKey makes signatures. It prints as its name only.
type SecretKey struct {
	name string
	key  ed25519.PrivateKey
}

// ParsePublicKey reads "name:base64", as in trusted-public-keys.
func ParsePublicKey(text string) (PublicKey, error) {
	name, key, err := decodeKey(text, ed25519.PublicKeySize)
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key %.100q: %w", text, err)
	}
	return PublicKey{name, ed25519.PublicKey(key)}, nil
}

// ParseSecretKey reads "name:base64", as nix-store --generate-binary-cache-key writes it. Its errors do not show the text.
func ParseSecretKey(text string) (SecretKey, error) {
	name, key, err := decodeKey(strings.TrimSpace(text), ed25519.PrivateKeySize)
	if err != nil {
		return SecretKey{}, fmt.Errorf("secret key: %w", err)
	}
	// The second half is the public key. One that does not belong to the first would make signatures nobody can check.
	if !slices.Equal(ed25519.NewKeyFromSeed(key[:ed25519.SeedSize]), key) {
		return SecretKey{}, errors.New("secret key: its two halves do not belong together")
	}
	return SecretKey{name, ed25519.PrivateKey(key)}, nil
}

func decodeKey(text string, size int) (name string, data []byte, err error) {
	name, encoded, ok := strings.Cut(text, ":")
	if !ok || name == "" {
		return "", nil, errors.New("not of the form name:base64")
	}
	data, err = base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", nil, errors.New("what follows the colon is no base64")
	}
	if len(data) != size {
		return "", nil, fmt.Errorf("%d bytes instead of %d", len(data), size)
	}
	return name, data, nil
}

// String returns "name:base64".
func (k PublicKey) String() string { return k.Name + ":" + base64.StdEncoding.EncodeToString(k.key) }

// String returns the key's name alone, so that a log never shows the secret.
func (k SecretKey) String() string { return k.name + ":(secret)" }

// GoString is String for %#v.
func (k SecretKey) GoString() string { return k.String() }

// Public returns the key that checks k's signatures.
func (k SecretKey) Public() PublicKey {
	return PublicKey{k.name, k.key.Public().(ed25519.PublicKey)}
}

// Sign adds k's signature to n. Signatures of k's name are replaced: an older one is of other content or another key, and
// some versions of Nix look at the first of a name only.
func (n *NarInfo) Sign(k SecretKey, dir storepath.Dir) {
	n.Sigs = slices.DeleteFunc(n.Sigs, func(sig string) bool {
		name, _, _ := strings.Cut(sig, ":")
		return name == k.name
	})
	sig := ed25519.Sign(k.key, []byte(n.Fingerprint(dir)))
	n.Sigs = append(n.Sigs, k.name+":"+base64.StdEncoding.EncodeToString(sig))
}

// ContentAddress is what Trust returns for a path that proves itself.
const ContentAddress = "content address"

// UntrustedError says that nothing vouches for a narinfo.
type UntrustedError struct {
	Path   storepath.Path
	Signed []string // names of the keys that signed it, trusted or not
	Forged []string // names of trusted keys whose signature does not fit
}

func (e *UntrustedError) Error() string {
	switch {
	case len(e.Forged) > 0:
		return fmt.Sprintf("%s has a signature of %s that does not match", e.Path, strings.Join(e.Forged, ", "))
	case len(e.Signed) > 0:
		return fmt.Sprintf("%s is signed by %s, which is not trusted", e.Path, strings.Join(e.Signed, ", "))
	}
	return fmt.Sprintf("%s is not signed", e.Path)
}

// Trust returns what vouches for n: the name of a key in keys, or ContentAddress when the store path follows from the
// content, which needs no signature.
//
// Each signature is tried with each key of its name. Errors: *UntrustedError.
func (n *NarInfo) Trust(dir storepath.Dir, keys []PublicKey) (string, error) {
	if n.addressesItself(dir) {
		return ContentAddress, nil
	}
	fingerprint := []byte(n.Fingerprint(dir))
	no := &UntrustedError{Path: n.StorePath}
	for _, text := range n.Sigs {
		name, encoded, _ := strings.Cut(text, ":")
		no.Signed = append(no.Signed, name)
		sig, err := base64.StdEncoding.DecodeString(encoded)
		known := false
		for _, key := range keys {
			if key.Name != name || key.key == nil { // the zero key trusts nothing
				continue
			}
			if known = true; err == nil && ed25519.Verify(key.key, fingerprint, sig) {
				return name, nil
			}
		}
		if known {
			no.Forged = append(no.Forged, name)
		}
	}
	return "", no
}

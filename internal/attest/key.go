// Package attest makes what is said of an image beside the image itself: signatures that cosign verifies, SLSA provenance
// and SPDX documents. It makes bytes; internal/push writes them.
package attest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

// Key signs. It may be used from several goroutines.
type Key struct {
	private *ecdsa.PrivateKey
	id      string
}

// ErrPassword says that a key is encrypted and the password does not open it.
var ErrPassword = errors.New("the key is encrypted and the password is not its own")

// ParseKey reads a private key for ECDSA: what cosign generate-key-pair writes, which password opens, or plain PEM, as
// PKCS #8 or SEC 1. Errors tell nothing of the key.
func ParseKey(text, password []byte) (*Key, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is no key in PEM form")
	}
	var parsed any
	var err error
	switch block.Type {
	case "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY":
		der, wrong := encrypted.Decrypt(block.Bytes, password)
		if wrong != nil {
			return nil, ErrPassword
		}
		parsed, err = x509.ParsePKCS8PrivateKey(der)
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("it is a %.60q, not a private key that can be read", block.Type)
	}
	if err != nil {
		return nil, errors.New("it is no private key, although it says so")
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is a %T; images are signed with ECDSA", parsed)
	}
	public, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(public)
	return &Key{private, hex.EncodeToString(sum[:])}, nil
}

// ID is the digest of the public key. For no key it is empty.
func (k *Key) ID() string {
	if k == nil {
		return ""
	}
	return k.id
}

// sign returns the signature of a message: ECDSA over SHA-256, as ASN.1.
func (k *Key) sign(message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	return ecdsa.SignASN1(rand.Reader, k.private, sum[:])
}

// Verify says whether a signature, in base64, is this key's of a message.
func (k *Key) Verify(message []byte, signature string) bool {
	sum := sha256.Sum256(message)
	b, err := base64.StdEncoding.DecodeString(signature)
	return err == nil && ecdsa.VerifyASN1(&k.private.PublicKey, sum[:], b)
}

// Sign returns the signature of a message in base64.
func (k *Key) Sign(message []byte) (string, error) {
	b, err := k.sign(message)
	return base64.StdEncoding.EncodeToString(b), err
}

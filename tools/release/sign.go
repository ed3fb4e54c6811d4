package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"aead.dev/minisign"
)

const signature = ".minisig" // beside the file, as minisign itself writes it

// sign writes FILE.minisig when there is a key to do it with.
func sign(file string) error {
	text := os.Getenv("FLAKESHIP_MINISIGN_KEY")
	if text == "" {
		return nil
	}
	key, err := minisign.DecryptKey(os.Getenv("FLAKESHIP_MINISIGN_PASSWORD"), []byte(text))
	if err != nil {
		if err := key.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("FLAKESHIP_MINISIGN_KEY: no minisign key that FLAKESHIP_MINISIGN_PASSWORD opens: %w", err)
		}
	}
	message, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file+signature, minisign.Sign(key, message), 0o644)
}

// verifySignature checks FILE.minisig when the verifier brought a public key. One from the release itself would prove nothing.
func verifySignature(file string) error {
	text := os.Getenv("FLAKESHIP_MINISIGN_PUBLIC_KEY")
	if text == "" {
		return nil
	}
	var key minisign.PublicKey
	if err := key.UnmarshalText([]byte(text)); err != nil {
		return fmt.Errorf("FLAKESHIP_MINISIGN_PUBLIC_KEY: %w", err)
	}
	message, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	signed, err := os.ReadFile(file + signature)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not signed", filepath.Base(file))
	}
	if err != nil {
		return err
	}
	if !minisign.Verify(key, message, signed) {
		return fmt.Errorf("%s: the signature is not by key %X, or not of this file", filepath.Base(file), key.ID())
	}
	return nil
}

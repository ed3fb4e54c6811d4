package narinfo

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
)

func keys(t testing.TB, texts ...string) []PublicKey {
	t.Helper()
	var all []PublicKey
	for _, text := range texts {
		k, err := ParsePublicKey(text)
		if err != nil {
			t.Fatal(err)
		}
		if k.String() != text {
			t.Errorf("%q is written as %q", text, k)
		}
		all = append(all, k)
	}
	return all
}

// impostor is another key of the name test-1.
const impostor = "test-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="

func TestTrust(t *testing.T) {
	change := func(fixtureName, old, new string) string {
		text := fixture(t, fixtureName)
		if !strings.Contains(text, old) {
			t.Fatalf("%s has no %q", fixtureName, old)
		}
		return strings.Replace(text, old, new, 1)
	}
	tests := []struct {
		name string
		text string
		keys []string
		by   string
		err  string
	}{
		{"signed by Nix", fixture(t, "signed"), []string{publicKey}, "test-1", ""},
		{"a reference to itself", fixture(t, "signed-self-reference"), []string{publicKey}, "test-1", ""},
		{"the second of two signatures", fixture(t, "signed-by-two"), []string{test1Key}, "test1", ""},
		{"cache.nixos.org", fixture(t, "signed-by-two"), []string{publicKey, nixosKey}, "cache.nixos.org-1", ""},
		{"two keys of one name", fixture(t, "signed"), []string{impostor, publicKey}, "test-1", ""},
		{"two signatures of one name", change("signed", "Sig: ", "Sig: test-1:AAAA\nSig: "), []string{publicKey}, "test-1", ""},
		{"no signature", fixture(t, "unsigned"), []string{publicKey}, "", "z4asv3j07d89ywjf8fxkn7sg6mf5s9q5-dep is not signed"},
		{"no keys", fixture(t, "signed"), nil, "", "0r2v93mqaf9d2zyqi8pgmyzmf879753y-top is signed by test-1, which is not trusted"},
		{"another key", fixture(t, "signed"), []string{nixosKey}, "", "signed by test-1, which is not trusted"},
		{"another key of that name", fixture(t, "signed"), []string{impostor}, "", "has a signature of test-1 that does not match"},
		{"another size", change("signed", "NarSize: 160", "NarSize: 161"), []string{publicKey}, "", "does not match"},
		{"another path", change("signed", "y-top\nURL", "y-tip\nURL"), []string{publicKey}, "", "does not match"},
		{"a reference less", change("signed", " z4asv3j07d89ywjf8fxkn7sg6mf5s9q5-dep", " "), []string{publicKey}, "", "does not match"},
		{"a signature that is no base64", change("signed", "Sig: test-1:", "Sig: test-1:!"), []string{publicKey}, "", "does not match"},
		{"a signature without name", change("signed", "Sig: test-1:", "Sig: :"), []string{publicKey}, "", "not trusted"},

		{"content: a file", fixture(t, "content-source-file"), nil, ContentAddress, ""},
		{"content: a folder", fixture(t, "content-source-tree"), nil, ContentAddress, ""},
		{"content: a text", fixture(t, "content-text"), nil, ContentAddress, ""},
		{"content: a text with a reference", fixture(t, "content-text-with-reference"), nil, ContentAddress, ""},
		{"content: fixed, flat, sha1", fixture(t, "content-fixed-flat-sha1"), nil, ContentAddress, ""},
		{"content: fixed, flat, sha256", fixture(t, "content-fixed-flat-sha256"), nil, ContentAddress, ""},
		{"content: fixed, a folder, sha1", fixture(t, "content-fixed-recursive-sha1"), nil, ContentAddress, ""},
		{"content: a reference to itself", fixture(t, "content-self-reference"), nil, ContentAddress, ""},
		{"content of another path", change("content-source-file", "-greeting", "-other"), nil, "", "is not signed"},
		{"content with another reference", change("content-text-with-reference", "-dep", "-dip"), nil, "", "is not signed"},
		{"content of another method", change("content-text", "CA: text:", "CA: fixed:"), nil, "", "is not signed"},
		{"content in a form of the future", change("content-source-tree", "CA: fixed:r:", "CA: fixed:git:"), nil, "", "is not signed"},
		{"content address that is none", change("content-source-tree", "CA: fixed:r:", "CA: "), nil, "", "is not signed"},
		{"a text that refers to itself", change("content-text", "References: ", "References: wkb38adhw4i46sxpcl84c1g6wxsylyag-dep"), nil, "", "is not signed"},
	}
	for _, test := range tests {
		by, err := mustParse(t, test.text).Trust(dir, keys(t, test.keys...))
		if by != test.by {
			t.Errorf("%s: trusted because of %q, want %q (%v)", test.name, by, test.by, err)
		}
		var no *UntrustedError
		if test.err == "" && err != nil || test.err != "" && (!errors.As(err, &no) || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.err)
		}
	}
}

// Ed25519 has one signature per key and text: ours is the one Nix made.
func TestSign(t *testing.T) {
	secret, err := ParseSecretKey(secretKey + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if secret.Public().String() != publicKey {
		t.Errorf("public key %s, want %s", secret.Public(), publicKey)
	}
	text := fixture(t, "signed")
	n := mustParse(t, text)
	want := n.Sigs[0]
	n.Sigs = []string{"other:AAAA", "test-1:AAAA"}
	n.Sign(secret, dir)
	if fmt.Sprint(n.Sigs) != fmt.Sprint([]string{"other:AAAA", want}) {
		t.Errorf("signatures %q, want the other one kept and %q in place of the stale one", n.Sigs, want)
	}
}

func TestSecretKeyIsNotPrinted(t *testing.T) {
	secret, _ := ParseSecretKey(secretKey)
	half := secretKey[7:30]
	for _, format := range []string{"%v", "%s", "%q", "%+v", "%#v", "%x"} {
		if text := fmt.Sprintf(format, secret); strings.Contains(text, half) || strings.Contains(text, fmt.Sprintf("%x", secret.key[:4])) {
			t.Errorf("%s prints %s", format, text)
		}
	}
	if _, err := ParseSecretKey(secretKey[:40]); err == nil || strings.Contains(err.Error(), half) {
		t.Errorf("a key cut short gives %v", err)
	}
}

func TestBadKeys(t *testing.T) {
	for _, text := range []string{"", "test-1", "test-1:", ":" + strings.Repeat("A", 43) + "=", "test-1:!", "test-1:AAAA", secretKey} {
		if k, err := ParsePublicKey(text); err == nil {
			t.Errorf("ParsePublicKey(%q) = %s", text, k)
		}
	}
	mixed := "test-1:" + strings.Repeat("A", 86) + "=="
	for _, text := range []string{"", publicKey, mixed} {
		if _, err := ParseSecretKey(text); err == nil {
			t.Errorf("ParseSecretKey(%q) gives no error", text)
		}
	}
}

func FuzzTrust(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.narinfo")
	for _, file := range files {
		for _, sig := range mustParse(f, fixture(f, strings.TrimSuffix(filepath.Base(file), ".narinfo"))).Sigs {
			f.Add(sig, publicKey)
			f.Add(sig, nixosKey)
		}
	}
	f.Add("a:b", "a:b")
	f.Add(":", "0")
	signed := fixture(f, "signed")
	f.Fuzz(func(t *testing.T, sig, key string) {
		ours, err := ParsePublicKey(key)
		theirs, theirErr := signature.ParsePublicKey(key)
		if (err == nil) != (theirErr == nil) {
			t.Fatalf("ParsePublicKey(%q): %v, go-nix %v", key, err, theirErr)
		}
		n := mustParse(t, signed)
		n.Sigs = []string{sig}
		_, err = n.Trust(dir, []PublicKey{ours})
		s, sigErr := signature.ParseSignature(sig)
		want := theirErr == nil && sigErr == nil && theirs.Verify(n.Fingerprint(dir), s)
		if theirErr == nil && (err == nil) != want {
			t.Errorf("signature %q with key %q: %v, go-nix %v", sig, key, err, want)
		}
	})
}

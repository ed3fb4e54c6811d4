package attest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestKeys(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := encrypted.Encrypt(pkcs8, []byte("right"))
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.MarshalPKCS8PrivateKey(edwards)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for name, text := range map[string][]byte{
		"cosign's": pemOf("ENCRYPTED SIGSTORE PRIVATE KEY", sealed), "cosign's of old": pemOf("ENCRYPTED COSIGN PRIVATE KEY", sealed),
		"PKCS #8": pemOf("PRIVATE KEY", pkcs8), "SEC 1": pemOf("EC PRIVATE KEY", sec1),
	} {
		k, err := ParseKey(text, []byte("right"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ids[k.ID()] = true
		signature, err := k.Sign([]byte("message"))
		if err != nil || !k.Verify([]byte("message"), signature) {
			t.Errorf("%s: its own signature %q, %v is not accepted", name, signature, err)
		}
		if k.Verify([]byte("massage"), signature) || k.Verify([]byte("message"), "") || k.Verify([]byte("message"), "!") {
			t.Errorf("%s: accepts what it did not sign", name)
		}
	}
	if len(ids) != 1 {
		t.Errorf("one key has the IDs %v", ids)
	}
	if (*Key)(nil).ID() != "" {
		t.Error("no key has an ID")
	}
	if _, err := ParseKey(pemOf("ENCRYPTED SIGSTORE PRIVATE KEY", sealed), []byte("wrong")); !errors.Is(err, ErrPassword) {
		t.Errorf("the wrong password: %v", err)
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "a public key": pemOf("PUBLIC KEY", pkcs8), "rubbish": pemOf("PRIVATE KEY", []byte("x")), "Ed25519": pemOf("PRIVATE KEY", other),
	} {
		if k, err := ParseKey(text, nil); err == nil {
			t.Errorf("%s is the key %s", name, k.ID())
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q has several lines", name, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), []byte("p"))
	f.Add([]byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"), []byte("p"))
	f.Fuzz(func(t *testing.T, text, password []byte) {
		if k, err := ParseKey(text, password); err == nil && k.ID() == "" {
			t.Error("a key without ID")
		}
	})
}

// The payload has one form: a signature that is there is found by its digest.
func TestPayload(t *testing.T) {
	const want = `{"critical":{"identity":{"docker-reference":"registry.example.org/team/api"},"image":{"docker-manifest-digest":"sha256:12"},` +
		`"type":"cosign container image signature"},"optional":null}`
	if diff := cmp.Diff(want, string(Payload(Subject{"registry.example.org/team/api", "sha256:12"}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEnvelopeSignsTypeAndStatement(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := &Key{private, "id"}
	statement := Statement(Subject{"r/a", "sha256:12"}, ProvenanceType, Provenance(Build{Flake: "f", Inputs: []Input{{Name: "n", Commit: "c", NarHash: "sha256-x"}}}))
	text, err := k.Envelope(statement)
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		PayloadType, Payload string
		Signatures           []struct{ Sig string }
	}
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil || string(payload) != string(statement) {
		t.Errorf("payload %q, %v", payload, err)
	}
	if !k.Verify(fmt.Appendf(nil, "DSSEv1 28 application/vnd.in-toto+json %d %s", len(statement), statement), e.Signatures[0].Sig) {
		t.Error("the signature is not over type and statement")
	}
	const want = `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"r/a","digest":{"sha256":"12"}}],"predicateType":"https://slsa.dev/provenance/v1",` +
		`"predicate":{"buildDefinition":{"buildType":"` + BuildType + `","externalParameters":{"attribute":"","flake":"f"},"internalParameters":{"derivation":"","output":"","system":""},` +
		`"resolvedDependencies":[{"name":"n","digest":{"gitCommit":"c","narHash":"sha256-x"}}]},"runDetails":{"builder":{"id":"","version":{"flakeship":""}},"metadata":{}}}}`
	if diff := cmp.Diff(want, string(statement)); diff != "" {
		t.Errorf("statement (-want +got):\n%s", diff)
	}
}

func TestSPDX(t *testing.T) {
	const glibc, app = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-glibc-2.40-66", "/nix/store/1123456789abcdfghijklmnpqrsvwxyz-app_x+y"
	doc := SPDX(Subject{"registry.example.org/team/api", "sha256:12"}, "1.0", []StorePath{
		{Path: glibc, NarHash: "abcd", References: []string{glibc}},
		{Path: app, References: []string{glibc, "/nix/store/2123456789abcdfghijklmnpqrsvwxyz-not-inside"}, Merged: true},
	}, []string{"One.", "Two."}, time.Unix(0, 0)).(spdxDocument)
	var got []string
	for _, r := range doc.Relationships {
		got = append(got, r.From+" "+r.Type+" "+r.To)
	}
	want := []string{
		"SPDXRef-DOCUMENT DESCRIBES SPDXRef-image",
		"SPDXRef-image CONTAINS SPDXRef-0123456789abcdfghijklmnpqrsvwxyz-glibc-2.40-66",
		"SPDXRef-image CONTAINS SPDXRef-1123456789abcdfghijklmnpqrsvwxyz-app.x.y",
		"SPDXRef-1123456789abcdfghijklmnpqrsvwxyz-app.x.y DEPENDS_ON SPDXRef-0123456789abcdfghijklmnpqrsvwxyz-glibc-2.40-66",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("relationships (-want +got):\n%s", diff)
	}
	if p := doc.Packages[1]; p.Name != "glibc" || p.Version != "2.40-66" || p.FileName != glibc || p.Checksums[0].Value != "abcd" ||
		p.ExternalRefs[0].Locator != "pkg:nix/glibc@2.40-66" {
		t.Errorf("package %+v", p)
	}
	if doc.Comment != "One. Two." || doc.Packages[1].Comment != "" {
		t.Errorf("comments %q, %q", doc.Comment, doc.Packages[1].Comment)
	}
	if p := doc.Packages[2]; p.Checksums != nil || p.Version != "" || p.Comment == "" {
		t.Errorf("package %+v", p)
	}
}

// As builtins.parseDrvName has it.
func TestNameAndVersion(t *testing.T) {
	for base, want := range map[string][2]string{
		"openssl-3.0.1":       {"openssl", "3.0.1"},
		"nix-2.3-pre1":        {"nix", "2.3-pre1"},
		"hello":               {"hello", ""},
		"python3.12-requests": {"python3.12-requests", ""},
		"a-b-1":               {"a-b", "1"},
		"trailing-":           {"trailing-", ""},
	} {
		name, version := nameAndVersion("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-" + base)
		if got := [2]string{name, version}; got != want {
			t.Errorf("%s = %q, want %q", base, got, want)
		}
	}
}

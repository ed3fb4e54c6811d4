package sign_test

import (
	"bytes"
	"encoding/json"
	"testing"

	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	statement "github.com/in-toto/attestation/go/v1"
	spdx "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"
	"google.golang.org/protobuf/encoding/protojson"
)

// checkStatement has in-toto's own library read a statement, and returns its predicate.
func checkStatement(t *testing.T, text string) []byte {
	t.Helper()
	var s statement.Statement
	if err := protojson.Unmarshal([]byte(text), &s); err != nil { // refuses unknown fields
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	var raw struct{ Predicate json.RawMessage }
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		t.Fatal(err)
	}
	return raw.Predicate
}

// checkProvenance has SLSA's schema read a provenance statement.
func checkProvenance(t *testing.T, text string) {
	t.Helper()
	var p provenance.Provenance
	if err := protojson.Unmarshal(checkStatement(t, text), &p); err != nil {
		t.Fatal(err)
	}
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
}

// checkSPDX has SPDX's own library read an SBOM, and counts its packages.
func checkSPDX(t *testing.T, text string, packages int) {
	t.Helper()
	doc, err := spdx.Read(bytes.NewReader(checkStatement(t, text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Error(err)
	}
	if described, err := spdxlib.GetDescribedPackageIDs(doc); err != nil || len(described) != 1 || len(doc.Packages) != packages {
		t.Errorf("it describes %v of %d packages, %v; want one of %d", described, len(doc.Packages), err, packages)
	}
}

package attest

import (
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"
)

// SPDXType is the predicate type of an SPDX document.
const SPDXType = "https://spdx.dev/Document"

// StorePath is a store path inside an image.
type StorePath struct {
	Path       string
	NarHash    string   // sha256, in hex digits; empty: not known
	References []string // store paths, itself maybe among them
	Merged     bool     // its files are in the image, but not where its path says
}

type spdxDocument struct {
	Version           string             `json:"spdxVersion"`
	DataLicense       string             `json:"dataLicense"`
	ID                string             `json:"SPDXID"`
	Name              string             `json:"name"`
	Namespace         string             `json:"documentNamespace"`
	CreationInfo      spdxCreation       `json:"creationInfo"`
	Packages          []spdxPackage      `json:"packages"`
	Relationships     []spdxRelationship `json:"relationships"`
	DocumentDescribes []string           `json:"documentDescribes"`
	Comment           string             `json:"comment,omitempty"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID           string         `json:"SPDXID"`
	Name         string         `json:"name"`
	Version      string         `json:"versionInfo,omitempty"`
	FileName     string         `json:"packageFileName,omitempty"`
	Download     string         `json:"downloadLocation"`
	Analyzed     bool           `json:"filesAnalyzed"`
	Checksums    []spdxChecksum `json:"checksums,omitempty"`
	SourceInfo   string         `json:"sourceInfo,omitempty"`
	License      string         `json:"licenseConcluded"`
	Declared     string         `json:"licenseDeclared"`
	Copyright    string         `json:"copyrightText"`
	ExternalRefs []spdxRef      `json:"externalRefs,omitempty"`
	Purpose      string         `json:"primaryPackagePurpose,omitempty"`
	Comment      string         `json:"comment,omitempty"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const (
	unknown   = "NOASSERTION"
	imageID   = "SPDXRef-image"
	documents = "SPDXRef-DOCUMENT"
)

// SPDX is an SPDX 2.3 document of the store paths in an image, which come sorted: each is a package that depends on those it
// refers to. References to what is not in the image are left out. gaps are sentences on what is in the image and not in the document.
func SPDX(s Subject, version string, paths []StorePath, gaps []string, created time.Time) any {
	digest := strings.TrimPrefix(s.Digest, "sha256:")
	name := path.Base(s.Repository)
	doc := spdxDocument{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: documents, Name: s.Repository + "@" + s.Digest,
		Namespace:    "https://spdx.org/spdxdocs/" + url.PathEscape(name) + "-" + digest,
		CreationInfo: spdxCreation{created.UTC().Format(time.RFC3339), []string{"Tool: flakeship-" + version}},
		Packages: []spdxPackage{{
			ID: imageID, Name: s.Repository, Version: s.Digest, Download: unknown, License: unknown, Declared: unknown, Copyright: unknown,
			Checksums: []spdxChecksum{{"SHA256", digest}}, Purpose: "CONTAINER",
			ExternalRefs: purl(fmt.Sprintf("pkg:oci/%s@sha256%%3A%s?repository_url=%s", url.PathEscape(name), digest, url.QueryEscape(s.Repository))),
		}},
		Relationships:     []spdxRelationship{{documents, "DESCRIBES", imageID}},
		DocumentDescribes: []string{imageID},
		Comment:           strings.Join(gaps, " "),
	}
	inside := map[string]bool{}
	for _, p := range paths {
		inside[p.Path] = true
	}
	for _, p := range paths {
		doc.Packages = append(doc.Packages, p.spdx())
		doc.Relationships = append(doc.Relationships, spdxRelationship{imageID, "CONTAINS", p.id()})
		for _, other := range p.References {
			if inside[other] && other != p.Path {
				doc.Relationships = append(doc.Relationships, spdxRelationship{p.id(), "DEPENDS_ON", StorePath{Path: other}.id()})
			}
		}
	}
	return doc
}

func (p StorePath) spdx() spdxPackage {
	name, version := nameAndVersion(p.Path)
	pkg := spdxPackage{
		ID: p.id(), Name: name, Version: version, FileName: p.Path, Download: unknown, License: unknown, Declared: unknown, Copyright: unknown,
	}
	locator := "pkg:nix/" + url.PathEscape(name)
	if version != "" {
		locator += "@" + url.PathEscape(version)
	}
	pkg.ExternalRefs = purl(locator)
	if p.NarHash != "" {
		pkg.Checksums, pkg.SourceInfo = []spdxChecksum{{"SHA256", p.NarHash}}, "the checksum is that of the store path's NAR serialisation"
	}
	if p.Merged {
		pkg.Comment = "its files were copied to elsewhere in the image"
	}
	return pkg
}

func purl(locator string) []spdxRef { return []spdxRef{{"PACKAGE-MANAGER", "purl", locator}} }

// id is made of what SPDX allows: letters, digits, points and hyphens.
func (p StorePath) id() string {
	return "SPDXRef-" + strings.Map(func(r rune) rune {
		if r == '_' || r == '+' || r == '?' || r == '=' {
			return '.'
		}
		return r
	}, path.Base(p.Path))
}

// nameAndVersion takes a store path's name apart as Nix does: the version begins at the first hyphen that no letter follows.
func nameAndVersion(storePath string) (name, version string) {
	_, full, _ := strings.Cut(path.Base(storePath), "-")
	for i := 0; i+1 < len(full); i++ {
		next := full[i+1]
		if full[i] == '-' && !(next >= 'a' && next <= 'z' || next >= 'A' && next <= 'Z') {
			return full[:i], full[i+1:]
		}
	}
	return full, ""
}

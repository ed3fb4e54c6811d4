package attest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// Subject is an image or index in a registry.
type Subject struct {
	Repository string // with the registry's host
	Digest     string // sha256:… of its manifest
}

// Media types of what is attached, and the keys of cosign's annotations on it.
const (
	SignatureType = "application/vnd.dev.cosign.simplesigning.v1+json"
	EnvelopeType  = "application/vnd.dsse.envelope.v1+json"
	StatementType = "application/vnd.in-toto+json"

	SignatureAnnotation     = "dev.cosignproject.cosign/signature"
	PredicateTypeAnnotation = "predicateType"
)

// Payload is what a cosign signature of an image is made over. The same subject has the same payload.
func Payload(s Subject) []byte {
	var p struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
		Optional any `json:"optional"`
	}
	p.Critical.Identity.Reference, p.Critical.Image.Digest = s.Repository, s.Digest
	p.Critical.Type = "cosign container image signature"
	return marshal(p)
}

// Statement is an in-toto statement: predicate is what is said of the subject.
func Statement(s Subject, predicateType string, predicate any) []byte {
	type subject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
	return marshal(struct {
		Type          string    `json:"_type"`
		Subject       []subject `json:"subject"`
		PredicateType string    `json:"predicateType"`
		Predicate     any       `json:"predicate"`
	}{
		"https://in-toto.io/Statement/v1",
		[]subject{{s.Repository, map[string]string{"sha256": strings.TrimPrefix(s.Digest, "sha256:")}}},
		predicateType, predicate,
	})
}

// Envelope signs a statement, as DSSE.
func (k *Key) Envelope(statement []byte) ([]byte, error) {
	// https://github.com/secure-systems-lab/dsse/blob/master/protocol.md#signature-definition
	signature, err := k.Sign(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(StatementType), StatementType, len(statement), statement))
	if err != nil {
		return nil, err
	}
	type signed struct {
		KeyID string `json:"keyid"`
		Sig   string `json:"sig"`
	}
	return marshal(struct {
		PayloadType string   `json:"payloadType"`
		Payload     string   `json:"payload"`
		Signatures  []signed `json:"signatures"`
	}{StatementType, base64.StdEncoding.EncodeToString(statement), []signed{{"", signature}}}), nil
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // text, numbers, lists and maps of them
	}
	return b
}

package attest

// ProvenanceType is the predicate type of SLSA provenance, version 1.
const ProvenanceType = "https://slsa.dev/provenance/v1"

// BuildType says what the parameters in our provenance mean.
const BuildType = "https://github.com/flakeship/flakeship/blob/main/docs/attestations.md#nix-flake-v1"

// Build is what is known of how an image came to be.
type Build struct {
	Flake      string  // reference, pinned where it can be
	Attribute  string  // of the flake's output, such as packages.x86_64-linux.api
	System     string  // Nix's
	Derivation string  // store path of the .drv; empty: not known
	Output     string  // store path of what was pushed
	Inputs     []Input // the source first, then what flake.lock pins
	Builder    string  // URI of who vouches for the build
	Version    string  // of flakeship
	Run        string  // URI of the run; empty: not known
}

// Input is one source a flake is made of.
type Input struct {
	Name    string // as flake.lock calls it
	URI     string
	Commit  string // 40 hex digits; empty: it is no git tree
	NarHash string // sha256-…; empty: not known
}

// Provenance is the predicate of SLSA provenance, version 1: https://slsa.dev/spec/v1.0/provenance.
func Provenance(b Build) any {
	type descriptor struct {
		Name   string            `json:"name,omitempty"`
		URI    string            `json:"uri,omitempty"`
		Digest map[string]string `json:"digest,omitempty"`
	}
	dependencies := []descriptor{}
	for _, in := range b.Inputs {
		d := descriptor{Name: in.Name, URI: in.URI, Digest: map[string]string{}}
		if in.Commit != "" {
			d.Digest["gitCommit"] = in.Commit
		}
		if in.NarHash != "" {
			d.Digest["narHash"] = in.NarHash
		}
		dependencies = append(dependencies, d)
	}
	type object map[string]any
	metadata := object{}
	if b.Run != "" {
		metadata["invocationId"] = b.Run
	}
	return object{
		"buildDefinition": object{
			"buildType":            BuildType,
			"externalParameters":   object{"flake": b.Flake, "attribute": b.Attribute},
			"internalParameters":   object{"system": b.System, "derivation": b.Derivation, "output": b.Output},
			"resolvedDependencies": dependencies,
		},
		"runDetails": object{
			"builder":  object{"id": b.Builder, "version": object{"flakeship": b.Version}},
			"metadata": metadata,
		},
	}
}

package sign_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

// A layout that was never near a registry is copied to one by skopeo, name by name: there cosign accepts an image, an index, and what is
// attested. cosign itself reads only folders that its own save wrote, of one image each.
func TestALayoutIsCopiedWithItsSignatures(t *testing.T) {
	w := newWorld(t, distribution.Start(t).Host)
	private, public := w.keys("ours")
	_, stranger := w.keys("other")
	layout := filepath.Join(w.dir, "layout")
	var names []string
	for name, systems := range map[string]map[string]string{
		"api": {"amd64": "x86_64-linux"},
		"web": {"amd64": "x86_64-linux", "zarm64": "aarch64-linux"},
	} {
		w.must(pushPath, "--build-result", w.buildResult(name, handoff.BuildBuilt, systems), "--attest", "provenance,sbom", "--signing-key", private,
			"--tags", "main", "--oci-layout", layout)
		names = append(names, name)
	}
	if out, err := w.command(cosignPath, "verify", "--key", public, "--insecure-ignore-tlog=true", "--local-image", layout); err == nil {
		t.Errorf("cosign verifies the layout as it is, which docs/attestations.md denies: %s", out)
	}

	text, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(text, &index); err != nil {
		t.Fatal(err)
	}
	for _, m := range index.Manifests {
		name := m.Annotations["org.opencontainers.image.ref.name"]
		if _, tag, _ := strings.Cut(name, ":"); strings.HasPrefix(tag, "sha256-") && !strings.Contains(tag, ".") {
			continue // a list of referrers, which skopeo 1.9.3 does not copy
		}
		w.must("skopeo", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", "oci:"+layout+":"+name, "docker://"+w.reg+"/"+name)
	}
	for _, name := range names {
		if _, err := w.verify(public, w.reg+"/"+name+":main", ""); err != nil {
			t.Error(err)
		}
		if _, err := w.verify(stranger, w.reg+"/"+name+":main", ""); err == nil {
			t.Errorf("%s: cosign verify accepts another key", name)
		}
	}
	checkProvenance(t, w.attested(public, w.reg+"/api:main", "slsaprovenance1"))
	if sbom := w.attested(public, w.reg+"/api:main", "spdxjson"); !strings.Contains(sbom, libPath) {
		t.Errorf("the SBOM is %s", sbom)
	}
}

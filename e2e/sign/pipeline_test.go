package sign_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/flakeship/flakeship/e2e/build"
	"github.com/flakeship/flakeship/e2e/nixenv"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

// flake has an image for two systems, one of which the machine only pretends to be: the builders are its own programs.
const flake = `{
  outputs = { self }:
    let
      lib = system: import ./lib { inherit system; tools = ./tools; };
      # Nothing refers to it, so that only its file is in the image.
      app = system: (lib system).runCommand "app-1.2" { } "mkdir -p $out/bin; echo app > $out/bin/app";
      base = system: (lib system).dockerTools.buildImage { name = "base"; config.Env = [ "INSIDE=${(lib system).writeText "named-0.1" "named"}" ]; };
      api = system: (lib system).dockerTools.buildImage { name = "api"; fromImage = base system; copyToRoot = [ (app system) ]; config.Entrypoint = [ "${(lib system).busybox}/bin/sh" "-c" "true" ]; };
      web = system: (lib system).dockerTools.streamLayeredImage { name = "web"; fromImage = base system; contents = [ (lib system).busybox ]; };
      json = system: (lib system).nix2container.buildImage { name = "json"; copyToRoot = [ (app system) ]; config.Entrypoint = [ "/bin/app" ]; };
    in
    {
      packages.x86_64-linux = { api = api "x86_64-linux"; web = web "x86_64-linux"; json = json "x86_64-linux"; };
      packages.aarch64-linux.api = api "aarch64-linux";
    };
}
`

// What Nix evaluated, built and described comes out of the registry as what cosign verifies: of an image, of an index and of each
// of its images. The second run finds everything there, signed.
func TestPipelineSignsAndAttests(t *testing.T) {
	server := distribution.Start(t)
	w := newWorld(t, server.Host)
	private, public := w.keys("ours")
	n, err := nixenv.New(t.Context(), filepath.Join(w.dir, "nix"), nixenv.Options{ExtraConf: "extra-platforms = x86_64-linux aarch64-linux"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Remove()
	for name, value := range n.Env() {
		w.env = append(w.env, name+"="+value)
	}
	repo := w.repository(n.Busybox)
	commit := strings.TrimSpace(w.must("git", "-C", repo, "rev-parse", "HEAD"))
	tools := filepath.Join(w.dir, "bin")
	goBuild(t, tools, "./cmd/nix-cache-check", "./cmd/nix-build-images")

	ship := func() handoff.PushResult {
		t.Helper()
		file := func(name string) string { return filepath.Join(w.dir, name) }
		w.must(filepath.Join(tools, "nix-cache-check"), "--flake", repo, "--systems", "x86_64-linux,aarch64-linux", "--registry", w.reg, "--out", file("plan.json"))
		w.must(filepath.Join(tools, "nix-build-images"), "--plan", file("plan.json"), "--attest", "provenance,sbom", "--signed", "true", "--out", file("build.json"))
		pushed, err := w.push("--build-result", file("build.json"), "--attest", "provenance,sbom", "--signing-key", private, "--tags", "main")
		if err != nil {
			t.Fatal(err)
		}
		return *pushed
	}
	first := ship()
	digests := map[string]string{}
	for _, image := range first.Images {
		digests[image.Name] = image.Digest
	}
	if names := slices.Sorted(maps.Keys(digests)); !slices.Equal(names, []string{"api", "json", "web"}) || !first.Complete {
		t.Fatalf("pushed %+v", first)
	}
	index, err := name.NewDigest(w.reg + "/api@" + digests["api"])
	if err != nil {
		t.Fatal(err)
	}
	joined, err := remote.Index(index)
	if err != nil {
		t.Fatal(err)
	}
	m, err := joined.IndexManifest()
	if err != nil || len(m.Manifests) != 2 {
		t.Fatalf("index: %+v, %v", m, err)
	}
	images := []string{w.reg + "/web@" + digests["web"], w.reg + "/json@" + digests["json"]}
	for _, d := range m.Manifests {
		images = append(images, w.reg+"/api@"+d.Digest.String())
	}
	for _, reference := range append(images, index.String(), w.reg+"/api:main", w.reg+"/web:main") {
		if _, err := w.verify(public, reference, ""); err != nil {
			t.Error(err)
		}
	}
	for _, reference := range images {
		provenance := w.attested(public, reference, "slsaprovenance1")
		checkProvenance(t, provenance)
		for _, part := range []string{commit, ".drv", "packages."} {
			if !strings.Contains(provenance, part) {
				t.Errorf("the provenance of %s lacks %s:\n%s", reference, part, provenance)
			}
		}
		sbom := w.attested(public, reference, "spdxjson")
		var statement struct {
			Predicate struct{ Packages []struct{ Name string } }
		}
		if err := json.Unmarshal([]byte(sbom), &statement); err != nil {
			t.Fatal(err)
		}
		checkSPDX(t, sbom, len(statement.Predicate.Packages))
		checkComplete(t, sbom, inside[path.Base(reference[:strings.Index(reference, "@")])])
		w.checkReferrers(reference)
	}

	for _, image := range ship().Images {
		if image.State != handoff.PushUnchanged || image.Digest != digests[image.Name] || image.Uploaded != 0 {
			t.Errorf("shipped again: %+v", image)
		}
	}
	server.Check(t)
}

// inside is what the images have in them, by name: what their base image has, and the application that was copied to the root.
var inside = map[string][]string{
	"api": {"busybox ", "named 0.1", "app 1.2"}, "web": {"busybox ", "named 0.1"}, "json": {"app 1.2"},
}

// checkComplete wants everything that is in an image to be described, with its hash.
func checkComplete(t *testing.T, sbom string, want []string) {
	t.Helper()
	var statement struct {
		Predicate struct {
			Comment  string
			Packages []struct {
				Name, VersionInfo, Comment, PackageFileName string
				Checksums                                   []struct{ ChecksumValue string }
			}
		}
	}
	if err := json.Unmarshal([]byte(sbom), &statement); err != nil {
		t.Fatal(err)
	}
	if statement.Predicate.Comment != "" {
		t.Errorf("the SBOM says %s", statement.Predicate.Comment)
	}
	found := map[string]bool{}
	for _, p := range statement.Predicate.Packages {
		if len(p.Checksums) != 1 || len(p.Checksums[0].ChecksumValue) != 64 {
			t.Errorf("package %+v has no checksum", p)
		}
		found[p.Name+" "+p.VersionInfo] = true
		if copied := p.Comment != ""; copied != (p.Name == "app") {
			t.Errorf("package %+v", p)
		}
	}
	for _, p := range want {
		if !found[p] {
			t.Errorf("the SBOM lacks %s, it has %v", p, found)
		}
	}
}

// repository is a git repository of flake, with what it needs of the example monorepo.
func (w *world) repository(busybox string) string {
	w.t.Helper()
	root, err := build.Root()
	if err != nil {
		w.t.Fatal(err)
	}
	repo := filepath.Join(w.dir, "repo")
	if err := os.CopyFS(filepath.Join(repo, "lib"), os.DirFS(filepath.Join(root, "testdata/monorepo/lib"))); err != nil {
		w.t.Fatal(err)
	}
	goBuild(w.t, filepath.Join(repo, "tools"), "./internal/testenv/imagetool")
	for file, text := range map[string]func() ([]byte, error){
		"flake.nix":     func() ([]byte, error) { return []byte(flake), nil },
		"tools/busybox": func() ([]byte, error) { return os.ReadFile(busybox) },
	} {
		content, err := text()
		if err == nil {
			err = os.WriteFile(filepath.Join(repo, file), content, 0o755)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	w.env = append(w.env, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@example.org",
		"GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@example.org")
	w.must("git", "-C", repo, "init", "--quiet", "--initial-branch", "main")
	w.must("git", "-C", repo, "add", "--all")
	w.must("git", "-C", repo, "commit", "--quiet", "--message", "an image for two systems")
	return repo
}

// goBuild builds programs of the repository into a folder.
func goBuild(t *testing.T, dir string, packages ...string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := build.Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-trimpath", "-buildvcs=false", "-o", dir + "/"}, packages...)...)
	cmd.Dir, cmd.Env = filepath.Dir(root), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %v: %v\n%s", packages, err, out)
	}
}

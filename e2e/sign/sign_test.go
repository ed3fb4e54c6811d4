// Package sign_test lets the real cosign verify what push-images signs and attests.
package sign_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/flakeship/flakeship/e2e/build"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

const password = "the key's password"

var cosignPath, pushPath string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "flakeship-sign-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if cosignPath, err = build.Cosign(context.Background(), os.Stderr); err != nil {
		log.Fatal(err)
	}
	root, err := build.Root()
	if err != nil {
		log.Fatal(err)
	}
	pushPath = filepath.Join(dir, "push-images")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", pushPath, "./cmd/push-images")
	cmd.Dir = filepath.Dir(root)
	if out, err := cmd.CombinedOutput(); err != nil {
		log.Fatalf("build push-images: %v\n%s", err, out)
	}
	return m.Run()
}

// world is a registry and a runner.
type world struct {
	t   *testing.T
	dir string
	env []string
	reg string // prefix
}

func newWorld(t *testing.T, host string) *world {
	w := &world{t: t, dir: t.TempDir(), reg: host + "/team"}
	w.env = append(os.Environ(), "HOME="+w.dir, "DOCKER_CONFIG="+w.dir, "XDG_CONFIG_HOME="+w.dir, "RUNNER_TEMP="+w.dir, "COSIGN_PASSWORD="+password,
		"GITHUB_OUTPUT=", "GITHUB_STEP_SUMMARY=", "GITHUB_SERVER_URL=https://git.example.org", "GITHUB_REPOSITORY=team/shop", "GITHUB_RUN_ID=7",
		"GITHUB_WORKFLOW_REF=team/shop/.gitea/workflows/ship.yaml@refs/heads/main", "GITHUB_SHA=", "TUF_ROOT="+w.dir)
	return w
}

// keys makes a key pair with cosign.
func (w *world) keys(name string) (private, public string) {
	w.t.Helper()
	prefix := filepath.Join(w.dir, name)
	w.must(cosignPath, "generate-key-pair", "--output-key-prefix", prefix)
	return prefix + ".key", prefix + ".pub"
}

func (w *world) command(program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Env, cmd.Dir = w.env, w.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

func (w *world) must(program string, args ...string) string {
	w.t.Helper()
	out, err := w.command(program, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// push runs push-images and returns the PushResult.
func (w *world) push(args ...string) (*handoff.PushResult, error) {
	out := filepath.Join(w.dir, "push.json")
	_, err := w.command(pushPath, append([]string{"--registry", w.reg, "--out", out}, args...)...)
	result := &handoff.PushResult{}
	if loadErr := handoff.Load(out, result); loadErr != nil {
		return nil, errors.Join(err, loadErr)
	}
	return result, err
}

// verify runs cosign verify, or verify-attestation for a predicate type, and returns what it prints.
func (w *world) verify(public, reference, predicateType string) (string, error) {
	args := []string{"verify"}
	if predicateType != "" {
		args = []string{"verify-attestation", "--type", predicateType}
	}
	return w.command(cosignPath, append(args, "--key", public, "--insecure-ignore-tlog=true", "--allow-http-registry", reference)...)
}

const (
	libPath = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-openssl-3.0.1"
	appPath = "/nix/store/1123456789abcdfghijklmnpqrsvwxyz-api"
)

// archive writes an image of one layer with two store paths, and a file that is of neither.
func (w *world) archive(arch string) string {
	w.t.Helper()
	members := func(files ...[2]string) []byte {
		var b bytes.Buffer
		t := tar.NewWriter(&b)
		for _, f := range files {
			if err := t.WriteHeader(&tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1])), Typeflag: tar.TypeReg}); err != nil {
				w.t.Fatal(err)
			}
			io.WriteString(t, f[1])
		}
		if err := t.Close(); err != nil {
			w.t.Fatal(err)
		}
		return b.Bytes()
	}
	layer := members([2]string{"." + libPath + "/lib.so", arch}, [2]string{"." + appPath + "/bin/api", "an application"}, [2]string{"./etc/motd", "hello"})
	config := fmt.Sprintf(`{"architecture":%q,"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, arch, sha256.Sum256(layer))
	image := members([2]string{"l/layer.tar", string(layer)}, [2]string{"c.json", config},
		[2]string{"manifest.json", `[{"Config":"c.json","Layers":["l/layer.tar"]}]`})
	file := filepath.Join(w.dir, arch+".tar")
	if err := os.WriteFile(file, image, 0o644); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// buildResult writes what nix-build-images would have written of an image for some systems.
func (w *world) buildResult(name string, state handoff.BuildState, archs map[string]string) string {
	w.t.Helper()
	closures := filepath.Join(w.dir, "closures.json")
	err := handoff.WriteClosures(closures, []handoff.StorePath{
		{Path: libPath, NarHash: strings.Repeat("ab", 32)},
		{Path: appPath, NarHash: strings.Repeat("cd", 32), References: []string{appPath, libPath}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	r := &handoff.BuildResult{
		Header: handoff.Header{Commit: strings.Repeat("c", 40)},
		Flake: &handoff.Flake{Ref: ".", Locked: "git+https://git.example.org/team/shop?rev=" + strings.Repeat("c", 40), NarHash: "sha256-AAAA",
			Inputs: []handoff.FlakeInput{{Name: "nixpkgs", URI: "github:NixOS/nixpkgs/" + strings.Repeat("d", 40), Rev: strings.Repeat("d", 40), NarHash: "sha256-BBBB"}}},
		Store: handoff.Store{Dir: "/nix/store"}, Closures: closures,
	}
	for arch, system := range archs {
		r.Images = append(r.Images, handoff.BuiltImage{Name: name, Tag: strings.Repeat(string(arch[0]), 32), Attr: "packages." + system + ".api", System: system,
			Family: handoff.DockerArchive, DrvPath: "/nix/store/2123456789abcdfghijklmnpqrsvwxyz-api.drv", OutPath: w.archive(arch), State: state})
	}
	file := filepath.Join(w.dir, "build.json")
	if _, err := handoff.WriteFile(file, r); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// registries are one that knows nothing of referrers, and one that does.
func registries(t *testing.T, test func(t *testing.T, host string)) {
	t.Run("with the fallback tag", func(t *testing.T) { test(t, distribution.Start(t).Host) })
	t.Run("with referrers", func(t *testing.T) {
		server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
		defer server.Close()
		test(t, strings.TrimPrefix(server.URL, "http://"))
	})
}

func TestCosignAcceptsWhatIsSigned(t *testing.T) {
	registries(t, func(t *testing.T, host string) {
		w := newWorld(t, host)
		private, public := w.keys("ours")
		_, stranger := w.keys("other")
		result := w.buildResult("api", handoff.BuildBuilt, map[string]string{"amd64": "x86_64-linux"})
		args := []string{"--build-result", result, "--attest", "provenance,sbom", "--signing-key", private,
			"--annotations", "org.opencontainers.image.source=https://git.example.org/team/shop"}
		pushed, err := w.push(args...)
		if err != nil {
			t.Fatal(err)
		}
		image := pushed.Images[0]
		reference := image.Repository + "@" + image.Digest

		if _, err := w.verify(public, reference, ""); err != nil {
			t.Error(err)
		}
		if _, err := w.verify(stranger, reference, ""); err == nil {
			t.Error("cosign verify accepts another key")
		}
		provenance := w.attested(public, reference, "slsaprovenance1")
		for _, part := range []string{"nixpkgs", strings.Repeat("d", 40), "sha256-BBBB", strings.Repeat("c", 40), "-api.drv", "packages.x86_64-linux.api",
			"https://git.example.org/team/shop/.gitea/workflows/ship.yaml@refs/heads/main", "actions/runs/7"} {
			if !strings.Contains(provenance, part) {
				t.Errorf("the provenance lacks %s:\n%s", part, provenance)
			}
		}
		checkProvenance(t, provenance)
		sbom := w.attested(public, reference, "spdxjson")
		for _, part := range []string{`"SPDX-2.3"`, libPath, `"name":"openssl"`, `"versionInfo":"3.0.1"`, strings.Repeat("cd", 32), `"DEPENDS_ON"`,
			"Not described: 1 file outside of the Nix store in layer 1 of 1 (sha256:"} {
			if !strings.Contains(sbom, part) {
				t.Errorf("the SBOM lacks %s:\n%s", part, sbom)
			}
		}
		checkSPDX(t, sbom, 3)
		if _, err := w.verify(stranger, reference, "spdxjson"); err == nil {
			t.Error("cosign verify-attestation accepts another key")
		}
		w.checkReferrers(reference)

		again, err := w.push(args...)
		if err != nil || again.Images[0].State != handoff.PushUnchanged || again.Images[0].Uploaded != 0 {
			t.Errorf("again: %+v, %v", again, err)
		}
	})
}

// attested is the statement of a type that cosign found to be signed.
func (w *world) attested(public, reference, predicateType string) string {
	w.t.Helper()
	out, err := w.verify(public, reference, predicateType)
	if err != nil {
		w.t.Fatal(err)
	}
	var envelope struct{ Payload string }
	if err := json.Unmarshal([]byte(out), &envelope); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	statement, err := base64.StdEncoding.DecodeString(envelope.Payload)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(statement)
}

// checkReferrers looks for the signature and the attestations in the image's list of referrers.
func (w *world) checkReferrers(reference string) {
	w.t.Helper()
	digest, err := name.NewDigest(reference)
	if err != nil {
		w.t.Fatal(err)
	}
	list, err := remote.Referrers(digest)
	if err != nil {
		w.t.Fatal(err)
	}
	index, err := list.IndexManifest()
	if err != nil {
		w.t.Fatal(err)
	}
	found := map[string]int{}
	for _, d := range index.Manifests {
		m, err := remote.Get(digest.Digest(d.Digest.String())) // not all registries say in the list what it is
		if err != nil {
			w.t.Fatal(err)
		}
		var manifest struct{ ArtifactType string }
		if err := json.Unmarshal(m.Manifest, &manifest); err != nil {
			w.t.Fatal(err)
		}
		found[manifest.ArtifactType]++
	}
	if found["application/vnd.dev.cosign.artifact.sig.v1+json"] != 1 || found["application/vnd.dsse.envelope.v1+json"] != 1 {
		w.t.Errorf("referrers are %v", found)
	}
}

// An index is signed, and so is each of its images; both as cosign --recursive would.
func TestCosignAcceptsAnIndex(t *testing.T) {
	w := newWorld(t, distribution.Start(t).Host)
	private, public := w.keys("ours")
	result := w.buildResult("api", handoff.BuildBuilt, map[string]string{"amd64": "x86_64-linux", "zarm64": "aarch64-linux"})
	pushed, err := w.push("--build-result", result, "--signing-key", private)
	if err != nil {
		t.Fatal(err)
	}
	image := pushed.Images[0]
	digest, err := name.NewDigest(image.Repository + "@" + image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(digest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil || len(m.Manifests) != 2 {
		t.Fatalf("index: %+v, %v", m, err)
	}
	for _, d := range m.Manifests {
		if _, err := w.verify(public, image.Repository+"@"+d.Digest.String(), ""); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.verify(public, digest.String(), ""); err != nil {
		t.Error(err)
	}
}

// What was in the registry before, and was not looked at, is not signed.
func TestWhatNobodyLookedAtIsNotSigned(t *testing.T) {
	w := newWorld(t, distribution.Start(t).Host)
	private, public := w.keys("ours")
	systems := map[string]string{"amd64": "x86_64-linux"}
	if _, err := w.push("--build-result", w.buildResult("api", handoff.BuildBuilt, systems)); err != nil {
		t.Fatal(err)
	}
	skipped := w.buildResult("api", handoff.BuildSkipped, systems)
	pushed, err := w.push("--build-result", skipped, "--signing-key", private)
	exit := new(exec.ExitError)
	if !errors.As(err, &exit) || exit.ExitCode() != 4 || !strings.Contains(err.Error(), "was not looked at here") || pushed.Complete {
		t.Errorf("push = %+v, %v, want exit code 4", pushed, err)
	}
	// Built once more, it is signed where it is; from then on it may be skipped.
	for _, state := range []handoff.BuildState{handoff.BuildBuilt, handoff.BuildSkipped} {
		pushed, err := w.push("--build-result", w.buildResult("api", state, systems), "--signing-key", private)
		if err != nil || pushed.Images[0].State != handoff.PushUnchanged {
			t.Fatalf("push = %+v, %v", pushed, err)
		}
		if _, err := w.verify(public, pushed.Images[0].Repository+"@"+pushed.Images[0].Digest, ""); err != nil {
			t.Error(err)
		}
	}
}

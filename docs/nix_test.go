package docs_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// instantiate runs nix-instantiate on an expression, with neither a store nor anybody's settings.
func instantiate(t *testing.T, expression string, args ...string) string {
	t.Helper()
	cmd := exec.Command("nix-instantiate", append([]string{"--store", "dummy://"}, append(args, "-")...)...)
	home := t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "NIX_CONF_DIR=" + home, "NIX_STATE_DIR=" + home}
	cmd.Stdin = strings.NewReader(expression)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%v: %s\n%s", err, stderr.String(), expression)
	}
	return string(out)
}

// What the documentation shows of Nix parses.
func TestNixParses(t *testing.T) {
	blocks := 0
	for _, text := range pages(t) {
		for _, m := range fence.FindAllStringSubmatch(text, -1) {
			if m[1] == "nix" {
				blocks++
				instantiate(t, "with { };\n"+m[2], "--parse") // some speak of a flake's inputs
			}
		}
	}
	if blocks < 4 {
		t.Errorf("only %d blocks", blocks)
	}
}

// nixpkgs stands for as much of nixpkgs and nix2container as from-docker-build.md uses: its examples evaluate, and what they give to the
// functions that make images is what it seems to be. It does not say that they build.
const nixpkgs = `
let
  package = name: args: args // { outPath = "/nix/store/${name}"; };
  function = required: args: builtins.deepSeq (map (name: args.${name}) required) (package args.pname args);
  image = args: { inherit (args) name config; };
  nix2container = { buildImage = image; buildLayer = { deps }: deps; };
  pkgs = {
    lib = {
      getExe = p: "${p}/bin/${p.meta.mainProgram}";
      getExe' = p: name: "${p}/bin/${name}";
      fakeHash = "";
      fileset = { toSource = { root, fileset }: package "source" { }; unions = all: all; };
    };
    buildGoModule = function [ "src" "vendorHash" ];
    buildNpmPackage = function [ "src" "npmDepsHash" ];
    python3.withPackages = f: builtins.seq (f { requests = null; }) (package "python" { });
    cacert = package "cacert" { };
    darkhttpd = package "darkhttpd" { };
    tzdata = package "tzdata" { };
    dockerTools = { streamLayeredImage = image; buildLayeredImage = image; caCertificates = package "certificates" { }; };
  };
  file =
`

func TestFromDockerBuild(t *testing.T) {
	guide, err := os.ReadFile("guides/from-docker-build.md")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range fence.FindAllStringSubmatch(string(guide), -1) {
		if m[1] != "nix" {
			continue
		}
		out := instantiate(t, nixpkgs+m[2]+";\nin file (builtins.intersectAttrs (builtins.functionArgs file) { inherit pkgs nix2container; })", "--eval", "--strict", "--json")
		var image struct {
			Name   string
			Config struct {
				Entrypoint, Cmd, Env  []string
				User, WorkingDir      string
				ExposedPorts, Volumes map[string]struct{}
			}
		}
		decoder := json.NewDecoder(strings.NewReader(out))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&image); err != nil || len(image.Config.Entrypoint) == 0 || !strings.HasPrefix(image.Config.Entrypoint[0], "/nix/store/") {
			t.Errorf("%v: %s of\n%s", err, out, m[2])
		}
		names = append(names, image.Name)
	}
	if got := strings.Join(names, " "); got != "api site report" {
		t.Errorf("the guide makes the images %s", got)
	}
}

// Package nix_test evaluates what flake.nix offers to other flakes, as far as that goes without nixpkgs.
package nix_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const prelude = `
let
  lib = import ./lib.nix;
  stubs = import ./stubs.nix;
  image = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; } // { imageName = name; };
in
`

// eval gives the value of an expression, without a store to write to.
func eval(t *testing.T, expression string) (value any, stderr string) {
	t.Helper()
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nix-instantiate", "--eval", "--strict", "--json", "--readonly-mode", "--expr", prelude+expression)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "NIX_REMOTE=dummy://", "NIX_CONF_DIR="+t.TempDir(), "XDG_CACHE_HOME="+t.TempDir(), "NIX_USER_CONF_FILES=/dev/null")
	var text strings.Builder
	cmd.Stderr = &text
	out, err := cmd.Output()
	if err != nil {
		return nil, text.String()
	}
	if err := json.Unmarshal(out, &value); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return value, text.String()
}

func want(t *testing.T, expression string, want any) {
	t.Helper()
	got, stderr := eval(t, expression)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%s\n%s", expression, diff, stderr)
	}
}

func wantError(t *testing.T, expression, want string) {
	t.Helper()
	if value, stderr := eval(t, expression); !strings.Contains(stderr, want) {
		t.Errorf("%s\ngave %v, %s\nwanted the error %q", expression, value, stderr, want)
	}
}

func TestImages(t *testing.T) {
	want(t, `builtins.mapAttrs (_: i: i.imageName) (lib.images { api = image "shop-api"; web = image "web"; })`, map[string]any{"api": "shop-api", "web": "web"})
	want(t, `let api = image "api"; in builtins.attrNames (lib.images { inherit api; default = api; })`, []any{"api", "default"})
	wantError(t, `builtins.deepSeq (lib.images { api = "text"; }) 1`, "flakeship: images.api is no derivation")
	wantError(t, `lib.images { api = builtins.removeAttrs (image "api") [ "imageName" ]; }`, "flakeship: images.api has no imageName")
	wantError(t, `lib.images { api = image "api"; web = image "web" // { imageName = "api"; }; }`, "flakeship: images.api and images.web are both called api")
}

const deployment = `[ { apiVersion = "apps/v1"; kind = "Deployment"; image = image.api; } ]`

func TestManifests(t *testing.T) {
	list := `{"apiVersion":"v1","items":[{"apiVersion":"apps/v1","image":"flakeship:shop-api","kind":"Deployment"}],"kind":"List"}`
	manifests := `(lib.manifests { inherit (stubs) pkgs; images.api = image "shop-api"; objects = image: ` + deployment + `; })`
	want(t, manifests+`.text`, list)
	want(t, manifests+`.name`, "manifests.json")
	renamed := strings.Replace(manifests, "images.api", "images.backend", 1)
	wantError(t, renamed+`.text`, "attribute 'api' missing")
	wantError(t, `lib.manifests { inherit (stubs) pkgs; images = { }; objects = [ { kind = "Service"; } ]; }`, `1 objects of manifests have no apiVersion or kind: {"kind":"Service"}`)
	wantError(t, `lib.manifests { inherit (stubs) pkgs; images = { }; objects = { }; }`, "objects of manifests is no list")
}

func TestFlakePartsModule(t *testing.T) {
	module := func(given string) string {
		return `let
  module = (import ./flake-module.nix { inherit lib; } { inherit (stubs) lib; flake-parts-lib.mkPerSystemOption = f: f; }).options.perSystem;
  part = module { config.flakeship = stubs.values (module { config = { }; inherit (stubs) pkgs; }).options.flakeship ` + given + `; inherit (stubs) pkgs; };
in builtins.mapAttrs (_: p: p.text or p.imageName) part.config.packages`
	}
	want(t, module(`{ images.api = image "shop-api"; }`), map[string]any{"api": "shop-api"})
	want(t, module(`{ images.api = image "shop-api"; objects = image: `+deployment+`; }`), map[string]any{
		"api":       "shop-api",
		"manifests": `{"apiVersion":"v1","items":[{"apiVersion":"apps/v1","image":"flakeship:shop-api","kind":"Deployment"}],"kind":"List"}`,
	})
	wantError(t, module(`{ image.api = image "shop-api"; }`), "there is no option image")
}

func TestNixOSModule(t *testing.T) {
	module := func(given, field string) string {
		return `let
  system = { networking.hostName = "builder"; nix.package = "nix"; systemd.package = "systemd"; };
  module = config: import ./nixos-module.nix { inherit config; inherit (stubs) lib pkgs; };
  options = (module { }).options;
  config = system // stubs.values options { services.flakeship-runner = ` + given + `; };
in (module config).config` + field
	}
	const runner = `{ enable = true; url = "https://gitea.example.org"; tokenFile = "/run/secrets/runner"; `
	want(t, module(`{ }`, ""), map[string]any{})
	want(t, module(runner+`}`, ".services"), map[string]any{"gitea-actions-runner": map[string]any{"instances": map[string]any{"flakeship": map[string]any{
		"enable": true, "name": "builder", "url": "https://gitea.example.org", "tokenFile": "/run/secrets/runner", "labels": []any{"nix:host"},
		"hostPackages": []any{"bash", "coreutils", "nix", "curl", "gawk", "git", "gnused", "gnutar", "gzip", "nodejs"},
	}}}})
	want(t, module(runner+`substituters = [ "https://cache.example.org" ]; }`, ".nix.settings"), map[string]any{
		"experimental-features": []any{"nix-command", "flakes"}, "extra-substituters": []any{"https://cache.example.org"}, "extra-trusted-public-keys": []any{},
	})
	want(t, module(runner+`trusted = true; netrcFile = "/run/netrc"; }`, ".nix.settings"), map[string]any{
		"experimental-features": []any{"nix-command", "flakes"}, "extra-substituters": []any{}, "extra-trusted-public-keys": []any{},
		"netrc-file": "/run/netrc", "trusted-users": []any{"gitea-runner"},
	})
	want(t, module(runner+`gc = null; }`, ".systemd.services.flakeship-gc"), map[string]any{})
	wantError(t, module(`{ enable = true; tokenFile = "/token"; }`, ".services"), "option url has no value")
	wantError(t, module(runner+`label = "x"; }`, ".services"), "there is no option label")
	want(t, module(runner+`}`, ".systemd.services.flakeship-gc.script"), "exec nix-collect-garbage --delete-older-than '14d'")
}

// The condition of the garbage collection, run for real: with one process in the runner's group, and with two.
func TestCollectsBetweenJobsOnly(t *testing.T) {
	script, stderr := eval(t, `let
  config = { networking.hostName = ""; nix.package = ""; systemd.package = "";
    services.flakeship-runner = { enable = true; url = ""; tokenFile = ""; labels = [ ]; substituters = [ ]; trustedPublicKeys = [ ]; netrcFile = null; trusted = false; gc = "daily"; keep = "1d"; }; };
in (import ./nixos-module.nix { inherit config; inherit (stubs) lib pkgs; }).config.systemd.services.flakeship-gc.serviceConfig.ExecCondition`)
	text, ok := script.(string)
	if !ok {
		t.Fatal(stderr)
	}
	text = strings.ReplaceAll(text, "/sys/fs/cgroup", "cgroup")
	for processes, want := range map[string]bool{"1": true, "1\\n2": false} {
		cmd := exec.Command("sh", "-c", `mkdir -p cgroup/runner bin && printf '`+processes+`\n' >cgroup/runner/cgroup.procs
systemctl() { [ "$*" = "show --property ControlGroup --value gitea-runner-flakeship.service" ] && echo /runner; }
`+text)
		cmd.Dir = t.TempDir()
		if err := cmd.Run(); (err == nil) != want {
			t.Errorf("%s: %v", processes, err)
		}
	}
}

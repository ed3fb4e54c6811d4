package nixenv_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/e2e/nixenv"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
)

const flake = `{
  outputs = { self }: {
    packages.x86_64-linux = rec {
      base = derivation {
        name = "base"; system = "x86_64-linux"; builder = "/bin/sh";
        args = [ "-c" "echo base > $out" ];
      };
      default = derivation {
        name = "greeting"; system = "x86_64-linux"; builder = "/bin/sh";
        args = [ "-c" "read word < ${base}; echo hello $word ${base} > $out" ];
      };
    };
    packages.aarch64-linux = builtins.mapAttrs (_: p: derivation (p.drvAttrs // { system = "aarch64-linux"; })) self.packages.x86_64-linux;
  };
}
`

// What one private store builds and copies to the cache, signed, another one
// substitutes; a store that does not trust the key builds by itself.
func TestBuildCopySubstitute(t *testing.T) {
	ctx := t.Context()
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "flake.nix"), []byte(flake), 0o644); err != nil {
		t.Fatal(err)
	}
	cache, err := binarycache.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cache.Close)

	builder := newNix(t, nixenv.Options{})
	out := build(t, builder, "path:"+source)
	if !regexp.MustCompile(`^/nix/store/[0-9a-z]{32}-greeting$`).MatchString(out) {
		t.Fatalf("built %q, want a store path", out)
	}
	text, err := os.ReadFile(builder.File(out))
	if err != nil || !strings.HasPrefix(string(text), "hello base /nix/store/") {
		t.Errorf("built %q, %v", text, err)
	}
	run(t, builder.Command(ctx, "copy", "--to", builder.CopyTo(cache.URL), out))
	var narinfos int
	for _, r := range cache.Requests() {
		if r.Method == "PUT" && strings.HasSuffix(r.Path, ".narinfo") {
			narinfos++
		}
	}
	if narinfos != 2 {
		t.Errorf("%d narinfos were uploaded, want 2: the output and what it refers to", narinfos)
	}

	reader := newNix(t, nixenv.Options{Substituters: []string{cache.URL}, TrustedKeys: []string{builder.PublicKey}})
	if log := stderr(t, reader.Command(ctx, "build", "--no-link", "-v", "path:"+source)); !strings.Contains(log, "copying path") || strings.Contains(log, "building '") {
		t.Errorf("a trusted path was not substituted:\n%s", log)
	}
	stranger := newNix(t, nixenv.Options{Substituters: []string{cache.URL}})
	if log := stderr(t, stranger.Command(ctx, "build", "--no-link", "-v", "path:"+source)); !strings.Contains(log, "building '") {
		t.Errorf("an untrusted path was substituted:\n%s", log)
	}
}

func TestUserSettingsAreNotRead(t *testing.T) {
	home := t.TempDir()
	conf := filepath.Join(home, ".config", "nix", "nix.conf")
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("substituters = https://user.invalid\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("NIX_CONFIG", "substituters = https://variable.invalid")
	n := newNix(t, nixenv.Options{Substituters: []string{"https://ours.invalid"}})
	if got := run(t, n.Command(t.Context(), "show-config")); !strings.Contains(got, "substituters = https://ours.invalid\n") {
		t.Errorf("settings are not the private ones:\n%s", got)
	}
}

func newNix(t *testing.T, o nixenv.Options) *nixenv.Nix {
	t.Helper()
	n, err := nixenv.New(context.Background(), filepath.Join(t.TempDir(), "nix"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Remove(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// build returns the output path; 2.8 has no --print-out-paths.
func build(t *testing.T, n *nixenv.Nix, installable string) string {
	t.Helper()
	var built []struct{ Outputs struct{ Out string } }
	text := run(t, n.Command(t.Context(), "build", "--no-link", "--json", installable))
	if err := json.Unmarshal([]byte(text), &built); err != nil || len(built) != 1 {
		t.Fatalf("nix build --json printed %q: %v", text, err)
	}
	return built[0].Outputs.Out
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		t.Fatalf("%s: %v\n%s", cmd, err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func stderr(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

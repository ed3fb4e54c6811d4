package substituter

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

const expression = `
let
  mk = name: script: more: derivation ({ inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" script ]; } // more);
  lib = mk "lib" "echo lib > $out" {};
  file = builtins.toFile "file" "a text";
in mk "app" "echo ${lib} ${file} > $out" { allowSubstitutes = false; }
`

// What we call cached, Nix fetches, and what we do not, it does not: the installed Nix is given each cache, no builder, and an
// empty store. Even with allowSubstitutes = false, which its own dry run takes for "will be built".
func TestNixAgrees(t *testing.T) {
	store := nixstore.New(t)
	file := filepath.Join(t.TempDir(), "default.nix")
	if err := os.WriteFile(file, []byte(expression), 0o644); err != nil {
		t.Fatal(err)
	}
	secret, public := filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "public")
	store.Command(t, "nix-store", "--generate-binary-cache-key", "test-1", secret, public)
	text, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := narinfo.ParsePublicKey(string(text))
	if err != nil {
		t.Fatal(err)
	}
	out := strings.TrimSpace(store.Command(t, "nix-build", "--no-out-link", file))
	app, err := storepath.DefaultDir.Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	closure := strings.Fields(store.Command(t, "nix-store", "-qR", out))
	lib := closure[findName(t, closure, "lib")]

	for _, test := range []struct {
		name   string
		unsign bool                           // copy without key
		change func(t *testing.T, dir string) // of the cache
		fault  *binarycache.Fault             // of its server
		state  handoff.State                  // our verdict
		nix    string                         // part of what Nix says; empty: it fetches
	}{
		{name: "cached", state: handoff.StateCached},
		{name: "unsigned", unsign: true, state: handoff.StateUntrusted, nix: "not signed by any of the keys"},
		{name: "no signature on the reference", change: edit(lib, `Sig: .*\n`, ""), state: handoff.StateUntrusted, nix: "not signed by any of the keys"},
		{name: "signature of another size", change: edit(out, "NarSize: ", "NarSize: 1"), state: handoff.StateUntrusted, nix: "not signed by any of the keys"},
		{name: "reference gone", change: func(t *testing.T, dir string) { remove(t, dir, lib) }, state: handoff.StatePartial, nix: "error:"},
		{name: "gone", change: func(t *testing.T, dir string) { remove(t, dir, out) }, state: handoff.StateMissing, nix: "error:"},
		{name: "CR LF", change: edit(out, "\n", "\r\n"), state: handoff.StateError, nix: "illegal character"},
		{name: "cut short", change: edit(out, `==\n`, ""), state: handoff.StateError, nix: "is corrupt"},
		{name: "unknown key", change: edit(out, "NarSize", "Weather: fine\nNarSize"), state: handoff.StateCached},
		{name: "another path's narinfo", change: edit(out, "-app\n", "-application\n"), state: handoff.StateMissing, nix: "error:"},
		{name: "cache of another store", change: func(t *testing.T, dir string) {
			replace(t, filepath.Join(dir, "nix-cache-info"), "/nix/store", "/gnu/store")
		},
			nix: "/gnu/store"},
		{name: "500", fault: &binarycache.Fault{Status: 500}, state: handoff.StateError, nix: "error:"},
		{name: "403 like an object store", fault: &binarycache.Fault{Status: 403, Match: narinfos, Header: map[string][]string{"X-Amz-Request-Id": {"1"}}},
			state: handoff.StateMissing, nix: "error:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			to := "file://" + dir + "?compression=none"
			if !test.unsign {
				to += "&secret-key=" + secret
			}
			store.Nix(t, "copy", "--to", to, out)
			if test.change != nil {
				test.change(t, dir)
			}
			srv := folder{t, dir}.serve()
			srv.Fail(test.fault)

			ours := "refused"
			if s, err := Open(t.Context(), []string{srv.URL}, Options{Keys: []narinfo.PublicKey{key}, Timeout: 10 * time.Second}); err == nil {
				v := s.Check(t.Context(), []storepath.Path{app})[0]
				ours = string(v.State)
				if v.State != test.state {
					t.Errorf("verdict %s, %q, want %s", v.State, v.Reason, test.state)
				}
			} else if test.state != "" {
				t.Error(err)
			}

			empty := nixstore.New(t, "substituters = "+srv.URL, "trusted-public-keys = "+key.String(), "max-jobs = 0")
			cmd := exec.Command("nix-store", "--realise", out)
			cmd.Env = empty.Env
			said, err := cmd.CombinedOutput()
			if fetched := err == nil; fetched != (test.state == handoff.StateCached) || !strings.Contains(string(said), test.nix) {
				t.Errorf("our verdict is %s, Nix: %v\n%s", ours, err, said)
			}
		})
	}
}

func findName(t *testing.T, paths []string, name string) int {
	t.Helper()
	for i, p := range paths {
		if strings.HasSuffix(p, "-"+name) {
			return i
		}
	}
	t.Fatalf("no %s in %q", name, paths)
	return 0
}

func narinfoOf(dir, path string) string {
	return filepath.Join(dir, filepath.Base(path)[:storepath.HashLen]+".narinfo")
}

func remove(t *testing.T, dir, path string) {
	t.Helper()
	if err := os.Remove(narinfoOf(dir, path)); err != nil {
		t.Fatal(err)
	}
}

// edit replaces what a pattern finds in a path's narinfo.
func edit(path, pattern, with string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { replace(t, narinfoOf(dir, path), pattern, with) }
}

func replace(t *testing.T, file, pattern, with string) {
	t.Helper()
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	new := regexp.MustCompile(pattern).ReplaceAllLiteralString(string(old), with)
	if new == string(old) {
		t.Fatalf("%s holds no %q", file, pattern)
	}
	if err := os.WriteFile(file, []byte(new), 0o644); err != nil {
		t.Fatal(err)
	}
}

package substituter

import (
	"context"
	"fmt"
	"net/http"
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

// app refers to lib, and to a text that proves itself. Some images are like local, as nix2container's all are, and some like multi.
const expression = `
let
  mk = name: script: more: derivation ({ inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" script ]; } // more);
  lib = mk "lib" "echo lib > $out" {};
  file = builtins.toFile "file" "a text";
in {
  app = mk "app" "echo ${lib} ${file} > $out" {};
  local = mk "local" "echo ${lib} ${file} > $out" { allowSubstitutes = false; preferLocalBuild = true; };
  multi = mk "multi" "echo ${lib} > $out; echo dev > $dev" { outputs = [ "out" "dev" ]; };
}
`

// situation is one way in which a cache has an image, or has not.
type situation struct {
	name   string
	attr   string // of expression; default app
	unsign bool   // copied without key
	change func(t *testing.T, c situated)
	fault  *binarycache.Fault
	second bool // there is another cache, which change fills
	nars   bool // with VerifyNARs
	down   bool

	state handoff.State // our verdict; empty: the cache is refused
	says  string        // part of what Nix says when it does not fetch
	lies  bool          // our verdict is cached, and Nix cannot fetch it all the same
}

// situated is what a situation may change.
type situated struct{ dir, second, out, lib string }

var situations = []situation{
	{name: "cached", state: handoff.StateCached},
	{name: "missing", change: func(t *testing.T, c situated) { remove(t, narinfoOf(c.dir, c.out)) }, state: handoff.StateMissing},
	{name: "cached, `allowSubstitutes = false`", attr: "local", state: handoff.StateCached},
	{name: "a reference is gone", change: func(t *testing.T, c situated) { remove(t, narinfoOf(c.dir, c.lib)) }, state: handoff.StatePartial},
	{name: "a reference is in another cache", second: true, change: func(t *testing.T, c situated) {
		move(t, narinfoOf(c.dir, c.lib), c.second)
		move(t, filepath.Join(c.dir, "nar"), c.second)
	}, state: handoff.StateCached},
	{name: "not signed", unsign: true, state: handoff.StateUntrusted, says: "not signed by any of the keys|lacks a signature"},
	{name: "signed by another key", change: func(t *testing.T, c situated) { replace(t, narinfoOf(c.dir, c.out), "Sig: test-1:", "Sig: test-2:") },
		state: handoff.StateUntrusted, says: "not signed by any of the keys|lacks a signature"},
	{name: "a reference is not signed", change: func(t *testing.T, c situated) { replace(t, narinfoOf(c.dir, c.lib), `Sig: .*\n`, "") }, state: handoff.StateUntrusted},
	{name: "a signature of another size", change: func(t *testing.T, c situated) { replace(t, narinfoOf(c.dir, c.out), "NarSize: ", "NarSize: 1") }, state: handoff.StateUntrusted},
	{name: "one output of two", attr: "multi", state: handoff.StateCached},
	{name: "401", fault: &binarycache.Fault{Status: 401}, state: handoff.StateError},
	{name: "403", fault: &binarycache.Fault{Status: 403}, state: handoff.StateError},
	{name: "403 for each path, from an object store", fault: &binarycache.Fault{Status: 403, Match: narinfos, Header: http.Header{"X-Amz-Request-Id": {"1"}}},
		state: handoff.StateMissing},
	{name: "500", fault: &binarycache.Fault{Status: 500}, state: handoff.StateError},
	{name: "connection refused", down: true, state: handoff.StateError},
	{name: "no answer", fault: &binarycache.Fault{Hang: true}, state: handoff.StateError},
	{name: "the NAR is gone", change: removeNARs, state: handoff.StateCached, lies: true},
	{name: "the NAR is gone, with `verify-nars`", change: removeNARs, nars: true, state: handoff.StateMissing},
	{name: "a narinfo with CR LF", change: func(t *testing.T, c situated) { replace(t, narinfoOf(c.dir, c.out), "\n", "\r\n") }, state: handoff.StateError},
	{name: "a narinfo cut short", change: func(t *testing.T, c situated) { replace(t, narinfoOf(c.dir, c.out), `==\n`, "") }, state: handoff.StateError},
	{name: "a narinfo with keys of the future", change: func(t *testing.T, c situated) {
		replace(t, narinfoOf(c.dir, c.out), "NarSize", "Weather: fine\nNarSize")
	},
		state: handoff.StateCached},
	{name: "a narinfo of another path", change: func(t *testing.T, c situated) { replace(t, narinfoOf(c.dir, c.out), "-app\n", "-application\n") }, state: handoff.StateMissing},
	{name: "a cache for another store", change: func(t *testing.T, c situated) {
		replace(t, filepath.Join(c.dir, "nix-cache-info"), "/nix/store", "/gnu/store")
	}},
}

// TestVerdictMatrix puts our verdict beside what the installed Nix says, `nix build --dry-run`, and what it does without a builder: `nix build`,
// and `nix-store --realise` of the output, as nix-build-images runs it. What we call cached it fetches, and nothing else. The table
// is part of docs/benchmarks.md.
func TestVerdictMatrix(t *testing.T) {
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
	outs := map[string]string{}
	for _, attr := range []string{"app", "local", "multi"} {
		outs[attr] = strings.Fields(store.Command(t, "nix-build", "--no-out-link", file, "-A", attr))[0]
	}
	lib := ""
	for _, p := range strings.Fields(store.Command(t, "nix-store", "-qR", outs["app"])) {
		if strings.HasSuffix(p, "-lib") {
			lib = p
		}
	}

	rows := make([]string, len(situations))
	t.Run("situations", func(t *testing.T) {
		for i, s := range situations {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				if s.attr == "" {
					s.attr = "app"
				}
				c := situated{dir: t.TempDir(), second: t.TempDir(), out: outs[s.attr], lib: lib}
				to := "file://" + c.dir + "?compression=none"
				if !s.unsign {
					to += "&secret-key=" + secret
				}
				store.Nix(t, "copy", "--to", to, c.out)
				if s.change != nil {
					s.change(t, c)
				}
				srv := folder{t, c.dir}.serve()
				srv.Fail(s.fault)
				urls := []string{srv.URL}
				if s.second {
					urls = append(urls, folder{t, c.second}.serve().URL)
				}
				if s.down {
					srv.Close()
				}
				ours, reason := verdict(t, urls, key, c.out, s.nars)
				if ours != s.state {
					t.Errorf("our verdict is %s, %q, want %s", ours, reason, s.state)
				}

				// Each question to an empty store. Nix gives up at once what it would try for minutes.
				fresh := func() *nixstore.Store {
					return nixstore.New(t, "substituters = "+strings.Join(urls, " "), "trusted-public-keys = "+key.String(), "max-jobs = 0",
						"download-attempts = 1", "stalled-download-timeout = 2", "connect-timeout = 2")
				}
				dry := dryRun(nixRun(fresh(), "nix", "build", "--no-link", "--dry-run", "-f", file, s.attr))
				built, _ := nixRun(fresh(), "nix", "build", "--no-link", "-f", file, s.attr)
				fetched, said := nixRun(fresh(), "nix-store", "--realise", c.out)
				if fetched != (ours == handoff.StateCached) && !s.lies || fetched && s.lies {
					t.Errorf("our verdict is %s, fetched is %v:\n%s", ours, fetched, said)
				}
				if !fetched && !regexp.MustCompile(s.says).MatchString(said) {
					t.Errorf("Nix does not say %s:\n%s", s.says, said)
				}
				if ours == "" {
					ours = "bad input"
				}
				word := map[bool]string{true: "fetched", false: "not fetched"}
				rows[i] = fmt.Sprintf("| %s | %s | %s | %s | %s |", s.name, ours, dry, word[built], word[fetched])
			})
		}
	})
	if !t.Failed() {
		inDocs(t, nixVersion(t), rows)
	}
}

// verdict is ours on one path; empty when a cache is refused.
func verdict(t *testing.T, urls []string, key narinfo.PublicKey, out string, nars bool) (handoff.State, string) {
	t.Helper()
	p, err := storepath.DefaultDir.Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), urls, Options{Keys: []narinfo.PublicKey{key}, Timeout: 5 * time.Second, VerifyNARs: nars})
	if err != nil {
		return "", err.Error()
	}
	v := s.Check(t.Context(), []storepath.Path{p})[0]
	return v.State, v.Reason
}

// nixRun says whether a command of Nix succeeds, and what it prints.
func nixRun(s *nixstore.Store, name string, args ...string) (bool, string) {
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(s.Env, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	said, err := cmd.CombinedOutput()
	return err == nil, string(said)
}

// dryRun is the plan that Nix prints.
func dryRun(ok bool, said string) string {
	switch {
	case !ok:
		return "fails"
	case strings.Contains(said, "don't know how to build"):
		return "to be fetched, in part"
	case strings.Contains(said, "will be built"):
		return "to be built"
	case strings.Contains(said, "will be fetched"):
		return "to be fetched"
	}
	return "nothing to do"
}

func nixVersion(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nix", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(out), "nix (Nix) "))
}

// inDocs compares the table with the one in docs/benchmarks.md, when that is of this version, and writes it there when asked to.
func inDocs(t *testing.T, version string, rows []string) {
	t.Helper()
	const doc = "../../docs/benchmarks.md"
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	table := "| the cache has it | nix-cache-check | `nix build --dry-run` | `nix build` | `nix-store --realise` |\n|---|---|---|---|---|\n" + strings.Join(rows, "\n") + "\n"
	mark := "Nix " + version + ":\n\n"
	t.Logf("%s%s", mark, table)
	before, after, ok := strings.Cut(string(text), mark)
	if !ok {
		return
	}
	old := ""
	for line := range strings.Lines(after) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		old += line
	}
	if old == table {
		return
	}
	if os.Getenv("FLAKESHIP_GENERATE") == "" {
		t.Errorf("the table of docs/benchmarks.md is another one; FLAKESHIP_GENERATE=1 writes it:\n%s", table)
		return
	}
	if err := os.WriteFile(doc, []byte(before+mark+table+after[len(old):]), 0o644); err != nil {
		t.Fatal(err)
	}
}

func narinfoOf(dir, path string) string {
	return filepath.Join(dir, filepath.Base(path)[:storepath.HashLen]+".narinfo")
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

func removeNARs(t *testing.T, c situated) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(c.dir, "nar")); err != nil {
		t.Fatal(err)
	}
}

// move takes a file or folder to another cache, which becomes one by it; what stays behind of a folder is a copy.
func move(t *testing.T, from, dir string) {
	t.Helper()
	if out, err := exec.Command("cp", "-R", from, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if filepath.Ext(from) == ".narinfo" {
		remove(t, from)
	}
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

package nix

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
)

// What `nix path-info --json` says in its many forms, of one path that is there and one that is not.
func TestParsePathInfo(t *testing.T) {
	const (
		app  = "0r2v93mqaf9d2zyqi8pgmyzmf879753y-top"
		dep  = "z4asv3j07d89ywjf8fxkn7sg6mf5s9q5-dep"
		body = `"narHash":"sha256-4zGtPCFE+xBfkbWYN8MMPMoSrkmHTgZrY3OYtTxjHdE=","narSize":160,"deriver":null`
	)
	for name, text := range map[string]string{
		"2.8":                 `[{"path":"/nix/store/` + app + `",` + body + `,"references":["/nix/store/` + dep + `"],"signatures":["k:AA=="]},{"path":"/nix/store/` + dep + `","valid":false}]`,
		"2.26":                `{"/nix/store/` + app + `":{` + body + `,"ca":null,"references":["/nix/store/` + dep + `"],"signatures":["k:AA=="]},"/nix/store/` + dep + `":null}`,
		"2.33":                `{"version":2,"storeDir":"/nix/store","info":{"` + app + `":{` + body + `,"ca":{"method":"nar"},"references":["` + dep + `"],"signatures":["k:AA=="]},"` + dep + `":null}}`,
		"2.35":                `{"version":3,"storeDir":"/nix/store","info":{"` + app + `":{` + body + `,"references":["` + dep + `"],"signatures":[{"keyName":"k","sig":"AA=="}]}}}`,
		"a hash as an object": `{"` + app + `":{"narHash":{"algorithm":"sha256","format":"base64","hash":"4zGtPCFE+xBfkbWYN8MMPMoSrkmHTgZrY3OYtTxjHdE="},"narSize":160,"references":["` + dep + `"],"signatures":["k:AA=="]}}`,
	} {
		infos, err := parsePathInfo([]byte(text), "/nix/store")
		if err != nil || len(infos) != 1 {
			t.Errorf("%s: %d paths, %v", name, len(infos), err)
			continue
		}
		hash, _ := narinfo.ParseHash("sha256-4zGtPCFE+xBfkbWYN8MMPMoSrkmHTgZrY3OYtTxjHdE=")
		want := "1;/nix/store/" + app + ";" + hash.String() + ";160;/nix/store/" + dep
		if got := infos[0].Fingerprint("/nix/store"); got != want || !slices.Equal(infos[0].Sigs, []string{"k:AA=="}) {
			t.Errorf("%s: %s, %v, want %s", name, got, infos[0].Sigs, want)
		}
	}
	for _, text := range []string{"", "3", `{"x":{}}`, `{"/nix/store/` + app + `":{"narHash":"md5:x"}}`, `{"info":3}`} {
		if infos, err := parsePathInfo([]byte(text), "/nix/store"); err == nil {
			t.Errorf("parsePathInfo(%q) = %v", text, infos)
		}
	}
}

func TestClosure(t *testing.T) {
	n, store, closure := builtWithDependency(t)
	secret, key := signingKey(t, store)
	sign := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(sign, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	store.Nix(t, "store", "sign", "--recursive", "--key-file", sign, closure[1])
	infos, err := n.Closure(t.Context(), closure[1:])
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, info := range infos {
		paths = append(paths, storepath.DefaultDir.Join(info.StorePath))
		if by, err := info.Trust(storepath.DefaultDir, []narinfo.PublicKey{key}); err != nil || by != key.Name {
			t.Errorf("%s is signed by %q: %v", info.StorePath, by, err)
		}
		if info.Deriver.IsZero() {
			t.Errorf("%s has no deriver", info.StorePath)
		}
	}
	slices.Sort(paths)
	slices.Sort(closure)
	if diff := cmp.Diff(closure, paths); diff != "" {
		t.Error(diff)
	}
	if _, err := n.Closure(t.Context(), []string{"/nix/store/" + strings.Repeat("0", 32) + "-no"}); !isCommandError(err) {
		t.Errorf("Closure of a path that is not valid = %v", err)
	}
}

func FuzzPathInfo(f *testing.F) {
	f.Add(`[{"path":"/nix/store/0r2v93mqaf9d2zyqi8pgmyzmf879753y-top","valid":false}]`)
	f.Add(`{"info":{"0r2v93mqaf9d2zyqi8pgmyzmf879753y-top":{"narHash":{"algorithm":"sha256","hash":"x"},"signatures":[{"keyName":"k"}]}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		infos, err := parsePathInfo([]byte(text), "/nix/store")
		for _, info := range infos {
			if err != nil || info.StorePath.IsZero() {
				t.Errorf("parsePathInfo(%q) = %v, %v", text, info, err)
			}
		}
	})
}

// Another store, asked through the installed Nix.
func TestPathInfo(t *testing.T) {
	n, _ := open(t)
	_, other := open(t)
	out := strings.TrimSpace(other.Command(t, "nix-build", "--no-out-link", "-E",
		`let mk = name: text: derivation { inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${text} > $out" ]; }; in mk "app" (mk "lib" "lib")`))
	app, err := storepath.DefaultDir.Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	absent, _ := storepath.Parse("0r2v93mqaf9d2zyqi8pgmyzmf879753y-absent")
	store := "local?root=" + other.Root
	for closure, want := range map[bool][]string{false: {"app"}, true: {"app", "lib"}} {
		asked := []storepath.Path{app}
		if !closure {
			asked = append(asked, absent)
		}
		infos, err := n.PathInfo(t.Context(), store, asked, closure)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, info := range infos {
			names = append(names, info.StorePath.Name())
		}
		slices.Sort(names)
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("closure %v (-want +got):\n%s", closure, diff)
		}
	}
	if _, err := n.PathInfo(t.Context(), "weather://there", []storepath.Path{app}, false); err == nil {
		t.Error("a store of no known kind gave no error")
	}
}

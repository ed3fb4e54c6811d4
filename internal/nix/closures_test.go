package nix

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/handoff"
)

// A script refers to what it is made of. An archive is compressed and refers to nothing: what it is made of is found by its
// derivation.
func TestClosures(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{
		"lib":     `mk "lib" "echo lib > $out" {}`,
		"app":     `mk "app" "echo uses $lib > $out" { inherit (self.packages.${system}) lib; }`,
		"script":  `image "script" "echo runs $app > $out" { inherit (self.packages.${system}) app; isExe = true; }`,
		"archive": `image "archive" "read line < $app; echo packed > $out" { inherit (self.packages.${system}) app; }`,
	})
	source, targets := plan(t, n, dir)
	built, err := n.Build(t.Context(), targets, BuildOptions{Flake: source})
	if err != nil {
		t.Fatal(err)
	}
	closure := func(outs, drvs []string, merged ...string) map[string][]string {
		t.Helper()
		paths, err := n.Closures(t.Context(), outs, drvs, merged)
		if err != nil {
			t.Fatal(err)
		}
		name := func(p string) string {
			_, name, _ := strings.Cut(path.Base(p), "-")
			return name
		}
		found := map[string][]string{}
		for _, p := range paths {
			if len(p.NarHash) != 64 {
				t.Errorf("%s has the hash %q", p.Path, p.NarHash)
			}
			names := []string{}
			for _, other := range p.References {
				names = append(names, name(other))
			}
			found[name(p.Path)] = names
		}
		return found
	}
	at := func(name string) Built {
		return built[slices.IndexFunc(built, func(b Built) bool { return b.Name == name })]
	}
	want := map[string][]string{"lib": {}, "app": {"lib"}, "image-script": {"app"}}
	if diff := cmp.Diff(want, closure([]string{at("script").OutPath}, nil)); diff != "" {
		t.Errorf("of a script (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string][]string{"image-archive": {}}, closure([]string{at("archive").OutPath}, nil)); diff != "" {
		t.Errorf("of an archive (-want +got):\n%s", diff)
	}
	want = map[string][]string{"lib": {}, "app": {"lib"}, "image-archive": {}}
	got := closure([]string{at("archive").OutPath}, []string{at("archive").DrvPath})
	for name := range got {
		if want[name] == nil {
			delete(got, name) // the builder's own programs
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("of an archive by its derivation (-want +got):\n%s", diff)
	}
	// What was merged into one is asked for by name, and may be gone.
	const gone = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-gone"
	if got := closure(nil, []string{at("archive").DrvPath}, at("script").OutPath, gone); got["image-script"] == nil || got["gone"] != nil {
		t.Errorf("with what was merged: %v", got)
	}
	if paths, err := n.Closures(t.Context(), nil, nil, nil); err != nil || paths != nil {
		t.Errorf("of nothing: %v, %v", paths, err)
	}
}

func FuzzRegistrations(f *testing.F) {
	f.Add([]byte("/nix/store/a-b\n" + strings.Repeat("a", 64) + "\n1\n\n1\n/nix/store/c-d\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		paths, err := parseRegistrations(text)
		if err == nil && len(paths) > 0 && paths[0].Path != strings.TrimSuffix(strings.SplitN(string(text), "\n", 2)[0], "\r") {
			t.Errorf("%q gave %+v", text, paths)
		}
	})
}

// What flake.lock pins is listed by name, with its hash.
func TestFlakeInputs(t *testing.T) {
	const text = `{"url":"git+https://git.example.org/shop?rev=cc","revision":"cc","locked":{"type":"git","rev":"cc","narHash":"sha256-S"},"locks":{"root":"root","nodes":{
		"root":{"inputs":{"nixpkgs":"nixpkgs"}},
		"nixpkgs":{"locked":{"type":"github","owner":"NixOS","repo":"nixpkgs","rev":"dd","narHash":"sha256-N"}},
		"lib":{"locked":{"type":"git","url":"https://git.example.org/lib","rev":"ee","narHash":"sha256-L"}},
		"tarball":{"locked":{"type":"tarball","url":"https://example.org/x.tar.gz","narHash":"sha256-T"}},
		"local":{"locked":{"type":"path","path":"./sub","narHash":"sha256-P"}}}}}`
	src, err := parseMetadata([]byte(text), ".")
	if err != nil {
		t.Fatal(err)
	}
	want := []handoff.FlakeInput{
		{Name: "lib", URI: "git+https://git.example.org/lib?rev=ee", Rev: "ee", NarHash: "sha256-L"},
		{Name: "local", URI: "path:./sub", NarHash: "sha256-P"},
		{Name: "nixpkgs", URI: "github:NixOS/nixpkgs/dd", Rev: "dd", NarHash: "sha256-N"},
		{Name: "tarball", URI: "https://example.org/x.tar.gz", NarHash: "sha256-T"},
	}
	if diff := cmp.Diff(want, src.Inputs); diff != "" || src.NarHash != "sha256-S" {
		t.Errorf("narHash %q, inputs (-want +got):\n%s", src.NarHash, diff)
	}
}

package nix

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// ignorePaths leaves out what depends on hashes.
var ignorePaths = cmpopts.IgnoreFields(Image{}, "DrvPath", "OutPath", "Tag")

func TestImagesOfEveryFamily(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{
		"api":     `image "api" "echo > $out" {}`,
		"default": `self.packages.${system}.web`,
		"web":     `image "web" "echo > $out" { isExe = true; }`,
		"json":    `mk "image-worker.json" "echo > $out" {} // { imageName = "worker"; imageTag = "v1"; }`,
		"copied":  `image "copied" "echo > $out" {} // { copyToRegistry = 1; imageTag = "0123456789abcdfghijklmnpqrsvwxyz"; }`,
		"tool":    `mk "tool" "echo > $out" {}`,
		"number":  `12`,
	})
	commit := nixstore.Commit(t, dir)
	e, err := n.Images(t.Context(), Query{Flake: dir})
	if err != nil {
		t.Fatal(err)
	}
	const packages = "packages.x86_64-linux."
	want := &Evaluation{Commit: commit, Flake: handoff.Flake{Ref: dir}, Images: []Image{
		{Attr: packages + "api", System: "x86_64-linux", Name: "api", Family: handoff.DockerArchive},
		{Attr: packages + "copied", System: "x86_64-linux", Name: "copied", Family: handoff.Nix2Container},
		{Attr: packages + "web", System: "x86_64-linux", Name: "web", Family: handoff.Stream},
		{Attr: packages + "json", System: "x86_64-linux", Name: "worker", ImageTag: "v1", Family: handoff.Nix2Container},
	}}
	if diff := cmp.Diff(want, e, ignorePaths, cmpopts.IgnoreUnexported(Evaluation{}), cmpopts.IgnoreFields(handoff.Flake{}, "Locked", "NarHash")); diff != "" {
		t.Errorf("Images (-want +got):\n%s", diff)
	}
	if !strings.Contains(e.Flake.Locked, "rev="+commit) {
		t.Errorf("Flake.Locked = %q, want the commit %s in it", e.Flake.Locked, commit)
	}
	for _, img := range e.Images {
		if !strings.HasPrefix(img.OutPath, "/nix/store/") || !strings.HasSuffix(img.DrvPath, ".drv") {
			t.Errorf("%s has output %q and derivation %q", img.Name, img.OutPath, img.DrvPath)
		}
		if n.Exists(img.DrvPath) {
			t.Errorf("%s was written: finding images should read only", img.DrvPath)
		}
		if hash := img.OutPath[len("/nix/store/"):][:32]; img.Name != "copied" && img.Tag != hash {
			t.Errorf("%s has tag %q, want the hash of its output, %s", img.Name, img.Tag, hash)
		}
	}
	if got := e.Images[1].Tag; got != "0123456789abcdfghijklmnpqrsvwxyz" {
		t.Errorf("an imageTag that is a Nix hash gave tag %q", got)
	}
}

func TestGlobsChooseBeforeAnythingIsEvaluated(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{
		"api":       `image "api" "" {}`,
		"api-debug": `throw "debug images are broken"`,
		"web":       `image "web" "" {}`,
		"tool":      `abort "never looked at"`,
		"a.b":       `image "dotted" "" {}`,
	})
	for name, test := range map[string]struct {
		globs     []string
		want      []string
		unmatched []string
	}{
		"by name":       {globs: []string{"api"}, want: []string{"api"}},
		"by path":       {globs: []string{"packages.x86_64-linux.w*"}, want: []string{"web"}},
		"exclude":       {globs: []string{"!*-debug", "!tool"}, want: []string{"api", "dotted", "web"}},
		"both":          {globs: []string{"api*", "!*-debug"}, want: []string{"api"}},
		"dot is a dot":  {globs: []string{"a?b", "w.b"}, want: []string{"dotted"}, unmatched: []string{"w.b"}},
		"nothing there": {globs: []string{"nope", "web"}, want: []string{"web"}, unmatched: []string{"nope"}},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := n.Images(t.Context(), Query{Flake: dir, Attributes: test.globs})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, img := range e.Images {
				got = append(got, img.Name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%v (-want +got):\n%s", test.globs, diff)
			}
			if diff := cmp.Diff(test.unmatched, e.UnmatchedAttributes); diff != "" {
				t.Errorf("unmatched (-want +got):\n%s", diff)
			}
		})
	}
	for _, bad := range []string{"", "!", "a#b", "a[b]", "!!a"} {
		var glob *GlobError
		if _, err := n.Images(t.Context(), Query{Flake: dir, Attributes: []string{bad}}); !errors.As(err, &glob) {
			t.Errorf("attribute %q: %v, want a GlobError", bad, err)
		}
	}
}

func TestFailingAttributesDoNotHideTheOthers(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{
		"good":    `image "good" "" {}`,
		"thrown":  `throw "first line\nsecond line"`,
		"aborted": `abort "on purpose"`,
		"typo":    `image "typo" "" { inherit (self) nothing; }`,
		"also":    `image "also" "" {}`,
		"last":    `image "last" "" { builder = 1 + "x"; }`,
	})
	e, err := n.Images(t.Context(), Query{Flake: dir})
	var got []string
	for _, img := range e.Images {
		got = append(got, img.Name)
	}
	if diff := cmp.Diff([]string{"also", "good"}, got); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	messages := map[string]string{}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("error is %v, want several", err)
	}
	var walk func([]error)
	walk = func(errs []error) {
		for _, one := range errs {
			if j, ok := one.(interface{ Unwrap() []error }); ok {
				walk(j.Unwrap())
				continue
			}
			var ee *EvalError
			if !errors.As(one, &ee) {
				t.Errorf("error is %T: %v", one, one)
				continue
			}
			messages[ee.Attr] = ee.Message
		}
	}
	walk(joined.Unwrap())
	for attr, want := range map[string]string{
		"thrown": "first line\n       second line", "aborted": "on purpose", "typo": "'nothing'", "last": "integer",
	} {
		attr = "packages.x86_64-linux." + attr
		if !strings.Contains(messages[attr], want) {
			t.Errorf("message for %s is %q, want %q in it", attr, messages[attr], want)
		}
		delete(messages, attr)
	}
	if len(messages) > 0 {
		t.Errorf("more errors than attributes that fail: %v", messages)
	}
}

func TestFlakesThatDoNotEvaluate(t *testing.T) {
	for name, test := range map[string]struct{ text, attr, want string }{
		"syntax error":     {`{ outputs = `, "", "syntax error"},
		"outputs throws":   {`{ outputs = { self }: throw "no outputs today"; }`, "packages", "no outputs today"},
		"packages is text": {`{ outputs = { self }: { packages.x86_64-linux = "x"; }; }`, "packages", "attribute set"},
	} {
		t.Run(name, func(t *testing.T) {
			n, store := open(t)
			dir := writeFlake(t, store, test.text)
			_, err := n.Images(t.Context(), Query{Flake: dir})
			var ee *EvalError
			if !errors.As(err, &ee) || ee.Attr != test.attr || !strings.Contains(ee.Message, test.want) {
				t.Errorf("Images = %v, want an EvalError of %q with %q; message %q", err, test.attr, test.want, ee.Message)
			}
		})
	}
	t.Run("no flake there", func(t *testing.T) {
		n, store := open(t)
		_, err := n.Images(t.Context(), Query{Flake: "path:" + store.Dir + "/nowhere"})
		var ee *EvalError
		if !errors.As(err, &ee) || !strings.Contains(err.Error(), "nowhere") {
			t.Errorf("Images = %v, want an EvalError that names the folder", err)
		}
	})
}

func TestCheckSystem(t *testing.T) {
	for _, system := range []string{"x86_64-linux", "aarch64-darwin", "armv7l-linux", "i686-linux", "riscv64-linux", "powerpc64le-linux"} {
		if err := CheckSystem(system); err != nil {
			t.Errorf("CheckSystem(%q) = %v", system, err)
		}
	}
	for _, system := range []string{"", "x86_64", "amd64-linux", "x86_64-linux ", "linux-x86_64", "x86_64-Linux"} {
		var bad *SystemError
		if err := CheckSystem(system); !errors.As(err, &bad) {
			t.Errorf("CheckSystem(%q) = %v, want a SystemError", system, err)
		}
	}
}

func TestFlakeWithoutImages(t *testing.T) {
	n, store := open(t)
	dir := writeFlake(t, store, `{ outputs = { self }: { lib = { }; }; }`)
	e, err := n.Images(t.Context(), Query{Flake: dir, Attributes: []string{"api"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Images) != 0 || !slices.Equal(e.UnmatchedSystems, []string{"x86_64-linux"}) || !slices.Equal(e.UnmatchedAttributes, []string{"api"}) {
		t.Errorf("Images = %+v, want none and the unmatched system and attribute", e)
	}
	dir = writeFlake(t, store, `{ outputs = { self }: { packages.riscv64-linux.x = derivation { name = "x"; system = "riscv64-linux"; builder = "x"; } // { imageName = "x"; }; }; }`)
	e, err = n.Images(t.Context(), Query{Flake: dir, Systems: []string{"riscv64-linux", "x86_64-linux"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Images) != 1 || e.Images[0].System != "riscv64-linux" || !slices.Equal(e.UnmatchedSystems, []string{"x86_64-linux"}) {
		t.Errorf("Images = %+v, want one for riscv64-linux", e)
	}
}

func TestImportFromDerivation(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{
		"api": `image "api" "" {}`,
		"ifd": `image (import (mk "generated.nix" "echo '\"generated\"' > $out" {})) "" {}`,
	})
	e, err := n.Images(t.Context(), Query{Flake: dir})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Images) != 2 || e.Images[1].Name != "generated" {
		t.Errorf("Images = %+v, want api and generated", e.Images)
	}
}

func TestContentAddressedImageHasNoOutputPathYet(t *testing.T) {
	n, store := open(t, "extra-experimental-features = ca-derivations")
	dir := flake(t, store, map[string]string{
		"ca": `image "ca" "echo > $out" { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }`,
	})
	e, err := n.Images(t.Context(), Query{Flake: dir})
	if err != nil {
		t.Fatal(err)
	}
	if img := e.Images[0]; img.OutPath != "" || img.Tag != "" || img.DrvPath == "" {
		t.Errorf("Images = %+v, want neither output path nor tag", img)
	}
}

func TestTwoDerivationsOfOneName(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{
		"a": `image "api" "echo 1" {}`,
		"b": `image "api" "echo 2" {}`,
		"c": `image "web" "" {}`,
	})
	_, err := n.Images(t.Context(), Query{Flake: dir})
	var dup *DuplicateError
	if !errors.As(err, &dup) || dup.Name != "api" || dup.Attrs != [2]string{"packages.x86_64-linux.a", "packages.x86_64-linux.b"} {
		t.Errorf("Images = %v, want a DuplicateError of a and b", err)
	}
}

func TestDirtyTree(t *testing.T) {
	for _, settings := range [][]string{nil, {"warn-dirty = false"}} {
		testDirtyTree(t, settings)
	}
}

func testDirtyTree(t *testing.T, settings []string) {
	n, store := open(t, settings...)
	dir := flake(t, store, map[string]string{"api": `image "api" "" {}`})
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), append(readFile(t, filepath.Join(dir, "flake.nix")), '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	e, err := n.Images(t.Context(), Query{Flake: dir})
	if err != nil {
		t.Fatal(err)
	}
	want := handoff.Flake{Ref: dir, Dirty: true, NarHash: e.Flake.NarHash}
	if diff := cmp.Diff(want, e.Flake); diff != "" || e.Commit != "" {
		t.Errorf("flake (-want +got):\n%s commit %q", diff, e.Commit)
	}
	if !slices.ContainsFunc(e.Warnings, func(w string) bool { return strings.Contains(w, "is dirty") || strings.Contains(w, "not committed") }) || len(e.Warnings) != 1 {
		t.Errorf("warnings are %q, want one about the dirty tree", e.Warnings)
	}
}

func TestRepositoryOfAnotherUser(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{"api": `image "api" "" {}`})
	commit := nixstore.Commit(t, dir)
	if os.Getuid() != 0 {
		// Only root can give files away. What anybody can see is that the system's are not theirs.
		if ownedByUs("/etc") || !ownedByUs(dir) {
			t.Errorf("ownedByUs: /etc %v, %s %v", ownedByUs("/etc"), dir, ownedByUs(dir))
		}
		return
	}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, 12345, 12345))
	})
	if err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	n.env = append(n.env, "RUNNER_TEMP="+temp)
	e, err := n.Images(t.Context(), Query{Flake: dir})
	if err != nil {
		t.Fatal(err)
	}
	if e.Commit != commit || len(e.Images) != 1 {
		t.Errorf("Images = %+v, want commit %s and one image", e, commit)
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestInstantiate(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{"api": `image "api" "" {}`, "a.b": `image "dotted" "" {}`, "bad": `throw "x"`})
	e, err := n.Images(t.Context(), Query{Flake: dir, Attributes: []string{"!bad"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Instantiate(t.Context(), e.Flake, e.Images); err != nil {
		t.Fatal(err)
	}
	for _, img := range e.Images {
		if !n.Exists(img.DrvPath) {
			t.Errorf("%s does not exist", img.DrvPath)
		}
	}
	other := e.Images[0]
	other.DrvPath = strings.Replace(other.DrvPath, "image-", "other-", 1)
	var changed *ChangedError
	if err := n.Instantiate(t.Context(), e.Flake, []Image{other}); !errors.As(err, &changed) || changed.Want != other.DrvPath {
		t.Errorf("Instantiate = %v, want a ChangedError", err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

package derivation

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	gonix "github.com/nix-community/go-nix/pkg/derivation"
)

// goldens are derivations that Nix wrote, by file name.
func goldens(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.drv")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata has %d derivations: %v", len(files), err)
	}
	all := map[string][]byte{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = text
	}
	return all
}

// fromGoNix is go-nix's reading in our shape.
func fromGoNix(d *gonix.Derivation) *Derivation {
	o := &Derivation{Outputs: map[string]Output{}, InputDrvs: d.InputDerivations, InputSrcs: d.InputSources,
		System: d.Platform, Builder: d.Builder, Args: d.Arguments, Env: d.Env}
	for name, out := range d.Outputs {
		o.Outputs[name] = Output{Path: out.Path, HashAlgo: out.HashAlgorithm, Hash: out.Hash}
	}
	return o
}

func TestParseReadsWhatNixWrote(t *testing.T) {
	for name, text := range goldens(t) {
		d, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		theirs, err := gonix.ReadDerivation(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%s: go-nix: %v", name, err)
		}
		if diff := cmp.Diff(fromGoNix(theirs), d, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-go-nix +ours):\n%s", name, diff)
		}
	}
}

func TestParse(t *testing.T) {
	const text = `Derive([("out","/nix/store/x","r:sha256","ab")],[("/nix/store/d.drv",["lib","out"])],["/nix/store/s"],"x86_64-linux","/bin/sh",["-c","a\n\"b\" \\ \q"],[("k","v"),("out","/nix/store/x")])`
	want := &Derivation{
		Outputs:   map[string]Output{"out": {"/nix/store/x", "r:sha256", "ab"}},
		InputDrvs: map[string][]string{"/nix/store/d.drv": {"lib", "out"}},
		InputSrcs: []string{"/nix/store/s"},
		System:    "x86_64-linux", Builder: "/bin/sh", Args: []string{"-c", "a\n\"b\" \\ q"},
		Env: map[string]string{"k": "v", "out": "/nix/store/x"},
	}
	d, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
	if !d.Fixed() {
		t.Error("an output with a hash is not fixed")
	}
	for i := range len(text) {
		var syntax *SyntaxError
		if d, err := Parse([]byte(text[:i])); !errors.As(err, &syntax) {
			t.Fatalf("Parse of the first %d bytes = %v, %v, want a SyntaxError", i, d, err)
		}
	}
	for _, bad := range []string{text + " ", `DrvWithVersion("xp-dyn-drv",[],[],[],"","",[],[])`, `Derive([,],[],[],"","",[],[])`} {
		if d, err := Parse([]byte(bad)); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", bad, d)
		}
	}
}

var oddEscape = regexp.MustCompile(`\\[^nrt"\\]`)

func FuzzParse(f *testing.F) {
	for _, text := range goldens(f) {
		f.Add(text)
	}
	f.Add([]byte(`Derive([("out","","","")],[],[],"s","b",["\\"],[("a","b")])`))
	f.Fuzz(func(t *testing.T, text []byte) {
		ours, err := Parse(text)
		theirs, theirErr := gonix.ReadDerivation(bytes.NewReader(text))
		// go-nix is stricter about what the parts mean, laxer about brackets, and keeps the backslash where Nix escapes nothing.
		// What both read they read alike.
		if err != nil || theirErr != nil || oddEscape.Match(text) {
			return
		}
		if diff := cmp.Diff(fromGoNix(theirs), ours, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("Parse(%q) (-go-nix +ours):\n%s", text, diff)
		}
	})
}

func TestNames(t *testing.T) {
	for path, want := range map[string][3]string{
		"/nix/store/0hm2f1psjpcwg8fijsmr4wwxrx59s092-go-1.21.4.drv":       {"go-1.21.4", "go", "1.21.4"},
		"/nix/store/0hm2f1psjpcwg8fijsmr4wwxrx59s092-image-api.json.drv":  {"image-api.json", "image-api.json", ""},
		"/nix/store/0hm2f1psjpcwg8fijsmr4wwxrx59s092-gtk+3-3.24-dev":      {"gtk+3-3.24-dev", "gtk+3", "3.24-dev"},
		"/nix/store/0hm2f1psjpcwg8fijsmr4wwxrx59s092-bash52-001.drv":      {"bash52-001", "bash52", "001"},
		"/nix/store/0hm2f1psjpcwg8fijsmr4wwxrx59s092-python3.11-x-1.drv":  {"python3.11-x-1", "python3.11-x", "1"},
		"/nix/store/0hm2f1psjpcwg8fijsmr4wwxrx59s092-ends-in-a-dash-.drv": {"ends-in-a-dash-", "ends-in-a-dash-", ""},
	} {
		name := Name(path)
		pname, version := Version(name)
		if got := [3]string{name, pname, version}; got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
}

func TestClosureVisitsNearestFirstAndOnce(t *testing.T) {
	files := map[string]string{
		"a": `Derive([],[("b",["out"]),("c",["out"])],[],"","",[],[])`,
		"b": `Derive([],[("d",["out"])],[],"","",[],[])`,
		"c": `Derive([],[("d",["out"]),("e",["out"])],[],"","",[],[])`,
		"d": `Derive([],[("missing",["out"])],[],"","",[],[])`,
		"e": `Derive([],[],[],"","",[],[])`,
	}
	reads := map[string]int{}
	g := NewGraph(func(path string) ([]byte, error) {
		reads[path]++
		if text, ok := files[path]; ok {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	})
	var order []string
	visit := func(path string, _ *Derivation) bool {
		order = append(order, path)
		return path != "d"
	}
	if err := g.Closure([]string{"a", "c"}, visit); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "c", "b", "d", "e"}, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if err := g.Closure([]string{"a"}, func(string, *Derivation) bool { return true }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Closure = %v, want that a file is missing", err)
	}
	for path, n := range reads {
		if n != 1 {
			t.Errorf("%s was read %d times", path, n)
		}
	}
}

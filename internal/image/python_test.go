package image

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/streamconf"
)

// nastyTree makes a store path with all that tar formats differ about.
func nastyTree(t *testing.T, root string) {
	t.Helper()
	base := root + "/nix/store/" + strings.Repeat("a", 32) + "-tree"
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	file := func(name, content string, mode os.FileMode) {
		t.Helper()
		p := filepath.Join(base, name)
		check(os.MkdirAll(filepath.Dir(p), 0o755))
		check(os.WriteFile(p, []byte(content), 0o644))
		check(os.Chmod(p, mode))
	}
	long := strings.Repeat
	for _, name := range []string{
		"a/x", "a/y", "a-b/x", "a.d/z", "ab", // folders sort by component, not as text
		"é/ü", "é/z", "日本", "\U0001f600/x", "\uffee/x", "bad\xff\xfe/x", "bad\xee\x80\x80", "bad\xed\xa0\x80x",
		"long/" + long("n", 99), "long/" + long("n", 45), "long/" + long("m", 46), "long/" + long("é", 60),
		long(long("e", 50)+"/", 6) + "f",
	} {
		file(name, "x", 0o444)
	}
	file("big", long("0123456789", 2000), 0o555)
	file("empty", "", 0o444)
	file("setuid", "q", 0o755|os.ModeSetuid)
	check(os.Symlink("/nonexistent/"+long("l", 120), base+"/longlink"))
	check(os.Symlink("b", base+"/c"))
	check(os.Symlink("ünï", base+"/u"))
	check(os.Symlink("a", base+"/dirlink"))
	check(os.Link(base+"/big", base+"/zlink"))
	check(os.Mkdir(base+"/emptydir", 0o755))
	check(filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o755)
		}
		return err
	}))
}

// The digests are what CPython 3.9, 3.11, 3.12 and 3.13 made of the same tree.
func TestTarIsPythons(t *testing.T) {
	root := t.TempDir()
	nastyTree(t, root)
	store := handoff.Store{Dir: "/nix/store", Root: root}
	for _, test := range []struct {
		owner streamconf.Owner
		want  string
	}{
		{streamconf.Owner{Mtime: 1, UID: 0, GID: 0, Uname: "root", Gname: "root"}, "78a33dbca5a822be516e17dfae1f59f3f18c1c9ae8ae5e755c0cb4f140a0d34b"},
		{streamconf.Owner{Mtime: 1700000000, UID: 1000, GID: 0, Uname: "bob", Gname: "root"}, "a8ddc1a1c67f33d4c6dfa7a499457a3b9ba17cf7b170eadddc8fa097e9de551f"},
		{streamconf.Owner{Mtime: 99999999999, UID: 3000000, GID: 0, Uname: strings.Repeat("u", 40), Gname: "root"}, "6425fc7dec00eae3dc4ad6276e55c1b9d4548f02393500db55de72475bbd7057"},
		{streamconf.Owner{Mtime: -5, UID: 7, GID: 0, Uname: "ünam", Gname: "root"}, "9358667d64e3af6159598193aceafd22df4bc77db378557dda50a78e52a38bb4"},
	} {
		sum := sha256.New()
		l := &storeLayer{[]string{"/nix/store/" + strings.Repeat("a", 32) + "-tree"}, test.owner, store}
		if err := l.writeTar(sum); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sum.Sum(nil)); got != test.want {
			t.Errorf("%+v: %s, want %s", test.owner, got, test.want)
		}
	}
}

func TestJSONIsPythons(t *testing.T) {
	const in = `{"b":1,"a":[],"c":{},"d":[1,[2],{"x":null}],"s":"é\u0000\n\"\\/\u007f\ud83d\ude00<>&","t":true,"f":false,` +
		`"n":[0,-0,-1,1.0,1e5,1E400,-1e400,1e16,1e15,0.0001,0.00001,12345678901234567890,1.5e-7,0.1],"b":2}`
	const want = `{
    "b": 2,
    "a": [],
    "c": {},
    "d": [
        1,
        [
            2
        ],
        {
            "x": null
        }
    ],
    "s": "\u00e9\u0000\n\"\\/\u007f\ud83d\ude00<>&",
    "t": true,
    "f": false,
    "n": [
        0,
        0,
        -1,
        1.0,
        100000.0,
        Infinity,
        -Infinity,
        1e+16,
        1000000000000000.0,
        0.0001,
        1e-05,
        12345678901234567890,
        1.5e-07,
        0.1
    ]
}`
	v, err := parseOrdered([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(pyDumps(v))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := parseOrdered([]byte(strings.Repeat("[", 100) + strings.Repeat("]", 100))); err == nil {
		t.Error("JSON of any depth is read")
	}
	if _, err := parseOrdered([]byte(`{} {}`)); err == nil {
		t.Error("two values are read as one")
	}
}

func TestReprIsPythons(t *testing.T) {
	if got, want := pyRepr([]string{`a`, `it's`, `"'`, `b\`}), `['a', "it's", '"\'', 'b\\']`; got != want {
		t.Errorf("pyRepr = %s, want %s", got, want)
	}
}

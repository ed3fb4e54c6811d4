package narinfo

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	gonix "github.com/nix-community/go-nix/pkg/narinfo"

	"github.com/flakeship/flakeship/internal/storepath"
)

// Keys of the fixtures in testdata; test-1 and test1 sign nothing else.
const (
	nixosKey  = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
	test1Key  = "test1:tLAEn+EeaBUJYqEpTd2yeerr7Ic6+0vWe+aXL/vYUpE="
	secretKey = "test-1:FjfGgtOya1aVJktjnUT+C1RvWqNLzliotpz/pvPVi89ZYuh5yiErwY7Yrtkd9gurkXeZubYSc+kZERSKlM+Jrg=="
	publicKey = "test-1:WWLoecohK8GO2K7ZHfYLq5F3mbm2EnPpGREUipTPia4="
)

const dir = storepath.DefaultDir

func fixture(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".narinfo"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustParse(t testing.TB, text string) *NarInfo {
	t.Helper()
	n, err := Parse(text, dir)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func path(t testing.TB, base string) storepath.Path {
	t.Helper()
	p, err := storepath.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var equal = cmp.AllowUnexported(storepath.Path{})

func TestParse(t *testing.T) {
	got := mustParse(t, fixture(t, "signed"))
	hash, _ := ParseHash("sha256:0q6yj9sbg7xi8kks5cmqc38xcpprb64a18cq9d67pds7sw04di7k")
	want := &NarInfo{
		StorePath:   path(t, "0r2v93mqaf9d2zyqi8pgmyzmf879753y-top"),
		URL:         "nar/0q6yj9sbg7xi8kks5cmqc38xcpprb64a18cq9d67pds7sw04di7k.nar",
		Compression: "none",
		FileHash:    "sha256:0q6yj9sbg7xi8kks5cmqc38xcpprb64a18cq9d67pds7sw04di7k",
		FileSize:    160,
		NarHash:     hash,
		NarSize:     160,
		References:  []storepath.Path{path(t, "z4asv3j07d89ywjf8fxkn7sg6mf5s9q5-dep")},
		Deriver:     path(t, "13ymk1q4wh30z4fq5lf3a5d15fvb07f9-top.drv"),
		Sigs:        []string{"test-1:SPMTfem+VT9BDEZo7hRu1rU1Vu4O+7d7ZYi9CQBBB2rDCp/vCakdOkeF5AugzrNwWkZw+OER7zjyfrNwUzSXAg=="},
	}
	if diff := cmp.Diff(want, got, equal); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
}

// Nix wrote the fixtures: what is written here is the same to the byte, and go-nix reads the same from it.
func TestFixturesRoundTrip(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.narinfo")
	if len(files) < 10 {
		t.Fatalf("%d fixtures", len(files))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".narinfo")
		text := fixture(t, name)
		n := mustParse(t, text)
		if diff := cmp.Diff(text, n.Format(dir)); diff != "" {
			t.Errorf("%s: Format (-want +got):\n%s", name, diff)
		}
		theirs, err := gonix.Parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := n.Fingerprint(dir), theirs.Fingerprint(); got != want {
			t.Errorf("%s: fingerprint %s, go-nix %s", name, got, want)
		}
	}
}

// Each row was given to Nix 2.8 in a cache: ok says whether it fetched the path.
var variations = []struct {
	name     string
	old, new string // replaced in the fixture "signed"; an empty old appends
	ok       bool
}{
	{"an unknown key", "", "Foo: bar\n", true},
	{"an unknown key without a value", "Compression", "Foo: \nCompression", true},
	{"an unknown key swallows the next line", "FileHash", "Foo:\nFileHash", true},
	{"a reference twice", "References: ", "References: z4asv3j07d89ywjf8fxkn7sg6mf5s9q5-dep ", true},
	{"a size with a zero in front", "NarSize: 160", "NarSize: 0160", true},
	{"any one byte after the colon", "URL: ", "URL:\t", true},
	{"no hash of the file", "FileHash: sha256:0q6yj9sbg7xi8kks5cmqc38xcpprb64a18cq9d67pds7sw04di7k\n", "", true},
	{"the hash in hexadecimal", "NarHash: sha256:0q6yj9sbg7xi8kks5cmqc38xcpprb64a18cq9d67pds7sw04di7k", "NarHash: sha256:f3c44600d747b77b4c4b98a1a08859f95ed6d160b8b2a2e744b19fb77492de60", true},
	{"deriver not known", "Deriver: 13ymk1q4wh30z4fq5lf3a5d15fvb07f9-top.drv", "Deriver: unknown-deriver", true},
	{"the store path twice", "", "StorePath: /nix/store/0r2v93mqaf9d2zyqi8pgmyzmf879753y-top\n", true},
	{"an empty content address", "", "CA: \n", true},
	{"CR LF", "\n", "\r\n", false},
	{"the last line cut short", "SXAg==\n", "SX", false},
	{"no line feed at the end", "SXAg==\n", "SXAg==", false},
	{"a line without colon", "", "Foobar\n", false},
	{"an empty line at the end", "", "\n", false},
	{"an empty line in the middle", "URL", "\nURL", false},
	{"references twice", "", "References: z4asv3j07d89ywjf8fxkn7sg6mf5s9q5-dep\n", false},
	{"no size", "NarSize: 160\n", "", false},
	{"size zero", "NarSize: 160", "NarSize: 0", false},
	{"a negative size", "NarSize: 160", "NarSize: -160", false},
	{"no URL", "URL: nar/0q6yj9sbg7xi8kks5cmqc38xcpprb64a18cq9d67pds7sw04di7k.nar\n", "", false},
	{"an empty URL", "URL: nar/0q6yj9sbg7xi8kks5cmqc38xcpprb64a18cq9d67pds7sw04di7k.nar\n", "URL: \n", false},
	{"no store path", "StorePath: ", "Path: ", false},
	{"another store", "/nix/store", "/gnu/store", false},
	{"a reference that is a full path", "References: ", "References: /gnu/store/", false},
	{"a deriver that is no path", "Deriver: ", "Deriver: !", false},
	{"a file size that is no number", "FileSize: 160", "FileSize: x", false},
	{"a file hash that is none", "FileHash: sha256:", "FileHash: sha256:!", false},
	{"references swallow the next line", "References: z4asv3j07d89ywjf8fxkn7sg6mf5s9q5-dep", "References:", false},
}

func TestVariations(t *testing.T) {
	signed := fixture(t, "signed")
	for _, test := range variations {
		text := strings.ReplaceAll(signed, test.old, test.new)
		if test.old == "" {
			text = signed + test.new
		}
		if text == signed {
			t.Fatalf("%s: nothing was changed", test.name)
		}
		n, err := Parse(text, dir)
		var bad *Error
		switch {
		case !test.ok && !errors.As(err, &bad):
			t.Errorf("%s: %v, want an *Error", test.name, err)
		case test.ok && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.ok:
			if n.Fingerprint(dir) != mustParse(t, signed).Fingerprint(dir) {
				t.Errorf("%s: changes the fingerprint: %s", test.name, n.Fingerprint(dir))
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	signed := fixture(t, "signed")
	for name, text := range map[string]string{
		"nothing":            "",
		"an error page":      "<html><body>502: Bad Gateway</body></html>\n",
		"a size beyond 2^63": strings.Replace(signed, "NarSize: 160", "NarSize: 9223372036854775808", 1),
		"a hash of the NAR that is no sha256": strings.Replace(signed, "NarHash: sha256:0q6yj9sbg7xi8kks5cmqc38xcpprb64a18cq9d67pds7sw04di7k",
			"NarHash: sha1:iwjz551fyw0cxcjgf4l6c879zabd6wpm", 1),
		"two content addresses": signed + "CA: a:b\nCA: c:d\n",
		"too long":              signed + "X: " + strings.Repeat("x", MaxSize) + "\n",
	} {
		var bad *Error
		if n, err := Parse(text, dir); !errors.As(err, &bad) {
			t.Errorf("%s: %v, %v; want an *Error", name, n, err)
		}
	}
	if _, err := Parse(signed, "/gnu/store"); err == nil {
		t.Error("a narinfo of another store was taken")
	}
}

func TestReferencesAreSorted(t *testing.T) {
	n := mustParse(t, strings.Replace(fixture(t, "signed"), "References: z4asv3j07d89ywjf8fxkn7sg6mf5s9q5-dep",
		"References: z4asv3j07d89ywjf8fxkn7sg6mf5s9q5-dep  0r2v93mqaf9d2zyqi8pgmyzmf879753y-top", 1))
	want := "/nix/store/0r2v93mqaf9d2zyqi8pgmyzmf879753y-top,/nix/store/z4asv3j07d89ywjf8fxkn7sg6mf5s9q5-dep"
	if !strings.HasSuffix(n.Fingerprint(dir), ";160;"+want) {
		t.Errorf("fingerprint %s", n.Fingerprint(dir))
	}
}

func TestParseHash(t *testing.T) {
	const b32 = "sha256:0q6yj9sbg7xi8kks5cmqc38xcpprb64a18cq9d67pds7sw04di7k"
	for _, text := range []string{b32,
		"sha256:f3c44600d747b77b4c4b98a1a08859f95ed6d160b8b2a2e744b19fb77492de60",
		"sha256:88RGANdHt3tMS5ihoIhZ+V7W0WC4sqLnRLGft3SS3mA=",
		"sha256-88RGANdHt3tMS5ihoIhZ+V7W0WC4sqLnRLGft3SS3mA="} {
		if h, err := ParseHash(text); err != nil || h.String() != b32 {
			t.Errorf("ParseHash(%q) = %s, %v", text, h, err)
		}
	}
	for _, text := range []string{"", "sha256", "sha256:", "sha256:00", "crc32:00000000", b32[7:], b32 + "0",
		"sha256-0q6yj9sbg7xi8kks5cmqc38xcpprb64a18cq9d67pds7sw04di7k", "sha256:zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"} {
		if h, err := ParseHash(text); err == nil {
			t.Errorf("ParseHash(%q) = %s, want an error", text, h)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.narinfo")
	for _, file := range files {
		f.Add(fixture(f, strings.TrimSuffix(filepath.Base(file), ".narinfo")))
	}
	signed := fixture(f, "signed")
	for _, v := range variations {
		if v.old != "" {
			f.Add(strings.ReplaceAll(signed, v.old, v.new))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := Parse(text, dir)
		if err != nil {
			return
		}
		again, err := Parse(n.Format(dir), dir)
		if err != nil {
			t.Fatalf("what was read as %+v cannot be read again: %v", n, err)
		}
		if diff := cmp.Diff(n, again, equal); diff != "" {
			t.Errorf("read again (-first +second):\n%s", diff)
		}
		n.Trust(dir, nil)
		theirs, err := gonix.Parse(strings.NewReader(text))
		if err != nil || theirs.Check() != nil {
			return // stricter than Nix on unknown keys and ": " in values
		}
		// go-nix neither sorts references nor drops doubles, and takes empty words for some.
		theirs.References = nil
		for _, ref := range n.References {
			theirs.References = append(theirs.References, ref.String())
		}
		if n.Fingerprint(dir) != theirs.Fingerprint() || n.URL != theirs.URL || n.Compression != theirs.Compression {
			t.Errorf("Parse(%q) = %+v, go-nix %+v", text, n, theirs)
		}
	})
}

package storepath

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	gonix "github.com/nix-community/go-nix/pkg/storepath"
)

const hello = "rwzgm03dksb4m4v2c1wmhk9qszhk2jp2-hello-2.12.1"

func TestParse(t *testing.T) {
	p, err := DefaultDir.Parse("/nix/store/" + hello)
	if err != nil {
		t.Fatal(err)
	}
	if p.Hash() != "rwzgm03dksb4m4v2c1wmhk9qszhk2jp2" || p.Name() != "hello-2.12.1" || p.String() != hello || p.IsDerivation() {
		t.Errorf("hash %q, name %q, text %q", p.Hash(), p.Name(), p)
	}
	if full := DefaultDir.Join(p); full != "/nix/store/"+hello {
		t.Errorf("Join gives %q", full)
	}
	for _, name := range []string{"a", ".gitignore", "...", "..a", "-", "a+b-c._?=D9", strings.Repeat("x", 211)} {
		if _, err := Parse(hello[:33] + name); err != nil {
			t.Errorf("Parse of name %q: %v", name, err)
		}
	}
	var none Path
	if none.Hash() != "" || none.Name() != "" || !none.IsZero() {
		t.Error("the zero value is not empty")
	}
}

// lax says that go-nix takes the text for a store path.
var bad = []struct {
	what, text string
	lax        bool
}{
	{"empty", "", false},
	{"the store itself", "/nix/store/", false},
	{"another store", "/gnu/store/" + hello, true},
	{"a neighbour of the store", "/nix/stores/" + hello, false},
	{"a file inside", "/nix/store/" + hello + "/bin/hello", false},
	{"only a hash", "/nix/store/" + hello[:32], false},
	{"no name", "/nix/store/" + hello[:33], false},
	{"no hyphen", "/nix/store/" + hello[:32] + "hello", true},
	{"a character hashes lack", "/nix/store/e" + hello[1:], false},
	{"a capital in the hash", "/nix/store/R" + hello[1:], false},
	{"a blank in the name", "/nix/store/" + hello + " x", false},
	{"a newline in the name", "/nix/store/" + hello + "\nx", false},
	{"a carriage return at the end", "/nix/store/" + hello + "\r", false},
	{"a letter beyond ASCII", "/nix/store/" + hello + "é", false},
	{"name too long", "/nix/store/" + hello[:33] + strings.Repeat("x", 212), true},
	{"dot", "/nix/store/" + hello[:33] + ".", true},
	{"two dots", "/nix/store/" + hello[:33] + "..", true},
	{"dot before a hyphen", "/nix/store/" + hello[:33] + ".-x", true},
	{"two dots before a hyphen", "/nix/store/" + hello[:33] + "..-x", true},
	{"a way out", "/nix/store/../store/" + hello, false},
	{"a doubled slash", "/nix/store//" + hello, false},
	{"a trailing slash", "/nix/store/" + hello + "/", true},
}

func TestParseRefuses(t *testing.T) {
	for _, test := range bad {
		p, err := DefaultDir.Parse(test.text)
		var bad *Error
		if !errors.As(err, &bad) || bad.Text != test.text {
			t.Errorf("%s: Parse(%q) = %v, %v; want an *Error with the whole text", test.what, test.text, p, err)
		}
		if _, err := gonix.FromAbsolutePath(test.text); (err == nil) != test.lax {
			t.Errorf("%s: go-nix says %v, this table says lax=%v", test.what, err, test.lax)
		}
	}
}

func TestParseDir(t *testing.T) {
	for text, ok := range map[string]bool{
		"/nix/store": true, "/gnu/store": true, "/some/x/store": true,
		"": false, "/": false, "nix/store": false, "/nix/store/": false, "/nix//store": false, "/nix/../store": false, "/nix:/store": false,
	} {
		if _, err := ParseDir(text); (err == nil) != ok {
			t.Errorf("ParseDir(%q): %v", text, err)
		}
	}
	elsewhere := Dir("/gnu/store")
	if _, err := elsewhere.Parse("/nix/store/" + hello); err == nil {
		t.Error("a path of another store was taken")
	}
}

func TestMake(t *testing.T) {
	// What `nix-store --add` gave for a file "greeting" that holds "hello\n" and needs nothing.
	nar := bytes.Buffer{}
	for _, s := range []string{"nix-archive-1", "(", "type", "regular", "contents", "hello\n", ")"} {
		nar.Write([]byte{byte(len(s)), 0, 0, 0, 0, 0, 0, 0})
		nar.WriteString(s)
		nar.Write(make([]byte, (8-len(s)%8)%8))
	}
	p, err := DefaultDir.Make("source", sha256.Sum256(nar.Bytes()), "greeting")
	if err != nil || p.String() != "5nfjhql2p2cvh7d7sz3cxy0wzgr2k6nf-greeting" {
		t.Errorf("Make = %v, %v", p, err)
	}
	if _, err := DefaultDir.Make("source", [32]byte{}, "a/b"); err == nil {
		t.Error("a name with a slash was taken")
	}
}

func FuzzParse(f *testing.F) {
	for _, test := range bad {
		f.Add(test.text)
	}
	f.Add("/nix/store/" + hello)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := DefaultDir.Parse(text)
		if err != nil {
			return
		}
		if DefaultDir.Join(p) != text {
			t.Errorf("Parse(%q) is written as %q", text, DefaultDir.Join(p))
		}
		theirs, err := gonix.FromAbsolutePath(text)
		if err != nil || theirs.Name != p.Name() || Encode(theirs.Digest) != p.Hash() {
			t.Errorf("Parse(%q) = %v, go-nix: %v, %v", text, p, theirs, err)
		}
	})
}

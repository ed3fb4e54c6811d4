package storepath

import (
	"bytes"
	"testing"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

func TestBase32(t *testing.T) {
	for _, test := range []struct {
		bytes []byte
		text  string
	}{
		{nil, ""},
		{[]byte{0x1f}, "0z"},
		{[]byte{0xff}, "7z"},
		{[]byte{0xd8, 0x6b, 0x33, 0x92, 0xc1, 0x20, 0x2e, 0x8f, 0xf5, 0xa4, 0x23, 0xb3, 0x02, 0xe6, 0x28, 0x4d, 0xb7, 0xf8, 0xf4, 0x35, 0xea, 0x9f, 0x39, 0xb5, 0xb1, 0xb2, 0x0f, 0xd3, 0xac, 0x36, 0xdf, 0xcb},
			"1jyz6snd63xjn6skk7za6psgidsd53k05cr3lksqybi0q6936syq"},
	} {
		if got := Encode(test.bytes); got != test.text {
			t.Errorf("Encode(%x) = %q, want %q", test.bytes, got, test.text)
		}
		if got, err := Decode(test.text); err != nil || !bytes.Equal(got, test.bytes) {
			t.Errorf("Decode(%q) = %x, %v, want %x", test.text, got, err, test.bytes)
		}
	}
	for _, text := range []string{"0", "000", "zz", "8z", "0e", "0Z", "0 ", "é"} {
		if b, err := Decode(text); err == nil {
			t.Errorf("Decode(%q) = %x, want an error", text, b)
		}
	}
}

func FuzzBase32(f *testing.F) {
	f.Add("1jyz6snd63xjn6skk7za6psgidsd53k05cr3lksqybi0q6936syq", []byte("some bytes"))
	f.Add("zz", []byte{})
	f.Fuzz(func(t *testing.T, text string, b []byte) {
		if got, want := Encode(b), nixbase32.EncodeToString(b); got != want {
			t.Errorf("Encode(%x) = %q, go-nix %q", b, got, want)
		}
		ours, err := Decode(text)
		theirs, theirErr := nixbase32.DecodeString(text)
		if (err == nil) != (theirErr == nil) || err == nil && !bytes.Equal(ours, theirs) {
			t.Errorf("Decode(%q) = %x, %v, go-nix %x, %v", text, ours, err, theirs, theirErr)
		}
		if err == nil && Encode(ours) != text {
			t.Errorf("Decode(%q) is written as %q", text, Encode(ours))
		}
	})
}

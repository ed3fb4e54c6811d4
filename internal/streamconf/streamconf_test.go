package streamconf

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDatesArePythons(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	for _, test := range []struct {
		in, iso string
		unix    int64
	}{
		{"1970-01-01T00:00:01+00:00", "1970-01-01T00:00:01+00:00", 1},
		{"1970-01-01T00:00:01Z", "1970-01-01T00:00:01+00:00", 1},
		{"1970-01-01T02:00:00.25+02:00", "1970-01-01T02:00:00.250000+02:00", 0},
		{"1970-01-02", "1970-01-02T00:00:00", 86400},
		{"now", "2026-01-02T03:04:05.000006+00:00", now.Unix()},
	} {
		at, iso, err := parsePythonTime(test.in, now)
		if err != nil || iso != test.iso || at.Unix() != test.unix {
			t.Errorf("parsePythonTime(%q) = %d, %q, %v, want %d, %q", test.in, at.Unix(), iso, err, test.unix, test.iso)
		}
	}
	if _, _, err := parsePythonTime("yesterday", now); err == nil {
		t.Error(`"yesterday" is a date`)
	}
}

// Keys are in registries: none may change, and nothing that changes bytes may keep its key.
func TestKeys(t *testing.T) {
	const text = `{"architecture": "amd64", "created": "1970-01-01T00:00:01Z", "store_dir": "/nix/store", "customisation_layer": "/nix/store/c-custom",
"store_layers": [["/nix/store/a-lib"], ["/nix/store/b-app", "/nix/store/a-lib"]]}`
	c, err := Parse([]byte(text), time.Unix(9, 0))
	if err != nil {
		t.Fatal(err)
	}
	keys := c.Keys()
	want := []string{
		"sha256:a07f163ecf673407e5ad0094c78d432a7546a91db73e3c99254724128c38852a",
		"sha256:4f0dbf7bd9d7fd638b911413a17caacde60956c6be600ace0c92c8de1f0f1eb0",
		"sha256:9c45312f4f4775ea21adbae34ca2352e8fe1125b27dc0e0e6e75fb9289d2cebd",
	}
	if !slices.Equal(keys, want) {
		t.Errorf("keys = %q, want %q", keys, want)
	}
	c.Owner.UID = 1
	if other := c.Keys(); other[0] == keys[0] || other[2] != keys[2] {
		t.Errorf("of another owner: %q", other)
	}
	if !Is([]byte(text)) || Is([]byte(`{"layers": [], "version": 1}`)) || Is([]byte(`[]`)) {
		t.Error("a conf.json is not told from other JSON")
	}
	for _, bad := range []string{
		"", "{}", `{"customisation_layer": "/nix/store/c"}`,
		strings.Replace(text, "/nix/store/a-lib", "/nix/store/../etc", 1), strings.Replace(text, "/nix/store/a-lib", "/etc/passwd", 1),
		strings.Replace(text, "1970-01-01T00:00:01Z", "yesterday", 1),
	} {
		if _, err := Parse([]byte(bad), time.Unix(9, 0)); err == nil {
			t.Errorf("no error for %.60q", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"created":"now","uid":"1","store_dir":"/nix/store","store_layers":[["/nix/store/a"]],"customisation_layer":"/nix/store/c"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text, time.Unix(1, 0))
		if err == nil && (len(c.Keys()) != len(c.StoreLayers)+1 || !Is(text)) {
			t.Errorf("%d keys of %d layers", len(c.Keys()), len(c.StoreLayers))
		}
	})
}

package nix

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flakeship/flakeship/internal/handoff"
)

// recorded are what several versions of Nix printed, by file name.
func recorded(t testing.TB, pattern string) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(files) < 3 {
		t.Fatalf("%s fits %q: %v", pattern, files, err)
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

func TestMetadataOfEachVersion(t *testing.T) {
	ones, twos := strings.Repeat("1", 40), strings.Repeat("2", 40)
	for name, text := range recorded(t, "metadata-*.json") {
		src, err := parseMetadata(text, "./nix")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if src.commit != ones || src.dir != "nix" || src.Dirty || !strings.HasPrefix(src.path, "/nix/store/") || !strings.Contains(src.eval, "rev="+ones) {
			t.Errorf("%s: %+v", name, src)
		}
		want := []handoff.FlakeInput{{Name: "other", Rev: twos}}
		if diff := cmp.Diff(want, src.Inputs, cmpopts.IgnoreFields(handoff.FlakeInput{}, "URI", "NarHash")); diff != "" {
			t.Errorf("%s: inputs (-want +got):\n%s", name, diff)
		}
	}
}

func TestSettingsOfEachVersion(t *testing.T) {
	for name, text := range recorded(t, "settings-*.json") {
		s, err := parseSettings(text, func(string) string { return "" })
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := []string{"https://cache.example.org", "https://other.example.org?priority=3"}
		if !slices.Equal(s.Substituters, want) || len(s.TrustedPublicKeys) != 1 || s.NetrcFile != "/src/netrc" || s.System != "x86_64-linux" {
			t.Errorf("%s: %+v", name, s)
		}
		// 2.34 writes local://?root=, the others local?root=.
		if s.StoreRoot != "/src/root" || len(s.machines("")) > 0 || !slices.Contains(s.extraPlatforms, "i686-linux") {
			t.Errorf("%s: root %q, builders %v, platforms %v", name, s.StoreRoot, s.machines(""), s.extraPlatforms)
		}
	}
}

func TestErrorsOfEachVersion(t *testing.T) {
	for name, text := range recorded(t, "read-only-*.log") {
		if err := (&CommandError{Command: "nix eval", Code: 1, Stderr: string(text)}); !needsStore(err) {
			t.Errorf("%s: an import from a derivation is not recognised in %q", name, err.Cause())
		}
	}
	for name, text := range recorded(t, "no-packages-*.log") {
		err := &CommandError{Command: "nix eval", Code: 1, Stderr: string(text)}
		if needsStore(err) || !noPackages.MatchString(err.Error()) {
			t.Errorf("%s: that there are no packages is not recognised in %q", name, err.Cause())
		}
	}
}

func FuzzMetadata(f *testing.F) {
	for _, text := range recorded(f, "metadata-*.json") {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		src, err := parseMetadata(text, "ref")
		if err == nil && (src.eval == "" && src.Locked == "" && src.commit == "" || src.Dirty && src.commit != "") {
			t.Errorf("parseMetadata(%q) = %+v", text, src)
		}
		lockedBy(src.locks, string(text))
	})
}

func FuzzSettings(f *testing.F) {
	for _, text := range recorded(f, "settings-*.json") {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseSettings(text, func(string) string { return "" })
		if err == nil && strings.HasSuffix(s.StoreRoot, "/") {
			t.Errorf("store root %q of %q", s.StoreRoot, text)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"system":"x86_64-linux","names":["a","b"]}`))
	f.Add([]byte(`{"attribute":{"system":"x86_64-linux","name":"a.b"},"found":{"image":true,"drv":"/nix/store/x.drv","out":"/nix/store/x","imageName":"a"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := decode(text)
		if err != nil {
			return
		}
		img := a.Found.image("/nix/store")
		if img.OutPath != "" && !strings.HasPrefix(img.OutPath, "/nix/store/") {
			t.Errorf("%q has output %q", text, img.OutPath)
		}
		if _, err := json.Marshal(img); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}

package image

import (
	"archive/tar"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/flakeship/flakeship/internal/handoff"
)

func TestContents(t *testing.T) {
	const lib, app = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-lib-1.0", "/nix/store/1123456789abcdfghijklmnpqrsvwxyz-app"
	contents := func(img *Image) Contents {
		t.Helper()
		found, err := img.Contents()
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	// As different tools name members, with what is no store path among them.
	one := string(tarOf(t, entry{name: "./", kind: tar.TypeDir}, entry{name: "./nix/store/", kind: tar.TypeDir}, entry{name: "." + lib + "/", kind: tar.TypeDir},
		entry{name: "." + lib + "/a"}, entry{name: "etc/nix/store/2123456789abcdfghijklmnpqrsvwxyz-no"}, entry{name: "nix/store/.links/x"}))
	two := string(tarOf(t, entry{name: app + "/bin/app"}, entry{name: lib + "/again"}, entry{name: "bin/app", kind: tar.TypeSymlink, link: app},
		entry{name: "./etc/passwd"}, entry{name: "etc/.wh.group"}))
	archive := write(t, gzipped9(tarOf(t, entry{name: "1/layer.tar", content: one}, entry{name: "2/layer.tar", content: string(zstded([]byte(two)))},
		entry{name: "c.json", content: configOf(one, two)}, entry{name: "manifest.json", content: manifestOf("c.json", "1/layer.tar", "2/layer.tar")})))
	want := Contents{StorePaths: []string{lib, app}, Loose: []Loose{
		{1, hashOf(t, one), []string{"etc/nix/store/2123456789abcdfghijklmnpqrsvwxyz-no", "nix/store/.links/x"}},
		{2, hashOf(t, two), []string{"etc/passwd"}},
	}}
	if diff := cmp.Diff(want, contents(open(t, archive, handoff.Store{}))); diff != "" {
		t.Errorf("of an archive (-want +got):\n%s", diff)
	}

	// A stream image and nix2container's say it themselves; the store need not be there.
	store := goldenStore(t)
	stream := contents(open(t, goldenScript(t, store), store))
	n2c := contents(open(t, put(t, store, "/nix/store/3123456789abcdfghijklmnpqrsvwxyz-image.json", string(golden(t, "nix2container/image.json")), 0o444), store))
	for family, found := range map[string]Contents{"stream": stream, "nix2container": n2c} {
		if !strings.Contains(strings.Join(found.StorePaths, " "), "-hello-1.0") {
			t.Errorf("of %s: %v", family, found)
		}
	}
	if strings.Join(n2c.Merged, " ") == "" || !slices.Contains(n2c.StorePaths, n2c.Merged[0]) || len(n2c.Loose) > 0 {
		t.Errorf("of nix2container's copyToRoot: %v", n2c)
	}

	broken := write(t, tarOf(t, entry{name: "1/layer.tar", content: layerA}, entry{name: "c.json", content: configOf(layerA)}, entry{name: "manifest.json", content: manifestOf("c.json", "1/layer.tar")}))
	if found, err := open(t, broken, handoff.Store{}).Contents(); err == nil {
		t.Errorf("of what is no tar: %v", found)
	}
}

func hashOf(t *testing.T, layer string) v1.Hash {
	t.Helper()
	h, _, err := v1.SHA256(strings.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

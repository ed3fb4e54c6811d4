package image

import (
	"archive/tar"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/handoff"
)

func TestStorePaths(t *testing.T) {
	const lib, app = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-lib-1.0", "/nix/store/1123456789abcdfghijklmnpqrsvwxyz-app"
	paths := func(img *Image) []string {
		t.Helper()
		found, err := img.StorePaths()
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	// As different tools name members, with what is no store path among them.
	one := string(tarOf(t, entry{name: "./", kind: tar.TypeDir}, entry{name: "./nix/store/", kind: tar.TypeDir}, entry{name: "." + lib + "/", kind: tar.TypeDir},
		entry{name: "." + lib + "/a"}, entry{name: "etc/nix/store/2123456789abcdfghijklmnpqrsvwxyz-no"}, entry{name: "nix/store/.links/x"}))
	two := string(tarOf(t, entry{name: app + "/bin/app"}, entry{name: lib + "/again"}, entry{name: "bin/app", kind: tar.TypeSymlink, link: app}))
	archive := write(t, gzipped9(tarOf(t, entry{name: "1/layer.tar", content: one}, entry{name: "2/layer.tar", content: string(zstded([]byte(two)))},
		entry{name: "c.json", content: configOf(one, two)}, entry{name: "manifest.json", content: manifestOf("c.json", "1/layer.tar", "2/layer.tar")})))
	if diff := cmp.Diff([]string{lib, app}, paths(open(t, archive, handoff.Store{}))); diff != "" {
		t.Errorf("of an archive (-want +got):\n%s", diff)
	}

	// A stream image and nix2container's say it themselves; the store need not be there.
	store := goldenStore(t)
	stream := paths(open(t, goldenScript(t, store), store))
	n2c := paths(open(t, put(t, store, "/nix/store/3123456789abcdfghijklmnpqrsvwxyz-image.json", string(golden(t, "nix2container/image.json")), 0o444), store))
	for family, found := range map[string][]string{"stream": stream, "nix2container": n2c} {
		if len(found) == 0 || !strings.Contains(strings.Join(found, " "), "-hello-1.0") {
			t.Errorf("of %s: %v", family, found)
		}
	}

	broken := write(t, tarOf(t, entry{name: "1/layer.tar", content: layerA}, entry{name: "c.json", content: configOf(layerA)}, entry{name: "manifest.json", content: manifestOf("c.json", "1/layer.tar")}))
	if found, err := open(t, broken, handoff.Store{}).StorePaths(); err == nil {
		t.Errorf("of what is no tar: %v", found)
	}
}

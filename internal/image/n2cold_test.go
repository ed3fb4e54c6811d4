package image

import (
	"strings"
	"testing"
)

// The digests are those that nix2container v1.0.0, of March 2023, gives the same store paths: it wrote no times, and a group's name as
// the user's. So do images that were built with it, and are pushed.
func TestNix2ContainerOf2023(t *testing.T) {
	old := strings.NewReplacer(
		"sha256:ea45857cb837b44b4924704b6aa067c64ddf36d2e5ffa3d523abd1c098be2870", "sha256:2d9633258ed5427de13ae1aafff770304b4c98b5323f0311b1d19c801fb2500a",
		"sha256:e173c2afbb46580b1425aa8dfff0c45a04a1ae26125842d1125f644a22cc59c1", "sha256:7c3bf08e50f111d956c61276b298e38fb789107925307119085f729f1a7408fb",
		"sha256:4231f3f9a1e8531896628a543d32f8950184e3723d787f8c31444b4e03ce9e6f", "sha256:a6518a20cf8f45653e7a7a7de4aeebde6390c06da4845850419b5319b8572bc1",
	)
	store := goldenStore(t)
	text := old.Replace(string(golden(t, "nix2container/image.json")))
	img := open(t, put(t, store, "/nix/store/3123456789abcdfghijklmnpqrsvwxyz-image-golden.json", text, 0o444), store)
	ids, sizes := writeAll(t, img) // fails for a layer whose digest is another
	if want := []int64{5632, 116224, 8192}; len(ids) != 3 || sizes[0] != want[0] || sizes[1] != want[1] || sizes[2] != want[2] {
		t.Errorf("layers of %d bytes, want %d", sizes, want)
	}
}

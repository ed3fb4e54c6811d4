package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the golden files do not have: a base image, siblings that sort differently as text and as path components, hard
// links, set-user-ID and sticky bits, an owner's name that is not ASCII, numbers and escapes that Python prints its own way.
// The sum is that of the archive CPython 3.11.7 makes of the same tree with upstream's functions.
func TestStreamOfOddTreeOnBaseImage(t *testing.T) {
	const want = "792cbc27ed79d9c3c9924546be2cea159faff706d8e267f1a9c1c6f32ca704f3"
	s := oddStore(t, t.TempDir())
	var b bytes.Buffer
	if err := s.stream(&b, read(t, s.physical("/nix/store/conf.json")), ""); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(b.Bytes())); got != want {
		t.Errorf("sha256 of the archive is %s, want %s", got, want)
	}
}

const oddConf = `{"architecture":"amd64",
"config":{"Env":["B=2","TZ=X"],"Z":[],"Y":{},"n":[1,1.0,1e3,1e16,1e-5,123456.789,-0.0,true,null],"s":"é\u007f𝄞<>&\\\"/\t"},
"created":"2024-01-02T03:04:05.5+02:00","mtime":"1970-01-01T00:00:01+00:00","uid":"1000","gid":5,"uname":"gość","gname":"root",
"customisation_layer":"/nix/store/custom","from_image":"/nix/store/base.tar","repo_tag":"a:b","store_dir":"/nix/store",
"store_layers":[["/nix/store/00000000000000000000000000000000-odd"]]}`

func oddStore(t *testing.T, root string) store {
	t.Helper()
	s := store{root: root}
	tree := s.physical("/nix/store/00000000000000000000000000000000-odd")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	file := func(name, text string, mode os.FileMode) {
		t.Helper()
		must(os.MkdirAll(filepath.Dir(name), 0o755))
		must(os.WriteFile(name, []byte(text), 0o600))
		must(os.Chmod(name, mode))
	}
	long := strings.Repeat("n", 120)
	file(tree+"/a/x", "", os.ModeSetuid|0o755)
	file(tree+"/a/h1", "data\n", 0o444)
	file(tree+"/a/𝄞", "", 0o444)
	file(tree+"/a-b/"+long, "", 0o444)
	file(tree+"/a.d/żółć", "", 0o444)
	must(os.Link(tree+"/a/h1", tree+"/a/h2"))
	must(os.Symlink("/"+long+"/"+long, tree+"/a/long"))
	must(os.Symlink("nowhere", tree+"/dangling"))
	must(os.Chmod(tree+"/a.d", os.ModeSticky|0o777))
	for _, dir := range []string{"", "/a", "/a-b"} {
		must(os.Chmod(tree+dir, 0o755))
	}

	file(s.physical("/nix/store/custom/layer.tar"), strings.Repeat("\x00", 10240), 0o444)
	file(s.physical("/nix/store/custom/checksum"), sha256Hex(make([]byte, 10240))+"\n", 0o444)
	must(writeArchive(s.physical("/nix/store/base.tar"), map[string][]byte{
		"manifest.json": []byte(`[{"Config":"c.json","RepoTags":["base:1"],"Layers":["l1/layer.tar","l2/layer.tar"]}]`),
		"c.json":        []byte(`{"config":{"Env":["A=1","TZ=UTC"]},"rootfs":{"diff_ids":["sha256:` + strings.Repeat("1", 64) + `","sha256:` + strings.Repeat("2", 64) + `"]}}`),
		"l1/layer.tar":  []byte("one"),
		"l2/layer.tar":  []byte("two"),
	}, "none"))
	file(s.physical("/nix/store/conf.json"), oddConf, 0o444)
	return s
}

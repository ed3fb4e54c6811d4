package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/handoff"
)

// baseConf is a stream image on a base image, with everything older conf.json files lack left out.
const baseConf = `{"architecture":"arm64","config":{"Env":["B=2","TZ=X"],"Z":[],"n":1.0,"s":"é<>"},"created":"2024-01-02T03:04:05.5+02:00",
"customisation_layer":"/nix/store/cccccccccccccccccccccccccccccccc-custom","from_image":"/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-base.tar.gz",
"repo_tag":"a:b","store_dir":"/nix/store","store_layers":[["/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-one","/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab-two"]]}`

// onBase makes the store that baseConf speaks of, and returns the script.
func onBase(t testing.TB, s handoff.Store) string {
	t.Helper()
	layers := []string{"one", "two, a bit longer"}
	var base bytes.Buffer
	w := tar.NewWriter(&base)
	for i, content := range []string{
		layers[0], layers[1],
		fmt.Sprintf(`{"config":{"Env":["A=1","TZ=UTC"]},"rootfs":{"diff_ids":["%s","%s"]}}`, hash256([]byte(layers[0])), hash256([]byte(layers[1]))),
		`[{"Config":"c.json","RepoTags":["base:1"],"Layers":["l1/layer.tar","l2/layer.tar"]}]`,
	} {
		name := []string{"l1/layer.tar", "l2/layer.tar", "c.json", "manifest.json"}[i]
		h := &tar.Header{Name: name, Mode: 0o640, Uid: 7, Gid: 8, Uname: "u", Gname: "g", Size: int64(len(content)), ModTime: time.Unix(12345, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(content))
	}
	w.Close()
	put(t, s, "/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-base.tar.gz", string(gzipped9(base.Bytes())), 0o444)
	put(t, s, "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-one", "a file", 0o444)
	put(t, s, "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab-two/bin/x", "an executable", 0o555)
	custom := strings.Repeat("\x00", 10240)
	put(t, s, "/nix/store/cccccccccccccccccccccccccccccccc-custom/layer.tar", custom, 0o444)
	put(t, s, "/nix/store/cccccccccccccccccccccccccccccccc-custom/checksum", hash256([]byte(custom))[7:]+"\n", 0o444)
	conf := "/nix/store/dddddddddddddddddddddddddddddddd-a-conf.json"
	put(t, s, conf, baseConf, 0o444)
	for _, dir := range []string{"", "/bin"} {
		if err := os.Chmod(s.Root+"/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab-two"+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return put(t, s, "/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-stream-a", "#! /bin/sh\nexec python3 "+conf+"\n", 0o555)
}

// The digests are those in what CPython 3.11 prints with the functions of nixpkgs' script.
func TestStreamOnABaseImage(t *testing.T) {
	want := []string{
		"sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
		"sha256:d5b28d583f4469748c3cf7c71301e34a8abc9bcf6affed8bec4adfda510b56b4",
		"sha256:78afaa3f2a8230132f23b4d487cf436398ed6cd229b6843f56cd4cd610f5832d",
		"sha256:84ff92691f909a05b224e1c56abb4864f01b4f8e3c854e4bb4c7baf1d3f6d652",
	}
	const wantConfig = "sha256:9f03158b3695446f30983eceb7413bc9c312a1cd869d70b18785131a14704b7c"
	store := handoff.Store{Dir: "/nix/store", Root: t.TempDir()}
	img := open(t, onBase(t, store), store)
	ids, _ := writeAll(t, img)
	config, err := img.Config(ids)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"TZ=X",` + "\n            \"B=2\"", `"2024-01-02T03:04:05.500000+02:00"`, `store paths: ['l1/layer.tar']`, `"n": 1.0`} {
		if !strings.Contains(string(config), part) {
			t.Errorf("the config lacks %s:\n%s", part, config)
		}
	}
	if diff := cmp.Diff(want, hexes(ids)); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	if got := hash256(config); got != wantConfig {
		t.Errorf("config = %s, want %s", got, wantConfig)
	}
}

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// goldenStore unpacks the store paths the golden files were made of below a temporary folder, as Nix would: files 0444 or
// 0555, folders 0555.
func goldenStore(t *testing.T) store {
	t.Helper()
	f, err := os.Open("testdata/golden/store-paths.export.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	s := store{root: t.TempDir()}
	if err := os.MkdirAll(s.physical(storeDir), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // TempDir cannot remove what is in a folder without write permission
		filepath.WalkDir(s.root, func(p string, d os.DirEntry, _ error) error {
			if d.IsDir() {
				return os.Chmod(p, 0o755)
			}
			return nil
		})
	})
	export := &exportReader{r: z}
	for export.number() == 1 {
		staging := filepath.Join(s.root, "staging")
		export.archive(staging)
		if magic := export.number(); magic != 0x4558494e {
			t.Fatalf("export: magic is %x", magic)
		}
		path := export.text()
		for range export.number() { // references
			export.text()
		}
		export.text()   // deriver
		export.number() // no signature
		if export.err != nil {
			t.Fatal(export.err)
		}
		if err := move(staging, s.physical(path)); err != nil {
			t.Fatal(err)
		}
	}
	if export.err != nil {
		t.Fatal(export.err)
	}
	return s
}

// move renames a folder or file of any mode. A folder that may not be written cannot be moved to another one, but by root.
func move(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil || !info.IsDir() {
		return errors.Join(err, os.Rename(from, to))
	}
	return errors.Join(os.Chmod(from, 0o755), os.Rename(from, to), os.Chmod(to, info.Mode()))
}

// exportReader reads what nix-store --export writes. After the first error it returns zero values.
type exportReader struct {
	r   io.Reader
	err error
}

func (e *exportReader) number() uint64 {
	var b [8]byte
	if e.err == nil {
		_, e.err = io.ReadFull(e.r, b[:])
	}
	return binary.LittleEndian.Uint64(b[:])
}

func (e *exportReader) text() string {
	n := e.number()
	if e.err == nil && n > 1<<20 {
		e.err = fmt.Errorf("text of %d bytes", n)
	}
	if e.err != nil {
		return ""
	}
	b := make([]byte, (n+7)/8*8)
	_, e.err = io.ReadFull(e.r, b)
	return string(b[:n])
}

func (e *exportReader) expect(words ...string) {
	for _, want := range words {
		if got := e.text(); e.err == nil && got != want {
			e.err = fmt.Errorf("archive has %q instead of %q", got, want)
		}
	}
}

func (e *exportReader) archive(to string) {
	e.expect("nix-archive-1")
	e.node(to)
}

func (e *exportReader) node(to string) {
	e.expect("(", "type")
	switch kind := e.text(); kind {
	case "symlink":
		e.expect("target")
		e.do(func() error { return os.Symlink(e.text(), to) })
		e.expect(")")
	case "regular":
		mode := os.FileMode(0o444)
		key := e.text()
		if key == "executable" {
			e.expect("")
			mode, key = 0o555, e.text()
		}
		var content string
		if key == "contents" {
			content = e.text()
			key = e.text()
		}
		if key != ")" && e.err == nil {
			e.err = fmt.Errorf("%s ends with %q", to, key)
		}
		e.do(func() error { return os.WriteFile(to, []byte(content), mode) })
		e.do(func() error { return os.Chmod(to, mode) }) // whatever the umask is
	case "directory":
		e.do(func() error { return os.Mkdir(to, 0o755) })
		for e.err == nil && e.text() == "entry" {
			e.expect("(", "name")
			name := e.text()
			e.expect("node")
			e.node(filepath.Join(to, name))
			e.expect(")")
		}
		e.do(func() error { return os.Chmod(to, 0o555) })
	default:
		e.do(func() error { return fmt.Errorf("%s is a %q", to, kind) })
	}
}

func (e *exportReader) do(f func() error) {
	if e.err == nil {
		if err := f(); e.err == nil {
			e.err = err
		}
	}
}

func TestStreamIsWhatCPythonPrints(t *testing.T) {
	s := goldenStore(t)
	conf := read(t, "testdata/golden/stream/conf.json")
	var want struct {
		Archive  string   `json:"archive_sha256"`
		Config   string   `json:"config_digest"`
		DiffIDs  []string `json:"diff_ids"`
		Sizes    []int64  `json:"layer_sizes"`
		RepoTags []string `json:"repo_tags"`
	}
	if err := json.Unmarshal(read(t, "testdata/golden/stream/want.json"), &want); err != nil {
		t.Fatal(err)
	}

	var b bytes.Buffer
	if err := s.stream(&b, conf, ""); err != nil {
		t.Fatal(err)
	}
	got := want
	got.Archive, got.DiffIDs, got.Sizes = fmt.Sprintf("%x", sha256.Sum256(b.Bytes())), nil, nil
	var members []string
	for r := tar.NewReader(bytes.NewReader(b.Bytes())); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, h.Name)
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		switch sum := fmt.Sprintf("%x", sha256.Sum256(content)); {
		case strings.HasSuffix(h.Name, "/layer.tar"):
			got.DiffIDs = append(got.DiffIDs, "sha256:"+sum)
			got.Sizes = append(got.Sizes, h.Size)
		case h.Name != "manifest.json":
			got.Config = "sha256:" + sum
			if d := cmp.Diff(string(read(t, "testdata/golden/stream/config.json")), string(content)); d != "" {
				t.Errorf("config: -want +got\n%s", d)
			}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("stream: -want +got\n%s", d)
	}
	if members[len(members)-1] != "manifest.json" {
		t.Errorf("the manifest is not last: %q", members)
	}
}

// A script's argument names the image anew; nothing else changes.
func TestStreamTakesAnotherTag(t *testing.T) {
	s := goldenStore(t)
	conf := filepath.Join(s.root, "conf.json")
	if err := os.WriteFile(conf, read(t, "testdata/golden/stream/conf.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	args := []string{"/nix/store/" + strings.Repeat("a", 32) + "-stream", "/conf.json", "--root", s.root, "--repo_tag", "other:1"}
	if err := run(args, nil, &b); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b.Bytes(), []byte(`"other:1"`)) || bytes.Contains(b.Bytes(), []byte(`"golden:`)) {
		t.Error("the archive is not named other:1 alone")
	}
}

func TestImageJSONIsWhatNix2containerWrites(t *testing.T) {
	tgt := target{out: t.TempDir(), store: goldenStore(t)}
	if err := json.Unmarshal(read(t, "testdata/golden/nix2container/graph.json"), &tgt.graph); err != nil {
		t.Fatal(err)
	}
	const moved = "/nix/store/8knqqhv0y7wqiz9wa78kl7avr9p43ank-root-copy"
	layers, err := tgt.layers(layersSpec{
		CopyToRoot:   []string{moved},
		Perms:        []n2cPermFor{{moved, n2cPerm{Regex: ".*/bin/.*", Mode: "0755", UID: 1001, GID: 1002, Uname: "app", Gname: "staff"}}},
		MaxLayers:    3,
		Reproducible: true,
		Metadata:     n2cHistory{CreatedBy: "golden"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := writeN2C(filepath.Join(tgt.store.root, "layers.json"), layers); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tgt.store.root, "config.json"), read(t, "testdata/golden/nix2container/config.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	tgt.out = filepath.Join(tgt.out, "image.json")
	if err := buildImage(tgt, imageSpec{Config: "/config.json", Layers: []string{"/"}, Arch: "amd64", Created: "2024-05-06T07:08:09Z"}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(read(t, "testdata/golden/nix2container/image.json")), string(read(t, tgt.out))); d != "" {
		t.Errorf("image.json: -want +got\n%s", d)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

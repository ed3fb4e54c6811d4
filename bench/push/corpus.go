package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// makeArchives writes docker-archives svc0.tar, svc1.tar and so on: six shared layers, one of the archive's own. A different
// version changes the own layer.
func makeArchives(dir string, corpus []byte, count, shared, own, version int) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var common [][]byte
	for i := range 6 {
		common = append(common, layer(corpus, i*shared/6, shared/6))
	}
	var files []string
	for i := range count {
		file := filepath.Join(dir, fmt.Sprintf("svc%d.tar", i))
		layers := append(common[:6:6], layer(corpus, shared+1_000_003*(i+100*version), own))
		if err := os.WriteFile(file, archive(layers), 0o644); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// layer is a tar of size bytes of the corpus, from an offset that comes round.
func layer(corpus []byte, offset, size int) []byte {
	content := make([]byte, 0, size)
	for len(content) < size {
		from := (offset + len(content)) % len(corpus)
		content = append(content, corpus[from:min(from+size-len(content), len(corpus))]...)
	}
	return tarOf([]string{fmt.Sprintf("content-%d", offset)}, [][]byte{content})
}

// readCorpus reads what images are made of, programs and text: the files of the Go installation, about 120 MiB of them.
func readCorpus() ([]byte, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	var corpus []byte
	for _, folder := range []string{"bin", "pkg/tool", "src/cmd/compile", "src/net", "src/runtime"} {
		err := filepath.WalkDir(filepath.Join(strings.TrimSpace(string(root)), folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			corpus = append(corpus, text...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(corpus) == 0 {
		return nil, errors.New("the Go installation has no files")
	}
	return corpus, nil
}

func archive(layers [][]byte) []byte {
	var names, ids []string
	for i, l := range layers {
		names = append(names, fmt.Sprintf("%d/layer.tar", i))
		ids = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(l)))
	}
	config, _ := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	manifest, _ := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{}, "Layers": names}})
	return tarOf(append(names, "config.json", "manifest.json"), append(layers[:len(layers):len(layers)], config, manifest))
}

func tarOf(names []string, contents [][]byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b) // into memory: it cannot fail
	for i, name := range names {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(contents[i])), Typeflag: tar.TypeReg})
		w.Write(contents[i])
	}
	w.Close()
	return b.Bytes()
}

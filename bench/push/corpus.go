package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// corpus is what images are made of, programs and text: the files of the Go installation, about 120 MiB of them. Pieces that
// begin elsewhere are other layers, although they have the same words in them.
type corpus []byte

func readCorpus() (corpus, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	var all corpus
	for _, folder := range []string{"bin", "pkg/tool", "src/cmd/compile", "src/net", "src/runtime"} {
		err := filepath.WalkDir(filepath.Join(strings.TrimSpace(string(root)), folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			all = append(all, text...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, errors.New("the Go installation has no files")
	}
	return all, nil
}

// piece is size bytes from an offset that comes round.
func (c corpus) piece(offset, size int) []byte {
	content := make([]byte, 0, size)
	for len(content) < size {
		from := (offset + len(content)) % len(c)
		content = append(content, c[from:min(from+size-len(content), len(c))]...)
	}
	return content
}

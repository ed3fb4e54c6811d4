package nar

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	oracle "github.com/nix-community/go-nix/pkg/nar"
)

// tree is a folder with everything an archive can hold.
func tree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for name, text := range map[string]string{
		"a/empty": "", "a/eight": "12345678", "a/nine": "123456789", "a-b": "sorted by bytes: before a/", "B": "capital", "ü": "two bytes",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "none"), 0o755), os.Chmod(filepath.Join(dir, "B"), 0o555),
		os.Symlink("../nowhere", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, path); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWriteIsWhatNixWrites(t *testing.T) {
	dir := tree(t)
	for _, path := range []string{dir, filepath.Join(dir, "B"), filepath.Join(dir, "a/nine"), filepath.Join(dir, "link"), filepath.Join(dir, "none")} {
		var want bytes.Buffer
		if err := oracle.DumpPath(&want, path); err != nil {
			t.Fatal(err)
		}
		got := write(t, path)
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s: not as go-nix writes it", path)
		}
		text, err := exec.Command("nix-store", "--dump", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, text) {
			t.Errorf("%s: not as nix-store --dump writes it", path)
		}
	}
	if err := Write(io.Discard, filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Write of a missing file = %v", err)
	}
	if err := Write(io.Discard, "/dev/null"); err == nil || !strings.Contains(err.Error(), "is no file, folder or symbolic link") {
		t.Errorf("Write of a device = %v", err)
	}
}

func TestReadFile(t *testing.T) {
	dir := tree(t)
	for name, want := range map[string]string{"a/empty": "", "a/eight": "12345678", "a/nine": "123456789", "B": "capital"} {
		got, err := ReadFile(bytes.NewReader(write(t, filepath.Join(dir, name))), 9)
		if err != nil || string(got) != want {
			t.Errorf("ReadFile(%s) = %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"a", "link"} {
		if _, err := ReadFile(bytes.NewReader(write(t, filepath.Join(dir, name))), 100); !errors.Is(err, ErrNotFile) {
			t.Errorf("ReadFile(%s) = %v, want ErrNotFile", name, err)
		}
	}
	whole := write(t, filepath.Join(dir, "a/nine"))
	if _, err := ReadFile(bytes.NewReader(whole), 8); err == nil {
		t.Error("a file longer than the limit is read")
	}
	for n := range whole {
		if _, err := ReadFile(bytes.NewReader(whole[:n]), 9); err == nil {
			t.Errorf("the first %d of %d bytes are read as a whole", n, len(whole))
		}
	}
	if _, err := ReadFile(bytes.NewReader(append(whole, 0)), 9); err == nil {
		t.Error("a byte after the end is not noticed")
	}
}

// What is read is what would be written: no two archives have one content.
func FuzzReadFile(f *testing.F) {
	f.Add([]byte("\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1\x00\x00\x00"))
	dir := f.TempDir()
	path := filepath.Join(dir, "file")
	seed := func(mode os.FileMode, text string) {
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
			f.Fatal(err)
		}
		var b bytes.Buffer
		if err := Write(&b, path); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	seed(0o444, "text")
	seed(0o755, "12345678")
	f.Fuzz(func(t *testing.T, archive []byte) {
		text, err := ReadFile(bytes.NewReader(archive), 1<<20)
		if err != nil {
			return
		}
		mode := os.FileMode(0o644)
		if bytes.Contains(archive[:min(len(archive), 104)], []byte("executable")) {
			mode = 0o755
		}
		if err := errors.Join(os.WriteFile(path, text, 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		var again bytes.Buffer
		if err := Write(&again, path); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), archive) {
			t.Errorf("%q is read as %q, which is written as %q", archive, text, again.Bytes())
		}
	})
}

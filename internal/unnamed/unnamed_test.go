package unnamed

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestFile(t *testing.T) {
	for name, open := range map[string]func(string) (*os.File, error){"File": File, "removed": removed} {
		dir := t.TempDir()
		f, err := open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		stat, err := f.Stat()
		if err != nil || stat.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, stat.Mode(), err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("%s left %v, %v", name, entries, err)
		}
		if _, err := f.WriteString("kept"); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(io.NewSectionReader(f, 0, 9)); err != nil || string(text) != "kept" {
			t.Errorf("%s reads %q, %v", name, text, err)
		}
		if _, err := open(filepath.Join(dir, "none")); err == nil {
			t.Errorf("%s opened a file where there is no folder", name)
		}
	}
}

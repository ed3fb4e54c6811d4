package evalcache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T) *Folder {
	t.Helper()
	f, err := Open(filepath.Join(t.TempDir(), "made", "on the way"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSaveAndLoad(t *testing.T) {
	f := open(t)
	if data, err := f.Load("a"); data != nil || err != nil {
		t.Errorf("Load of nothing = %q, %v", data, err)
	}
	for _, text := range []string{"first", "second\nline", ""} {
		if err := f.Save("a", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if data, err := f.Load("a"); string(data) != text || data == nil || err != nil {
			t.Errorf("Load = %q, %v, want %q", data, err, text)
		}
	}
	if data, err := f.Load("b"); data != nil || err != nil {
		t.Errorf("Load of another key = %q, %v", data, err)
	}
	if left, _ := filepath.Glob(filepath.Join(f.dir, "*")); len(left) != 1 {
		t.Errorf("the folder has %q", left)
	}
}

func TestDamagedEntriesAreGone(t *testing.T) {
	f := open(t)
	for what, damage := range map[string]func(file string, text []byte) error{
		"cut":     func(file string, text []byte) error { return os.WriteFile(file, text[:len(text)-1], 0o644) },
		"empty":   func(file string, _ []byte) error { return os.WriteFile(file, nil, 0o644) },
		"changed": func(file string, text []byte) error { text[len(text)-1] ^= 1; return os.WriteFile(file, text, 0o644) },
		"of another key": func(file string, _ []byte) error {
			return errors.Join(f.Save("b", []byte("data")), os.Rename(f.file("b"), file))
		},
	} {
		if err := f.Save("a", []byte("data")); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(f.file("a"))
		if err := errors.Join(err, damage(f.file("a"), text)); err != nil {
			t.Fatal(err)
		}
		var damaged *DamagedError
		if data, err := f.Load("a"); data != nil || !errors.As(err, &damaged) {
			t.Errorf("%s: Load = %q, %v, want a DamagedError", what, data, err)
		}
		if data, err := f.Load("a"); data != nil || err != nil {
			t.Errorf("%s: Load once more = %q, %v, want nothing", what, data, err)
		}
	}
}

func TestOldestEntriesMakeRoom(t *testing.T) {
	f := open(t)
	f.max = 1000
	if err := os.WriteFile(filepath.Join(f.dir, "README"), make([]byte, 5000), 0o644); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour)
	for i := range 4 {
		key := fmt.Sprint(i)
		if err := f.Save(key, []byte(strings.Repeat("x", 250))); err != nil {
			t.Fatal(err)
		}
		at := past.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(f.file(key), at, at); err != nil && i > 0 {
			t.Fatal(err)
		}
		f.Load("0") // used all the time
	}
	if err := f.Save("4", []byte("y")); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{"0": true, "1": false, "2": false, "3": true, "4": true} {
		if data, err := f.Load(key); (data != nil) != want || err != nil {
			t.Errorf("entry %s is there: %v (%v), want %v", key, data != nil, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(f.dir, "README")); err != nil {
		t.Errorf("somebody else's file is gone: %v", err)
	}
}

func TestOpenFindsOutWhetherItCanWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "x"), "/proc/flakeship"} {
		if _, err := Open(dir); err == nil {
			t.Errorf("Open(%q) gave no error", dir)
		}
	}
}

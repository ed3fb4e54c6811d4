package substituter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/flakeship/flakeship/internal/nar"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
)

// archive makes the NAR of one file, compressed, and a narinfo of it that names it, signed.
func archive(t *testing.T, text, compression string, key narinfo.SecretKey) (*narinfo.NarInfo, []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var plain, compressed bytes.Buffer
	if err := nar.Write(&plain, file); err != nil {
		t.Fatal(err)
	}
	w, err := Compress(&compressed, compression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(plain.Bytes())
	path, err := storepath.Parse(storepath.Encode(sum[:20]) + "-" + compression)
	if err != nil {
		t.Fatal(err)
	}
	info := &narinfo.NarInfo{StorePath: path, URL: "nar/" + compression + ".nar" + Suffix(compression), Compression: compression,
		NarHash: narinfo.Hash{Algorithm: "sha256", Digest: string(sum[:])}, NarSize: int64(plain.Len())}
	info.Sign(key, storepath.DefaultDir)
	return info, compressed.Bytes()
}

func TestWhatIsWrittenCanBeRead(t *testing.T) {
	server, err := binarycache.Start(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	server.User, server.Password = "ci", "secret"
	for _, url := range []string{strings.Replace(server.URL, "//", "//ci:secret@", 1), "file://" + filepath.Join(t.TempDir(), "new")} {
		c, err := OpenCache(t.Context(), url, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, compression := range Compressions {
			info, compressed := archive(t, "text", compression, ours)
			if is, err := c.HasNar(t.Context(), info); is || err != nil {
				t.Errorf("%s: HasNar before = %v, %v", url, is, err)
			}
			if infos, err := c.NarInfos(t.Context(), []storepath.Path{info.StorePath}); err != nil || infos[0] != nil {
				t.Errorf("%s: NarInfos before = %v, %v", url, infos, err)
			}
			if err := errors.Join(c.PutNar(t.Context(), info.URL, bytes.NewReader(compressed), int64(len(compressed))), c.PutNarInfo(t.Context(), info)); err != nil {
				t.Fatal(err)
			}
			if is, err := c.HasNar(t.Context(), info); !is || err != nil {
				t.Errorf("%s: HasNar = %v, %v", url, is, err)
			}
			if infos, err := c.NarInfos(t.Context(), []storepath.Path{info.StorePath}); err != nil || infos[0].Format(storepath.DefaultDir) != info.Format(storepath.DefaultDir) {
				t.Errorf("%s: NarInfos = %v, %v", url, infos, err)
			}
			set := open(t, Options{}, url)
			if text, err := set.File(t.Context(), info.StorePath, 4); err != nil || string(text) != "text" {
				t.Errorf("%s: File(%s) = %q, %v", url, compression, text, err)
			}
			if text, err := set.File(t.Context(), info.StorePath, 3); err == nil {
				t.Errorf("%s: File(%s) of at most three bytes = %q", url, compression, text)
			}
		}
	}
}

func TestFileIsTheOneThatWasSigned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	c, err := OpenCache(t.Context(), "file://"+dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	info, _ := archive(t, "good", "zstd", ours)
	_, other := archive(t, "evil", "zstd", ours)
	if err := errors.Join(c.PutNarInfo(t.Context(), info), c.PutNar(t.Context(), info.URL, bytes.NewReader(other), int64(len(other)))); err != nil {
		t.Fatal(err)
	}
	text, err := open(t, Options{}, "file://"+dir).File(t.Context(), info.StorePath, 100)
	if text != nil || !errors.As(err, new(*CorruptError)) || !strings.Contains(err.Error(), "its NAR hash is sha256:") {
		t.Errorf("File of another NAR = %q, %v", text, err)
	}
	foreign, _ := archive(t, "foreign", "zstd", theirs)
	if err := c.PutNarInfo(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, Options{}, "file://"+dir).File(t.Context(), foreign.StorePath, 100); err == nil || !strings.Contains(err.Error(), "is signed by theirs-1, which is not trusted") {
		t.Errorf("File without the key = %v", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "nar")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, Options{}, "file://"+dir).File(t.Context(), info.StorePath, 100); !errors.Is(err, ErrNotFound) {
		t.Errorf("File without a NAR = %v", err)
	}
}

func TestOpenCacheRefuses(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	if err := errors.Join(os.Mkdir(other, 0o755), os.WriteFile(filepath.Join(other, "nix-cache-info"), []byte("StoreDir: /other/store\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCache(t.Context(), "file://"+other, Options{}); !errors.As(err, new(*StoreDirError)) {
		t.Errorf("OpenCache for another store = %v", err)
	}
	if _, err := OpenCache(t.Context(), "file:///nowhere?compression=lzma", Options{}); !errors.As(err, new(*URLError)) {
		t.Errorf("OpenCache with an unknown compression = %v", err)
	}
	server, err := binarycache.Start(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := OpenCache(t.Context(), server.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	info, _ := archive(t, "text", "none", ours)
	for status, want := range map[int]any{http.StatusForbidden: new(*DeniedError), http.StatusNotFound: new(*StatusError), http.StatusMethodNotAllowed: new(*StatusError)} {
		server.Fail(&binarycache.Fault{Status: status, Methods: []string{http.MethodPut}})
		if err := c.PutNarInfo(t.Context(), info); !errors.As(err, want) || !strings.HasPrefix(err.Error(), "PUT http://127.0.0.1:") {
			t.Errorf("PUT with status %d = %v", status, err)
		}
	}
	// A cache without HEAD is asked with GET.
	server.Fail(&binarycache.Fault{Status: http.StatusMethodNotAllowed, Methods: []string{http.MethodHead}})
	if is, err := c.HasNar(t.Context(), info); is || err != nil {
		t.Errorf("HasNar without HEAD = %v, %v", is, err)
	}
	// A hiccup is passed over.
	server.Fail(&binarycache.Fault{Status: http.StatusServiceUnavailable, Match: regexp.MustCompile("nar/"), Times: 2, Header: http.Header{"Retry-After": {"0"}}})
	if err := c.PutNar(context.Background(), info.URL, strings.NewReader("x"), 1); err != nil {
		t.Errorf("PUT with two hiccups = %v", err)
	}
}

package upload_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/nar"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/substituter"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
	"github.com/flakeship/flakeship/internal/upload"
)

// world is a store with a closure in it, and a cache that is empty.
//
//	app -> tool -> lib
//	app -> lib; lib refers to itself
type world struct {
	t     *testing.T
	root  string // the store's files are below it
	temp  string
	cache *binarycache.Cache
	url   string
	key   narinfo.SecretKey

	closure        []*narinfo.NarInfo
	app, tool, lib *narinfo.NarInfo

	mu    sync.Mutex
	loses func(*http.Request) bool // what the cache answers 201 to and forgets; nil: nothing
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, root: t.TempDir(), temp: t.TempDir(), key: secret(t, "ours-1", 1)}
	var err error
	if w.cache, err = binarycache.New(filepath.Join(t.TempDir(), "cache")); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		lost := w.loses != nil && w.loses(r)
		w.mu.Unlock()
		if lost {
			rw.WriteHeader(http.StatusCreated)
			return
		}
		// Who has read the body notices that the client went away.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		w.cache.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	w.url = server.URL
	w.lib = w.put("lib")
	w.lib.References = []storepath.Path{w.lib.StorePath}
	w.tool = w.put("tool", w.lib)
	w.app = w.put("app", w.tool, w.lib)
	w.closure = []*narinfo.NarInfo{w.app, w.lib, w.tool}
	return w
}

func secret(t *testing.T, name string, seed byte) narinfo.SecretKey {
	t.Helper()
	key := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), ed25519.SeedSize)))
	s, err := narinfo.ParseSecretKey(name + ":" + base64.StdEncoding.EncodeToString(key))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put makes a store path with one file, as the store describes it.
func (w *world) put(name string, refs ...*narinfo.NarInfo) *narinfo.NarInfo {
	w.t.Helper()
	sum := sha256.Sum256([]byte(name))
	p, err := storepath.Parse(storepath.Encode(sum[:20]) + "-" + name)
	if err != nil {
		w.t.Fatal(err)
	}
	file := w.physical(storepath.DefaultDir.Join(p))
	text := []byte("this is " + name + "\n")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, text, 0o644)); err != nil {
		w.t.Fatal(err)
	}
	hash, counted := sha256.New(), &strings.Builder{}
	if err := errors.Join(nar.Write(hash, file), nar.Write(counted, file)); err != nil {
		w.t.Fatal(err)
	}
	info := &narinfo.NarInfo{StorePath: p, Compression: "none", NarHash: narinfo.Hash{Algorithm: "sha256", Digest: string(hash.Sum(nil))}, NarSize: int64(counted.Len())}
	for _, ref := range refs {
		info.References = append(info.References, ref.StorePath)
	}
	info.SortReferences()
	return info
}

func (w *world) physical(storePath string) string { return w.root + storePath }

// uploader copies to the world's cache, as a new run does; the options may be changed first.
func (w *world) uploader(change func(*upload.Options)) *upload.Uploader {
	w.t.Helper()
	to, err := substituter.OpenCache(w.t.Context(), w.url, substituter.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	o := upload.Options{To: to, Key: &w.key, Physical: w.physical, Temp: w.temp}
	if change != nil {
		change(&o)
	}
	return upload.New(o)
}

// copied copies the closure and expects that to go well.
func (w *world) copied() upload.Stats {
	w.t.Helper()
	u := w.uploader(nil)
	if err := u.Closure(w.t.Context(), w.closure); err != nil {
		w.t.Fatal(err)
	}
	return u.Stats()
}

// described reads a path's narinfo from the cache's folder; nil: there is none.
func (w *world) described(info *narinfo.NarInfo) *narinfo.NarInfo {
	w.t.Helper()
	text, err := os.ReadFile(w.file(info))
	if os.IsNotExist(err) {
		return nil
	}
	got, parseErr := narinfo.Parse(string(text), storepath.DefaultDir)
	if err = errors.Join(err, parseErr); err != nil {
		w.t.Fatal(err)
	}
	return got
}

func (w *world) file(info *narinfo.NarInfo) string {
	return filepath.Join(w.cache.Dir, info.StorePath.Hash()+".narinfo")
}

// puts are the names of what was written since the last call, in order.
func (w *world) puts() (names []string) {
	for _, r := range w.cache.Requests() {
		if r.Method == http.MethodPut && r.Status == http.StatusCreated {
			names = append(names, strings.TrimPrefix(r.Path, "/"))
		}
	}
	return names
}

// whole checks that everything in the cache is signed, has its NAR and what it refers to, and that nothing is left in Temp.
func (w *world) whole(paths int) {
	w.t.Helper()
	files, _ := filepath.Glob(filepath.Join(w.cache.Dir, "*.narinfo"))
	if len(files) != paths {
		w.t.Errorf("%d narinfos in the cache, want %d", len(files), paths)
	}
	for _, info := range w.closure {
		got := w.described(info)
		if got == nil {
			continue
		}
		if _, err := got.Trust(storepath.DefaultDir, []narinfo.PublicKey{w.key.Public()}); err != nil {
			w.t.Error(err)
		}
		for _, ref := range got.References {
			if _, err := os.Stat(filepath.Join(w.cache.Dir, ref.Hash()+".narinfo")); err != nil {
				w.t.Errorf("%s refers to what is not there: %v", got.StorePath, err)
			}
		}
		if _, err := os.Stat(filepath.Join(w.cache.Dir, got.URL)); err != nil {
			w.t.Errorf("%s: %v", got.StorePath, err)
		}
	}
	if left, _ := os.ReadDir(w.temp); len(left) > 0 {
		w.t.Errorf("left in Temp: %v", left)
	}
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within a minute", what)
		}
	}
}

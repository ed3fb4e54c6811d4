package substituter

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
)

// ours signs the caches of the tests, theirs is a key nobody trusts.
var ours, theirs = newKey("ours-1"), newKey("theirs-1")

func newKey(name string) narinfo.SecretKey {
	seed := sha256.Sum256([]byte(name))
	key, err := narinfo.ParseSecretKey(name + ":" + base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed[:])))
	if err != nil {
		panic(err)
	}
	return key
}

// path is the store path of a name: its hash is made up of it.
func path(name string) storepath.Path {
	p, err := storepath.DefaultDir.Make("source", sha256.Sum256([]byte(name)), name)
	if err != nil {
		panic(err)
	}
	return p
}

// info describes the path of a name, signed by key (the zero key: unsigned), referring to the paths of other names.
func info(key narinfo.SecretKey, name string, refs ...string) *narinfo.NarInfo {
	hash, _ := narinfo.ParseHash(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name))))
	n := &narinfo.NarInfo{StorePath: path(name), URL: "nar/" + path(name).Hash() + ".nar", Compression: "none",
		FileSize: 100, NarHash: hash, NarSize: 1000}
	for _, ref := range refs {
		n.References = append(n.References, path(ref))
	}
	n, err := narinfo.Parse(n.Format(storepath.DefaultDir), storepath.DefaultDir) // sorts the references
	if err != nil {
		panic(err)
	}
	if key.String() != (narinfo.SecretKey{}).String() {
		n.Sign(key, storepath.DefaultDir)
	}
	return n
}

// folder is a binary cache on disk.
type folder struct {
	t   testing.TB
	dir string
}

func newFolder(t testing.TB) folder {
	f := folder{t, t.TempDir()}
	f.write("nix-cache-info", "StoreDir: /nix/store")
	return f
}

func (f folder) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f folder) add(infos ...*narinfo.NarInfo) folder {
	f.t.Helper()
	for _, n := range infos {
		f.write(n.StorePath.Hash()+".narinfo", n.Format(storepath.DefaultDir))
	}
	return f
}

// edit replaces text in one narinfo.
func (f folder) edit(name, old, new string) folder {
	f.t.Helper()
	file := path(name).Hash() + ".narinfo"
	b, err := os.ReadFile(filepath.Join(f.dir, file))
	if err != nil || !strings.Contains(string(b), old) {
		f.t.Fatalf("%s: no %q to replace: %v", name, old, err)
	}
	f.write(file, strings.ReplaceAll(string(b), old, new))
	return f
}

func (f folder) serve() *binarycache.Server {
	f.t.Helper()
	srv, err := binarycache.Start(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(srv.Close)
	return srv
}

// open opens a set that trusts our key.
func open(t testing.TB, o Options, urls ...string) *Set {
	t.Helper()
	o.Keys = []narinfo.PublicKey{ours.Public()}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	s, err := Open(t.Context(), urls, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// check asks for the paths of names.
func check(t testing.TB, s *Set, names ...string) []Verdict {
	t.Helper()
	var paths []storepath.Path
	for _, name := range names {
		paths = append(paths, path(name))
	}
	return s.Check(t.Context(), paths)
}

package image

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/flakeship/flakeship/internal/handoff"
)

// A layer has the same key wherever it is used, without a look at the store; whatever changes its bytes changes the key.
func TestLayerKeys(t *testing.T) {
	store := handoff.Store{Dir: "/nix/store", Root: t.TempDir()}
	var conf map[string]any
	if err := json.Unmarshal([]byte(baseConf), &conf); err != nil {
		t.Fatal(err)
	}
	script := onBase(t, store)
	keyOf := func(change func()) string {
		t.Helper()
		change()
		text, err := json.Marshal(conf)
		if err != nil {
			t.Fatal(err)
		}
		const name = "/nix/store/dddddddddddddddddddddddddddddddd-a-conf.json"
		if err := os.Remove(store.Root + name); err != nil { // it is read-only
			t.Fatal(err)
		}
		put(t, store, name, string(text), 0o444)
		img := open(t, script, store)
		for i, l := range img.Layers {
			// A base image's layers have a digest, those of store paths a key, and the one on top, which Nix has made, both.
			top := i == len(img.Layers)-1
			if known, keyed := l.DiffID.Hex != "", l.Key != ""; known == keyed && !(top && known) {
				t.Errorf("layer %d has digest %q and key %q", i+1, l.DiffID, l.Key)
			}
		}
		return img.Layers[2].Key
	}
	const pinned = "sha256:09f317264de61107cd69836bc059841c705b63ae0cd4565724e57cc7b0a259c0"
	first := keyOf(func() {})
	if first != pinned {
		t.Errorf("key = %s, want %s: layers that are in registries are not recognised any more", first, pinned)
	}
	if same := keyOf(func() { conf["repo_tag"], conf["architecture"] = "other:tag", "amd64" }); same != first {
		t.Error("the key depends on the image")
	}
	seen := map[string]string{first: "the first"}
	for name, change := range map[string]func(){
		"mtime": func() { conf["mtime"] = "1970-01-01T00:00:07Z" },
		"uid":   func() { conf["uid"] = "7" },
		"uname": func() { conf["uname"] = "bob" },
		"paths": func() { conf["store_layers"] = [][]string{{"/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-one"}} },
	} {
		key := keyOf(change)
		if other, twice := seen[key]; twice {
			t.Errorf("%s has the key of %s", name, other)
		}
		seen[key] = name
	}
}

// The conf.json alone is as good as the script for who asks for nothing but names.
func TestStreamByItsConf(t *testing.T) {
	store := goldenStore(t)
	script := open(t, goldenScript(t, store), store)
	alone := filepath.Join(t.TempDir(), "conf.json")
	if err := os.WriteFile(alone, golden(t, "stream/conf.json"), 0o444); err != nil {
		t.Fatal(err)
	}
	img := open(t, alone, handoff.Store{Dir: store.Dir, Root: t.TempDir()})
	if img.Family != handoff.Stream || img.Platform.String() != script.Platform.String() || len(img.Layers) != len(script.Layers) {
		t.Fatalf("%s for %s with %d layers", img.Family, img.Platform, len(img.Layers))
	}
	for i, l := range img.Layers {
		if other := script.Layers[i]; l.Key == "" || l.Key != other.Key || l.Name != other.Name {
			t.Errorf("layer %d is %q with key %q, of the script %q with %q", i+1, l.Name, l.Key, other.Name, other.Key)
		}
		if err := l.WriteTar(io.Discard); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("layer %d without its store path: %v", i+1, err)
		}
	}
	ids, _ := writeAll(t, script)
	if config, err := img.Config(ids); err != nil || string(config) != string(golden(t, "stream/config.json")) {
		t.Errorf("config = %s, %v", config, err)
	}
	// Where the store is, the layers can be written.
	if again, _ := writeAll(t, open(t, alone, store)); !slices.Equal(again, ids) {
		t.Errorf("layers %v, want %v", again, ids)
	}
	base := filepath.Join(t.TempDir(), "base-conf.json")
	if err := os.WriteFile(base, []byte(baseConf), 0o444); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(base, Options{Store: store}); !errors.As(err, new(*NotImageError)) {
		t.Errorf("the conf.json of an image with a base image: %v", err)
	}
}

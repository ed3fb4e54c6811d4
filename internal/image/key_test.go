package image

import (
	"encoding/json"
	"os"
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
			if known := l.DiffID.Hex != ""; known == (l.Key != "") {
				t.Errorf("layer %d has digest %q and key %q: want one of the two", i+1, l.DiffID, l.Key)
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

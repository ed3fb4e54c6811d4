package nix

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flakeship/flakeship/internal/evalcache"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

// find evaluates and settles; a reused evaluation needs no settling.
func find(t *testing.T, n *Nix, q Query) (e *Evaluation, embed []string) {
	t.Helper()
	e, err := n.Images(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	embed, err = n.Settle(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return e, embed
}

func openCache(t *testing.T) (*evalcache.Folder, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "plan-cache")
	f, err := evalcache.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f, dir
}

func TestEvaluationsAreReusedForTheSameTree(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{"api": `image "api" "" {}`, "web": `image "web" "" {}`})
	cache, _ := openCache(t)
	q := Query{Flake: dir, Cache: cache, Attributes: []string{"api", "nope"}}
	first, embed := find(t, n, q)
	if first.Reused || len(embed) > 0 || len(first.Images) != 1 {
		t.Fatalf("first: %+v, embed %v", first, embed)
	}
	commit := nixstore.Commit(t, dir) // another, with the same tree
	again, _ := find(t, n, q)
	if !again.Reused || again.Commit != commit {
		t.Errorf("a commit of the same tree: reused %v, commit %s, want %s", again.Reused, again.Commit, commit)
	}
	if diff := cmp.Diff(first, again, cmpopts.IgnoreUnexported(Evaluation{}), cmpopts.IgnoreFields(Evaluation{}, "Reused", "Commit", "Flake")); diff != "" {
		t.Errorf("reused (-first +again):\n%s", diff)
	}
	if err := n.Instantiate(t.Context(), again.Flake, again.Images); err != nil || !n.Exists(again.Images[0].DrvPath) {
		t.Errorf("Instantiate of %s: %v", again.Flake.Locked, err)
	}

	other := q
	other.Attributes = []string{"*"}
	if e, _ := find(t, n, other); e.Reused || len(e.Images) != 2 {
		t.Errorf("other attributes: reused %v, %d images", e.Reused, len(e.Images))
	}
	write(t, filepath.Join(dir, "README"), "changed")
	if e, _ := find(t, n, q); !e.Reused {
		t.Error("a file that git does not know keeps the evaluation from being reused")
	}
	commit = nixstore.Commit(t, dir)
	if e, _ := find(t, n, q); e.Reused || e.Commit != commit {
		t.Errorf("another tree: reused %v", e.Reused)
	}
	write(t, filepath.Join(dir, "README"), "dirty")
	if e, _ := find(t, n, q); e.Reused || !warned(e, "plan-cache is not used") {
		t.Errorf("a dirty tree: reused %v, warnings %q", e.Reused, e.Warnings)
	}
	if e, err := n.Images(t.Context(), Query{Flake: "path:" + dir, Cache: cache}); err != nil || e.Reused || !warned(e, "plan-cache is not used") {
		t.Errorf("no git repository: %+v, %v", e, err)
	}
}

func TestDamagedEntryIsEvaluatedAgain(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{"api": `image "api" "" {}`})
	cache, folder := openCache(t)
	q := Query{Flake: dir, Cache: cache}
	find(t, n, q)
	files, _ := filepath.Glob(filepath.Join(folder, "*"))
	if len(files) != 1 {
		t.Fatalf("the cache has %q", files)
	}
	write(t, files[0], "nonsense")
	if e, _ := find(t, n, q); e.Reused || !warned(e, "is damaged") {
		t.Errorf("a damaged entry: reused %v, warnings %q", e.Reused, e.Warnings)
	}
	if e, _ := find(t, n, q); !e.Reused {
		t.Error("the entry was not replaced")
	}
}

// An image with the commit in it is another for each commit: no earlier evaluation will do, and no cache has it.
func TestImagesThatEmbedTheCommit(t *testing.T) {
	n, store := open(t)
	dir := flake(t, store, map[string]string{
		"plain": `image "plain" "" {}`,
		"rev":   `image "rev" "echo ${self.shortRev or "dirty"}" {}`,
		"deep":  `image "deep" "" { dep = mk "lib" "" { inherit (self) lastModifiedDate; }; }`,
		"count": `image "count" "" { n = self.revCount or 0; }`,
	})
	nixstore.Commit(t, dir)
	want := []string{"packages.x86_64-linux.count", "packages.x86_64-linux.deep", "packages.x86_64-linux.rev"}
	cache, _ := openCache(t)
	for _, q := range []Query{{Flake: dir}, {Flake: dir, Cache: cache}} {
		if _, embed := find(t, n, q); !slices.Equal(embed, want) {
			t.Errorf("cache %v: the commit is in %v, want %v", q.Cache != nil, embed, want)
		}
	}
	q := Query{Flake: dir, Cache: cache}
	if e, embed := find(t, n, q); !e.Reused || !slices.Equal(embed, want) {
		t.Errorf("the same commit: reused %v, the commit is in %v, want %v", e.Reused, embed, want)
	}
	nixstore.Commit(t, dir)
	if e, _ := find(t, n, q); e.Reused {
		t.Error("the evaluation of another commit was reused")
	}
}

func TestUnlockedInputsAreNotKept(t *testing.T) {
	n, store := open(t)
	input := nixstore.Flake(t, filepath.Join(store.Dir, "input"), map[string]string{})
	dir := writeFlake(t, store, `{
  inputs.other.url = "git+file://`+input+`";
  outputs = { self, other }: { packages.x86_64-linux.api = derivation { name = "x"; system = "x86_64-linux"; builder = "x"; } // { imageName = "x"; }; };
}`)
	cache, _ := openCache(t)
	q := Query{Flake: dir, Cache: cache}
	e, err := n.Images(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Settle(t.Context(), e); err == nil || !strings.Contains(err.Error(), "flake.lock") {
		t.Errorf("Settle = %v, want an error about flake.lock", err)
	}
	store.Nix(t, "flake", "lock", dir)
	nixstore.Commit(t, dir)
	find(t, n, q)
	if e, _ := find(t, n, q); !e.Reused {
		t.Error("a locked flake was evaluated again")
	}
}

// The forms a checkout has in CI: shallow, a work tree beside its repository, a flake below the top folder.
func TestFormsOfCheckouts(t *testing.T) {
	n, store := open(t)
	top := filepath.Join(store.Dir, "repo")
	nixstore.Flake(t, filepath.Join(top, "nix", "images"), map[string]string{"api": `image "api" "" { src = ./.; }`})
	os.RemoveAll(filepath.Join(top, "nix", "images", ".git"))
	nixstore.Commit(t, top)
	commit := nixstore.Commit(t, top)
	shallow, beside := filepath.Join(store.Dir, "shallow"), filepath.Join(store.Dir, "beside")
	for _, args := range [][]string{{"clone", "-q", "--depth=1", "file://" + top, shallow}, {"-C", top, "worktree", "add", "-q", "--detach", beside}} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	drv := ""
	for _, dir := range []string{top, shallow, beside} {
		cache, _ := openCache(t)
		for _, ref := range []string{dir + "/nix/images", "git+file://" + dir + "?dir=nix/images"} {
			if dir == shallow && ref != dir+"/nix/images" {
				ref += "&shallow=1"
			}
			q := Query{Flake: ref, Cache: cache}
			e, _ := find(t, n, q)
			again, _ := find(t, n, q)
			if e.Commit != commit || len(e.Images) != 1 || !again.Reused || again.Commit != commit {
				t.Fatalf("%s: %+v, then reused %v", ref, e, again.Reused)
			}
			if drv == "" {
				drv = e.Images[0].DrvPath
			}
			if got := e.Images[0].DrvPath; got != drv {
				t.Errorf("%s: derivation %s, elsewhere %s", ref, got, drv)
			}
			os.RemoveAll(n.Physical(drv))
			if err := n.Instantiate(t.Context(), again.Flake, again.Images); err != nil {
				t.Errorf("%s: Instantiate of %s: %v", ref, again.Flake.Locked, err)
			}
		}
	}
}

func warned(e *Evaluation, part string) bool {
	return slices.ContainsFunc(e.Warnings, func(w string) bool { return strings.Contains(w, part) })
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

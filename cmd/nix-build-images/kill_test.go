package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/testenv/binarycache"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

// The binary is killed at ten random moments of building and copying, each time with a new store and cache. Whatever is in the
// cache then can be fetched; and the next run gets everything there.
func TestKilledAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"nix-cache-check", "nix-build-images"} {
		if out, err := exec.Command("go", "build", "-o", dir, "../"+name).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	packages := map[string]string{}
	const images = 5
	for i := range images {
		name := fmt.Sprintf("app-%d", i)
		packages[name] = fmt.Sprintf(`image %q ''busybox sleep 0.%d; echo '{ "version": 1, "arch": "amd64", "layers": [], "note": "'$dep'" }' > $out'' { dep = mk "dep-%d" "echo $lib > $out" { lib = mk "lib" "head -c 300000 /dev/urandom > $out" {}; }; }`, name, i, i)
	}
	flake := nixstore.Flake(t, filepath.Join(dir, "flake"), packages)

	random := rand.New(rand.NewPCG(1, 2))
	var whole time.Duration // a run that nobody kills
	for round := range 11 {
		store := nixstore.At(t, filepath.Join(dir, fmt.Sprint("store-", round)), "max-jobs = 2")
		temp := filepath.Join(store.Dir, "temp")
		if err := os.Mkdir(temp, 0o755); err != nil {
			t.Fatal(err)
		}
		key := filepath.Join(store.Dir, "secret")
		store.Command(t, "nix-store", "--generate-binary-cache-key", "ours-1", key, key+".public")
		cache, err := binarycache.Start(filepath.Join(store.Dir, "binary-cache"))
		if err != nil {
			t.Fatal(err)
		}
		plan := filepath.Join(store.Dir, "plan.json")
		command := func(name string, args ...string) *exec.Cmd {
			cmd := exec.Command(filepath.Join(dir, name), args...)
			cmd.Env = append(store.Env, "RUNNER_TEMP="+temp, "TMPDIR="+temp)
			return cmd
		}
		if out, err := command("nix-cache-check", "--flake", flake, "--out", plan).CombinedOutput(); err != nil {
			t.Fatalf("nix-cache-check: %v\n%s", err, out)
		}
		build := func() *exec.Cmd {
			return command("nix-build-images", "--plan", plan, "--copy-to", cache.URL, "--signing-key-file", key)
		}
		if round > 0 {
			after := time.Duration(random.Int64N(int64(whole)))
			victim := build()
			if err := victim.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			victim.Process.Kill()
			victim.Wait()
			t.Logf("killed after %s of %s: %d paths in the cache", after.Round(time.Millisecond), whole.Round(time.Millisecond), complete(t, cache.Dir))
		}
		start := time.Now()
		if out, err := build().CombinedOutput(); err != nil || !strings.Contains(string(out), fmt.Sprintf("; %d copied to ", images)) {
			t.Fatalf("the next run: %v\n%s", err, out)
		}
		if round == 0 {
			whole = time.Since(start)
		}
		if paths := complete(t, cache.Dir); paths != 2*images+1 {
			t.Errorf("%d paths in the cache, want each image, what it names and the library", paths)
		}
		left, _ := filepath.Glob(filepath.Join(temp, "flakeship-*"))
		if text, err := exec.Command("grep", "-rlF", strings.TrimPrefix(string(readAll(t, key)), "ours-1:"), temp).Output(); err == nil {
			left = append(left, string(text))
		}
		if len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		cache.Close()
		if err := store.Remove(); err != nil {
			t.Error(err)
		}
	}
}

// complete counts the paths in a cache. Each has its NAR, a signature, and all that it refers to.
func complete(t *testing.T, dir string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.narinfo"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		info, err := narinfo.Parse(string(readAll(t, file)), "/nix/store")
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if stat, err := os.Stat(filepath.Join(dir, info.URL)); err != nil || stat.Size() == 0 {
			t.Errorf("%s: no NAR: %v", info.StorePath, err)
		}
		if len(info.Sigs) == 0 {
			t.Errorf("%s is not signed", info.StorePath)
		}
		for _, ref := range info.References {
			if _, err := os.Stat(filepath.Join(dir, ref.Hash()+".narinfo")); err != nil {
				t.Errorf("%s refers to %s, which is not there", info.StorePath, ref)
			}
		}
	}
	return len(files)
}

func readAll(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

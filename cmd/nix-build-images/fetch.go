package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/nix"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/substituter"
)

// maxFile is the longest file that is fetched alone: a list of layers. For a longer one there is Nix.
const maxFile = 8 << 20

// fetchFiles fetches those images of which a push needs no more than the file that describes them, as the plan says, and returns where
// the files are, by output path. What cannot be had this way is left to Nix, which fetches the closure as well.
func fetchFiles(ctx context.Context, env *action.Env, n *nix.Nix, in *inputs) map[string]string {
	wanted := map[string]string{} // files by output path
	for _, img := range in.plan.Images {
		if img.Fetch == handoff.FetchFile && in.fileWillDo(env, img) && !n.Exists(img.OutPath) {
			wanted[img.OutPath] = cmp.Or(img.File, img.OutPath)
		}
	}
	files := map[string]string{}
	if len(wanted) == 0 {
		return files
	}
	dir := filepath.Join(tempDir(env), "flakeship", "files")
	set, err := openCaches(ctx, env, n, in)
	if err = errors.Join(err, os.MkdirAll(dir, 0o755)); err != nil {
		env.Debugf("no file is fetched alone: %v", err)
		return files
	}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(16)
	for out, path := range wanted {
		group.Go(func() error {
			file, err := fetchFile(ctx, set, storepath.Dir(n.Settings.StoreDir), path, dir)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				env.Debugf("%s is fetched with its closure, not alone: %v", out, err)
			} else {
				files[out] = file
			}
			return nil
		})
	}
	group.Wait()
	return files
}

// fileWillDo says whether nothing but the push needs an image here.
func (in *inputs) fileWillDo(env *action.Env, img handoff.PlannedImage) bool {
	if slices.Contains(env.List("attest"), "sbom") {
		return false // it lists the closure
	}
	if img.Family == handoff.Stream && env.Bool("signed") {
		return false // what a registry says of its layers is not to be signed
	}
	// A copy needs the closure, unless those who fetch have it from where it is.
	return in.copyTo == nil || slices.ContainsFunc(append(in.lacking, in.copyTo.String()), func(url string) bool { return sameCache(url, img.Cache) })
}

func fetchFile(ctx context.Context, set *substituter.Set, store storepath.Dir, path, dir string) (string, error) {
	p, err := store.Parse(path)
	if err != nil {
		return "", err
	}
	text, err := set.File(ctx, p, maxFile)
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, ".fetched-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(text)
	file := filepath.Join(dir, p.String())
	if err = errors.Join(err, f.Chmod(0o444), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	return file, err
}

// openCaches opens the caches that the plan rests on.
func openCaches(ctx context.Context, env *action.Env, n *nix.Nix, in *inputs) (*substituter.Set, error) {
	o, err := cacheOptions(env, n, in)
	if err != nil {
		return nil, err
	}
	return substituter.Open(ctx, in.plan.Substituters, o)
}

// tempDir is where what later steps read is kept, as long as the runner keeps its temporary folder.
func tempDir(env *action.Env) string {
	if temp := env.Getenv("RUNNER_TEMP"); temp != "" {
		return temp
	}
	return os.TempDir()
}

// sameCache says whether two URLs are of one cache, whatever their credentials and settings.
func sameCache(a, b string) bool {
	return cacheName(a) == cacheName(b)
}

func cacheName(text string) string {
	name, _, _ := strings.Cut(text, "?")
	scheme, rest, _ := strings.Cut(name, "://")
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		rest = rest[at+1:]
	}
	return fmt.Sprintf("%s://%s", scheme, strings.TrimRight(rest, "/"))
}

// Command check measures nix-cache-check against what the installed Nix offers for the same question: which of a flake's images
// does the cache have? Each way starts from a flake that was not evaluated yet, an empty store and cold caches.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

func main() {
	log.SetFlags(0)
	images := flag.String("images", "10,100,1000,10000", "images in the flake; every second one is in the cache")
	delays := flag.String("delays", "0,20ms,100ms", "time the cache takes for each answer")
	runs := flag.Int("runs", 3, "times each way is measured, up to 1000 images; the median counts")
	flag.Parse()
	dir, err := os.MkdirTemp("", "flakeship-check-")
	must(err)
	defer os.RemoveAll(dir)
	binary := build(dir)

	fmt.Println("Every second image in the cache; seconds with evaluation, times ours in brackets.")
	fmt.Println()
	fmt.Println("| images | per answer | nix-cache-check | peak | `nix eval`, `nix-store --realise --dry-run` | `nix eval --read-only`, `nix path-info --store` |")
	fmt.Println("|---|---|---|---|---|---|")
	for text := range strings.SplitSeq(*images, ",") {
		n, err := strconv.Atoi(text)
		must(err)
		b := newBench(filepath.Join(dir, text), binary, n)
		for text := range strings.SplitSeq(*delays, ",") {
			b.cache.delay, err = time.ParseDuration(text)
			must(err)
			b.row(*runs)
		}
		b.close()
	}
}

// bench is one flake and its cache.
type bench struct {
	dir, binary string
	images      int
	url, key    string
	cache       *cache
	server      *http.Server
	cached      int
	peak        int64 // KiB that nix-cache-check took at most
}

func newBench(dir, binary string, images int) *bench {
	b := &bench{dir: dir, binary: binary, images: images, cache: &cache{files: map[string]string{}}}
	b.writeFlake()
	b.fill()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	b.url = "http://" + listener.Addr().String()
	b.server = &http.Server{Handler: b.cache}
	go b.server.Serve(listener)
	return b
}

func (b *bench) close() { b.server.Close() }

// longest is how long nix path-info may take, which asks for one path after the other.
const longest = 30 * time.Second

// row measures each way at the cache's delay.
func (b *bench) row(runs int) {
	if b.images > 1000 {
		runs = 1
	}
	ours := b.median(runs, b.check)
	// Whatever is measured, this has to hold.
	if gets, heads := b.cache.gets.Load(), b.cache.heads.Load(); gets != int64(b.images)+1 || heads != 0 {
		log.Fatalf("%d GET and %d HEAD for %d images", gets, heads, b.images)
	}
	stock := func(runs int, do func(*nixstore.Store)) string {
		took := b.median(runs, do)
		return fmt.Sprintf("%.2f (%.1f)", took.Seconds(), took.Seconds()/ours.Seconds())
	}
	pathInfo := ""
	if time.Duration(b.images)*(b.cache.delay+time.Millisecond) < longest {
		pathInfo = stock(1, b.pathInfo)
	}
	fmt.Printf("| %d | %s | %.2f | %d MiB | %s | %s |\n", b.images, b.cache.delay, ours.Seconds(), b.peak>>10, stock(runs, b.dryRun), pathInfo)
}

func (b *bench) median(runs int, do func(*nixstore.Store)) time.Duration {
	var took []time.Duration
	for range runs {
		took = append(took, b.measure(do))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// cache is a binary cache in memory, as far away as delay says.
type cache struct {
	delay       time.Duration
	files       map[string]string
	gets, heads atomic.Int64
}

func (c *cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		c.heads.Add(1)
	} else {
		c.gets.Add(1)
	}
	time.Sleep(c.delay)
	text, ok := c.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	fmt.Fprint(w, text)
}

func build(dir string) string {
	binary := filepath.Join(dir, "nix-cache-check")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, "./cmd/nix-cache-check")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	must(cmd.Run())
	return binary
}

func (b *bench) flake() string { return filepath.Join(b.dir, "flake") }

func (b *bench) writeFlake() {
	must(os.MkdirAll(b.flake(), 0o755))
	text := fmt.Sprintf(`{
  outputs = { self }: {
    packages.x86_64-linux = builtins.listToAttrs (builtins.genList (i: rec {
      name = "image-${toString i}";
      value = derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo ${name} > $out" ]; }
        // { imageName = name; };
    }) %d);
  };
}
`, b.images)
	must(os.WriteFile(filepath.Join(b.flake(), "flake.nix"), []byte(text), 0o644))
	for _, line := range []string{"init -q -b main", "add -A", "-c user.name=bench -c user.email=bench@example.org commit -q -m bench"} {
		must(exec.Command("git", append([]string{"-C", b.flake()}, strings.Fields(line)...)...).Run())
	}
}

// fill puts every second image's narinfo into the cache, signed by a key of the bench's own.
func (b *bench) fill() {
	seed := sha256.Sum256([]byte("bench"))
	secret, err := narinfo.ParseSecretKey("bench-1:" + base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed[:])))
	must(err)
	b.key = secret.Public().String()
	b.cache.files["/nix-cache-info"] = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"
	store := b.store()
	defer store.Remove()
	paths := b.eval(store, "outPath", "--read-only")
	for i, name := range slices.Sorted(maps.Keys(paths)) {
		if i%2 == 1 {
			continue
		}
		p, err := storepath.DefaultDir.Parse(paths[name])
		must(err)
		hash, err := narinfo.ParseHash(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name))))
		must(err)
		n := &narinfo.NarInfo{StorePath: p, URL: "nar/" + p.Hash() + ".nar", Compression: "none", NarHash: hash, NarSize: 160}
		n.Sign(secret, storepath.DefaultDir)
		b.cache.files["/"+p.Hash()+".narinfo"] = n.Format(storepath.DefaultDir)
		b.cached++
	}
}

func (b *bench) store() *nixstore.Store {
	dir, err := os.MkdirTemp(b.dir, "store-")
	must(err)
	store, err := nixstore.Make(dir, "substituters = "+b.url, "trusted-public-keys = "+b.key)
	must(err)
	return store
}

// measure gives do an empty store and returns how long it took.
func (b *bench) measure(do func(*nixstore.Store)) time.Duration {
	store := b.store()
	defer store.Remove()
	b.cache.gets.Store(0)
	b.cache.heads.Store(0)
	start := time.Now()
	do(store)
	return time.Since(start)
}

func (b *bench) check(store *nixstore.Store) {
	cmd, out := run(store, b.binary, "--flake", b.flake(), "--out", filepath.Join(store.Dir, "plan.json"))
	if want := fmt.Sprintf(`"cached":%d,`, b.cached); !strings.Contains(out, want) {
		log.Fatalf("nix-cache-check does not say %s:\n%s", want, out)
	}
	b.peak = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss // its own, Nix's is not in it
}

func (b *bench) dryRun(store *nixstore.Store) {
	drvs := slices.Collect(maps.Values(b.eval(store, "drvPath")))
	run(store, "nix-store", append([]string{"--realise", "--dry-run"}, drvs...)...)
}

func (b *bench) pathInfo(store *nixstore.Store) {
	paths := slices.Collect(maps.Values(b.eval(store, "outPath", "--read-only")))
	_, out := run(store, "nix", append([]string{"path-info", "--json", "--store", b.url}, paths...)...)
	if n := strings.Count(out, `"narHash"`); n != b.cached {
		log.Fatalf("nix path-info knows %d of %d paths", n, b.cached)
	}
}

// eval returns an attribute of each image, by name.
func (b *bench) eval(store *nixstore.Store, attr string, flags ...string) map[string]string {
	args := append([]string{"eval", "--json", b.flake() + "#packages.x86_64-linux", "--apply", "builtins.mapAttrs (_: d: d." + attr + ")"}, flags...)
	var values map[string]string
	_, out := run(store, "nix", args...)
	must(json.Unmarshal([]byte(out), &values))
	return values
}

func run(store *nixstore.Store, name string, args ...string) (*exec.Cmd, string) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(store.Env, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1", "GITHUB_OUTPUT=")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		log.Fatalf("%s: %v\n%s", name, err, stderr.String())
	}
	return cmd, string(out)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

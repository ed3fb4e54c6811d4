// Command eval measures what nix-cache-check adds to an evaluation: of attributes of which one throws against a bare nix eval of all
// the others, and with a plan-cache that has the tree. No cache and no registry is asked.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

func main() {
	log.SetFlags(0)
	images := flag.Int("images", 500, "attributes; one of them throws")
	work := flag.Int("work", 10000, "additions each attribute evaluates; an image of nixpkgs costs far more")
	runs := flag.Int("runs", 5, "times each way is measured; the median counts")
	flag.Parse()
	dir, err := os.MkdirTemp("", "flakeship-eval-")
	must(err)
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "nix-cache-check")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, "./cmd/nix-cache-check")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	must(build.Run())

	store, err := nixstore.Make(dir)
	must(err)
	defer store.Remove()
	broken := writeFlake(filepath.Join(dir, "broken"), *images, *work, true)
	good := writeFlake(filepath.Join(dir, "good"), *images-1, *work, false)
	check := func(flake string, flags ...string) func() {
		return func() {
			cmd := exec.Command(binary, append([]string{"--flake", flake, "--out", filepath.Join(dir, "plan.json")}, flags...)...)
			out, err := run(cmd, store)
			if failed := err != nil; failed != (flake == broken) || !strings.Contains(out, fmt.Sprintf("%d missing", *images-1)) {
				log.Fatalf("nix-cache-check: %v\n%s", err, out)
			}
		}
	}
	fmt.Printf("%d attributes, %d additions each, %d processors\n", *images, *work, runtime.GOMAXPROCS(0))
	fmt.Printf("%-60s %9s %7s\n", "", "seconds", "ratio")
	ways := []struct {
		name string
		do   func()
		took []time.Duration
	}{
		{name: "nix eval --read-only, without the one that throws", do: func() {
			cmd := exec.Command("nix", "eval", "--json", "--read-only", "--option", "eval-cache", "false", good+"#packages.x86_64-linux",
				"--apply", "builtins.mapAttrs (_: d: { drv = d.drvPath; out = builtins.unsafeDiscardStringContext d.outPath; name = d.imageName; })")
			if out, err := run(cmd, store); err != nil {
				log.Fatalf("nix eval: %v\n%s", err, out)
			}
		}},
		{name: "nix-cache-check, eval-workers 1, one throws", do: check(broken, "--eval-workers", "1")},
		{name: "nix-cache-check, one throws", do: check(broken)},
		{name: "nix-cache-check, none throws", do: check(good)},
		{name: "nix-cache-check, plan-cache has the tree", do: check(good, "--plan-cache", filepath.Join(dir, "kept"))},
	}
	for round := range *runs + 1 { // in turn: the machine is the same for all, however busy it is
		for i := range ways {
			start := time.Now()
			ways[i].do()
			if round > 0 { // before, files are read for the first time, and plan-cache gets its entry
				ways[i].took = append(ways[i].took, time.Since(start))
			}
		}
	}
	var bare time.Duration
	for _, way := range ways {
		slices.Sort(way.took)
		median := way.took[len(way.took)/2]
		if bare == 0 {
			bare = median
		}
		fmt.Printf("%-60s %9.2f %7.2f\n", way.name, median.Seconds(), float64(median)/float64(bare))
	}
}

func writeFlake(dir string, images, work int, throws bool) string {
	must(os.MkdirAll(dir, 0o755))
	broken := ""
	if throws {
		images-- // so many are good
		broken = fmt.Sprintf(` // { image-%d-broken = throw "this one is broken"; }`, images/2)
	}
	text := fmt.Sprintf(`{
  outputs = { self }: {
    packages.x86_64-linux = builtins.listToAttrs (builtins.genList (i: rec {
      name = "image-${toString i}";
      value = derivation {
        inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo ${name} > $out" ];
        sum = builtins.foldl' (a: b: a + b) i (builtins.genList (x: x) %d);
      } // { imageName = name; };
    }) %d)%s;
  };
}
`, work, images, broken)
	must(os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(text), 0o644))
	for _, line := range []string{"init -q -b main", "add -A", "-c user.name=bench -c user.email=bench@example.org commit -q -m bench"} {
		must(exec.Command("git", append([]string{"-C", dir}, strings.Fields(line)...)...).Run())
	}
	return dir
}

func run(cmd *exec.Cmd, store *nixstore.Store) (string, error) {
	cmd.Env = append(store.Env, "GITHUB_OUTPUT=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Command copy measures nix-build-images with copy-to beside the stock way to have the same in a cache: nix build of all images,
// then nix copy, signed, with the same compression. Each run has a new store and a new cache, which is a server in this process.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/testenv/binarycache"
	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

const (
	images = 12
	jobs   = 2
	runs   = 3
	layer  = 12 << 20 // bytes of each image's own layer, which do not compress
	// distance is how long the cache takes for each answer.
	distance = 20 * time.Millisecond
)

func main() {
	log.SetFlags(0)
	if err := measure(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func measure(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "flakeship-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"nix-cache-check", "nix-build-images"} {
		if out, err := exec.Command("go", "build", "-o", dir, "./cmd/"+name).CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	if err := writeFlake(filepath.Join(dir, "flake")); err != nil {
		return err
	}
	if out, err := exec.Command("nix-store", "--generate-binary-cache-key", "bench-1", filepath.Join(dir, "secret"), filepath.Join(dir, "public")).CombinedOutput(); err != nil {
		return fmt.Errorf("make a key: %w\n%s", err, out)
	}
	var ours, stock, after []time.Duration
	for run := range runs {
		m, err := newMachine(ctx, dir, fmt.Sprintf("ours-%d", run))
		if err != nil {
			return err
		}
		took, late, err := m.ours(ctx)
		if err != nil {
			return err
		}
		ours, after = append(ours, took), append(after, late)
		m.close()
		if m, err = newMachine(ctx, dir, fmt.Sprintf("stock-%d", run)); err != nil {
			return err
		}
		if took, err = m.stock(ctx); err != nil {
			return err
		}
		stock = append(stock, took)
		m.close()
	}
	a, b, c := median(ours), median(stock), median(after)
	fmt.Printf("%d images of 0.5 to 2 s, each with a layer of %d MiB, %d jobs, a cache %s away, median of %d runs\n", images, layer>>20, jobs, distance, runs)
	fmt.Printf("%-38s %6.2f s   1.00   %.2f s of it after the last build, %.1f %%\n", "nix-build-images with copy-to", a.Seconds(), c.Seconds(), 100*c.Seconds()/(a-c).Seconds())
	fmt.Printf("%-38s %6.2f s   %.2f\n", "nix build of all, then nix copy", b.Seconds(), b.Seconds()/a.Seconds())
	return nil
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// machine is a new store in which only the derivations are, and a new cache.
type machine struct {
	dir, plan string
	store     *nixstore.Store
	cache     *binarycache.Server
	drvs      []string
	outs      []string
}

func newMachine(ctx context.Context, dir, name string) (*machine, error) {
	store, err := nixstore.Make(filepath.Join(dir, name), fmt.Sprintf("max-jobs = %d", jobs))
	if err != nil {
		return nil, err
	}
	cache, err := binarycache.Start(filepath.Join(dir, name, "served"))
	if err != nil {
		return nil, err
	}
	cache.Fail(&binarycache.Fault{Delay: distance})
	m := &machine{dir: dir, plan: filepath.Join(dir, name, "plan.json"), store: store, cache: cache}
	if _, err := m.run(ctx, filepath.Join(dir, "nix-cache-check"), "--flake", "path:"+filepath.Join(dir, "flake"), "--out", m.plan); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(m.plan)
	if err != nil {
		return nil, err
	}
	var plan struct {
		Images []struct{ DrvPath, OutPath string }
	}
	if err := json.Unmarshal(text, &plan); err != nil {
		return nil, err
	}
	for _, img := range plan.Images {
		m.drvs, m.outs = append(m.drvs, img.DrvPath), append(m.outs, img.OutPath)
	}
	// The derivations are written, which both ways need.
	_, err = m.run(ctx, "nix", "build", "--dry-run", "path:"+filepath.Join(dir, "flake")+"#image-00", "path:"+filepath.Join(dir, "flake")+"#all")
	return m, err
}

func (m *machine) close() {
	m.cache.Close()
	m.store.Remove()
	os.RemoveAll(m.cache.Dir)
}

func (m *machine) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(m.store.Env, "RUNNER_TEMP="+m.store.Dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, out)
	}
	return string(out), nil
}

var lateness = regexp.MustCompile(`; over ([0-9.]+) s after the last build`)

func (m *machine) ours(ctx context.Context) (took, after time.Duration, err error) {
	start := time.Now()
	out, err := m.run(ctx, filepath.Join(m.dir, "nix-build-images"), "--plan", m.plan, "--copy-to", m.cache.URL, "--signing-key-file", filepath.Join(m.dir, "secret"))
	took = time.Since(start)
	if err != nil {
		return 0, 0, err
	}
	found := lateness.FindStringSubmatch(out)
	if found == nil || !strings.Contains(out, fmt.Sprintf("; %d copied to ", images)) {
		return 0, 0, fmt.Errorf("not all was copied:\n%s", out)
	}
	seconds, err := strconv.ParseFloat(found[1], 64)
	return took, time.Duration(seconds * float64(time.Second)), err
}

func (m *machine) stock(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	if _, err := m.run(ctx, "nix", append([]string{"build", "--no-link", "--keep-going"}, installables(m.drvs)...)...); err != nil {
		return 0, err
	}
	to := m.cache.URL + "?compression=zstd&secret-key=" + filepath.Join(m.dir, "secret")
	_, err := m.run(ctx, "nix", append([]string{"copy", "--to", to}, m.outs...)...)
	return time.Since(start), err
}

// installables are all outputs of derivations; ^ is an error before 2.13 and needed since 2.15.
func installables(drvs []string) []string {
	banner, _ := exec.Command("nix", "--version").Output()
	if strings.Contains(string(banner), " 2.8.") {
		return drvs
	}
	var all []string
	for _, drv := range drvs {
		all = append(all, drv+"^*")
	}
	return all
}

func writeFlake(dir string) error {
	var b strings.Builder
	fmt.Fprintf(&b, `{
  outputs = { self }: let
    system = "x86_64-linux";
    mk = name: script: more: derivation ({ inherit name system; builder = "/bin/sh"; args = [ "-c" script ]; PATH = "/bin"; } // more);
    image = name: seconds: let
      layer = mk "layer-${name}" "busybox sleep ${seconds}; busybox head -c %d /dev/urandom > $out" { };
    in mk "image-${name}" "echo '{ \"version\": 1, \"arch\": \"amd64\", \"layers\": [] }' $layer | busybox sed 's|\\} \\(.*\\)|, \"note\": \"\\1\" }|' > $out" { inherit layer; } // { imageName = name; };
  in {
    packages.${system} = rec {
      all = mk "all" "echo $images > $out" { images = builtins.attrValues (builtins.removeAttrs self.packages.${system} [ "all" ]); };
`, layer)
	for i := range images {
		fmt.Fprintf(&b, "      image-%02d = image \"image-%02d\" \"%.1f\";\n", i, i, 0.5+1.5*float64(i*5%images)/float64(images-1))
	}
	b.WriteString("    };\n  };\n}\n")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(b.String()), 0o644)
}

// Command build measures nix-build-images beside the stock ways to build the same images: one `nix build` of all of them, and
// one `nix build` process per image, two at a time, as nix-fast-build starts them. Each run has a new store. The images' builders
// sleep, so what is compared is what the tools add.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flakeship/flakeship/internal/testenv/nixstore"
)

const (
	images = 20
	jobs   = 2
	runs   = 3
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
	ways := []struct {
		name  string
		build func(context.Context, *machine) error
		took  []time.Duration
	}{
		{name: "nix-build-images", build: ours},
		{name: "one nix build of all", build: together},
		{name: fmt.Sprintf("one nix build per image, %d at a time", jobs), build: apart},
	}
	for run := range runs {
		for i := range ways {
			m, err := newMachine(ctx, dir, fmt.Sprintf("store-%d-%d", run, i))
			if err != nil {
				return err
			}
			start := time.Now()
			if err := ways[i].build(ctx, m); err != nil {
				return fmt.Errorf("%s: %w", ways[i].name, err)
			}
			ways[i].took = append(ways[i].took, time.Since(start))
			if err := m.store.Remove(); err != nil {
				return err
			}
		}
	}
	fmt.Printf("%d images of 0.2 to 1 s on one shared dependency of 1 s, %d jobs, median of %d runs\n", images, jobs, runs)
	for _, w := range ways {
		slices.Sort(w.took)
		fmt.Printf("%-42s %6.2f s   %.2f\n", w.name, w.took[runs/2].Seconds(), w.took[runs/2].Seconds()/ways[0].took[runs/2].Seconds())
	}
	return nil
}

// machine is a new store in which there is nothing but the flake.
type machine struct {
	dir, plan string
	store     *nixstore.Store
	attrs     []string // flake references of the images
}

func newMachine(ctx context.Context, dir, name string) (*machine, error) {
	store, err := nixstore.Make(filepath.Join(dir, name), fmt.Sprintf("max-jobs = %d", jobs))
	if err != nil {
		return nil, err
	}
	m := &machine{dir: dir, plan: filepath.Join(dir, name, "plan.json"), store: store}
	if err := m.run(ctx, filepath.Join(dir, "nix-cache-check"), "--flake", "path:"+filepath.Join(dir, "flake"), "--out", m.plan); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(m.plan)
	if err != nil {
		return nil, err
	}
	var plan struct{ Images []struct{ Attr string } }
	if err := json.Unmarshal(text, &plan); err != nil {
		return nil, err
	}
	for _, img := range plan.Images {
		m.attrs = append(m.attrs, "path:"+filepath.Join(dir, "flake")+"#"+img.Attr)
	}
	return m, nil
}

func (m *machine) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(m.store.Env, "RUNNER_TEMP="+m.store.Dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, out)
	}
	return nil
}

func ours(ctx context.Context, m *machine) error {
	return m.run(ctx, filepath.Join(m.dir, "nix-build-images"), "--plan", m.plan)
}

func together(ctx context.Context, m *machine) error {
	return m.run(ctx, "nix", append([]string{"build", "--no-link", "--keep-going"}, m.attrs...)...)
}

func apart(ctx context.Context, m *machine) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	for _, attr := range m.attrs {
		group.Go(func() error {
			return m.run(ctx, "nix", "build", "--no-link", "--keep-going", "--log-format", "internal-json", "-v", attr)
		})
	}
	return group.Wait()
}

func writeFlake(dir string) error {
	var b strings.Builder
	b.WriteString(`{
  outputs = { self }: let
    system = "x86_64-linux";
    mk = name: script: more: derivation ({ inherit name system; builder = "/bin/sh"; args = [ "-c" script ]; PATH = "/bin"; } // more);
    shared = mk "shared" "busybox sleep 1; echo > $out" { };
    image = name: seconds: mk "image-${name}" "busybox sleep ${seconds}; echo '{ \"version\": 1, \"arch\": \"amd64\", \"layers\": [], \"note\": \"'$shared ${name}'\" }' > $out" { inherit shared; } // { imageName = name; };
  in {
    packages.${system} = {
`)
	for i := range images {
		fmt.Fprintf(&b, "      image-%02d = image \"image-%02d\" \"%.1f\";\n", i, i, 0.2+0.8*float64(i*7%images)/float64(images-1))
	}
	b.WriteString("    };\n  };\n}\n")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(b.String()), 0o644)
}

// Command startup builds the four binaries as a release does and prints their size and how long `--help` takes.
package main

import (
	"debug/elf"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

func main() {
	log.SetFlags(0)
	dir, err := os.MkdirTemp("", "flakeship-startup-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	const runs = 50
	fmt.Printf("%-18s %10s %10s %10s %8s\n", "binary", "MB", "fastest", "median", "static")
	for _, name := range []string{"nix-cache-check", "nix-build-images", "push-images", "deploy-manifests"} {
		path := filepath.Join(dir, name)
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", path, "./cmd/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			log.Fatalf("build %s: %v", name, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			log.Fatal(err)
		}
		var took []time.Duration
		for range runs {
			begin := time.Now()
			if err := exec.Command(path, "--help").Run(); err != nil {
				log.Fatalf("%s --help: %v", name, err)
			}
			took = append(took, time.Since(begin))
		}
		slices.Sort(took)
		fmt.Printf("%-18s %10.1f %10s %10s %8v\n", name, float64(info.Size())/1e6,
			took[0].Round(100*time.Microsecond), took[runs/2].Round(100*time.Microsecond), static(path))
	}
}

// static says whether the binary needs no dynamic loader.
func static(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

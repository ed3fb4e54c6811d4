// Command startup builds the four binaries as a release does and prints their size and how long `--help` takes: by itself, and as a
// runner starts it, which is a bash with the `run:` line of an action.yml, the launcher, and the binary. What the launcher path costs is
// the difference of the medians.
package main

import (
	"debug/elf"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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

	checkout, err := tagged(dir)
	if err != nil {
		log.Fatal(err)
	}
	const runs = 50
	fmt.Printf("%-18s %6s %7s %9s %9s %9s %9s %9s\n", "binary", "MB", "static", "fastest", "median", "launched", "median", "launcher")
	for _, name := range []string{"nix-cache-check", "nix-build-images", "push-images", "deploy-manifests"} {
		path := filepath.Join(checkout, "dist", runtime.GOOS+"-"+runtime.GOARCH, name)
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
		// A runner writes the line to a file; nobody's bashrc is read.
		line := filepath.Join(dir, "line.sh")
		if err := os.WriteFile(line, []byte(`"$GITHUB_ACTION_PATH/../launch.sh" `+name+" --help\n"), 0o600); err != nil {
			log.Fatal(err)
		}
		env := append(os.Environ(), "GITHUB_ACTION_PATH="+filepath.Join(checkout, "actions", name))
		var alone, launched []time.Duration
		for range runs { // in turns, so that both see the same machine
			alone = append(alone, took(env, path, "--help"))
			launched = append(launched, took(env, "bash", "--noprofile", "--norc", "-e", "-o", "pipefail", line))
		}
		slices.Sort(alone)
		slices.Sort(launched)
		fmt.Printf("%-18s %6.1f %7v %9s %9s %9s %9s %9s\n", name, float64(info.Size())/1e6, static(path),
			short(alone[0]), short(alone[runs/2]), short(launched[0]), short(launched[runs/2]), short(launched[runs/2]-alone[runs/2]))
	}
}

// tagged makes a folder like the checkout of a release, without its binaries.
func tagged(dir string) (string, error) {
	launcher, err := os.ReadFile(filepath.Join("actions", "launch.sh"))
	if err != nil {
		return "", err
	}
	for _, name := range []string{"nix-cache-check", "nix-build-images", "push-images", "deploy-manifests"} {
		if err := os.MkdirAll(filepath.Join(dir, "actions", name), 0o755); err != nil {
			return "", err
		}
	}
	return dir, os.WriteFile(filepath.Join(dir, "actions", "launch.sh"), launcher, 0o755)
}

func took(env []string, name string, args ...string) time.Duration {
	cmd := exec.Command(name, args...)
	cmd.Env = env
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		log.Fatalf("%s %v: %v", name, args, err)
	}
	return time.Since(begin)
}

func short(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

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

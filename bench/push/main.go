// Command push measures push-images against skopeo: archives that share layers go to Debian's docker-registry, each push from
// a runner that has never seen them. It prints seconds, requests and bytes; both tools pass the same counter.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	images := flag.Int("images", 10, "archives")
	shared := flag.Int("shared", 50, "MiB that all archives share, in six layers")
	own := flag.Int("own", 10, "MiB of each archive's own layer")
	flag.Parse()
	dir, err := os.MkdirTemp("", "flakeship-bench-push-")
	if err != nil {
		log.Fatal(err)
	}
	err = run(dir, *images, *shared<<20, *own<<20)
	os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
}

// tool pushes archives to a registry.
type tool struct {
	name string
	push func(home, host string, archives []string) error
}

func run(dir string, images, shared, own int) error {
	binary := filepath.Join(dir, "push-images")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, "./cmd/push-images")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build push-images: %w\n%s", err, out)
	}
	fmt.Printf("%d archives of %d MiB, %d MiB of it shared; docker-registry on loopback; a fresh runner each time\n\n", images, (shared+own)>>20, shared>>20)
	corpus, err := readCorpus()
	if err != nil {
		return err
	}
	archives, err := makeArchives(dir, corpus, images, shared, own, 0)
	if err != nil {
		return err
	}
	changed, err := makeArchives(filepath.Join(dir, "changed"), corpus, 1, shared, own, 1)
	if err != nil {
		return err
	}
	oneChanged := append(changed, archives[1:]...)

	fmt.Printf("%-14s %-12s %9s %9s %10s\n", "", "", "seconds", "requests", "MiB sent")
	results := map[string]map[string]result{}
	for _, t := range []tool{{"skopeo", skopeo}, {"push-images", func(home, host string, archives []string) error { return ours(binary, home, host, archives) }}} {
		server, err := serve(filepath.Join(dir, "registry-of-"+t.name))
		if err != nil {
			return err
		}
		for _, scenario := range []struct {
			name     string
			archives []string
		}{{"cold", archives}, {"unchanged", archives}, {"one changed", oneChanged}} {
			r, err := measure(t, filepath.Join(dir, "home"), server, scenario.archives)
			if err != nil {
				server.stop()
				return fmt.Errorf("%s, %s: %w", t.name, scenario.name, err)
			}
			fmt.Printf("%-14s %-12s %9.2f %9d %10.1f\n", scenario.name, t.name, r.seconds, r.requests, r.mib)
			if results[scenario.name] == nil {
				results[scenario.name] = map[string]result{}
			}
			results[scenario.name][t.name] = r
		}
		server.stop()
	}
	fmt.Println()
	for _, scenario := range []string{"cold", "unchanged", "one changed"} {
		theirs, ours := results[scenario]["skopeo"], results[scenario]["push-images"]
		fmt.Printf("%-12s %5.1f times faster than skopeo, %.1f MiB sent instead of %.1f\n", scenario, theirs.seconds/ours.seconds, ours.mib, theirs.mib)
	}
	return nil
}

type result struct {
	seconds, mib float64
	requests     int64
}

// measure pushes from an empty home folder.
func measure(t tool, home string, s *server, archives []string) (result, error) {
	if err := os.RemoveAll(home); err != nil {
		return result{}, err
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return result{}, err
	}
	s.reset()
	begin := time.Now()
	err := t.push(home, s.host, archives)
	return result{time.Since(begin).Seconds(), float64(s.bytes.Load()) / (1 << 20), s.requests.Load()}, err
}

// skopeo copies one archive after the other, as its users do; its cache of what it sent lives in home.
func skopeo(home, host string, archives []string) error {
	for _, archive := range archives {
		args := []string{"skopeo", "copy", "--quiet", "--dest-tls-verify=false", "docker-archive:" + archive, "docker://" + host + "/" + nameOf(archive) + ":latest"}
		if os.Geteuid() == 0 {
			// Root's cache is in /var/lib; without being root it is in home.
			args = append([]string{"unshare", "--user"}, args...)
		}
		if err := command(home, args); err != nil {
			return err
		}
	}
	return nil
}

func ours(binary, home, host string, archives []string) error {
	var images []string
	for _, archive := range archives {
		images = append(images, nameOf(archive)+":latest="+archive)
	}
	return command(home, []string{binary, "--registry", host, "--image", strings.Join(images, "\n"), "--out", filepath.Join(home, "push.json")})
}

// command runs a tool that has nothing but home.
func command(home string, args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "RUNNER_TEMP=" + home, "TMPDIR=" + home, "XDG_RUNTIME_DIR=" + home}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", args[0], err, out)
	}
	return nil
}

// nameOf is the image name of an archive: its file name without the extension.
func nameOf(archive string) string { return strings.TrimSuffix(filepath.Base(archive), ".tar") }

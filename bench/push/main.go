// Command push measures push-images against skopeo and crane: images go to Debian's docker-registry, on loopback and a round
// trip of 20 ms away, each push from a runner that has never seen them. It prints seconds, requests, bytes and the largest
// process; all tools pass the same counter.
//
// skopeo and crane read docker-archives only. A streamLayeredImage's script has to be run for them, which imagetool does here,
// quicker than Python; of a nix2container image they get an archive of the same layers, made before the clock starts.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	shared := flag.Int("shared", 249, "MiB that all archives share, in six layers")
	own := flag.Int("own", 13, "MiB of each archive's own layer")
	many := flag.Int("many", 50, "archives of the part many; the first has 17")
	parts := flag.String("parts", "archives,many,stream,nix2container", "what is measured")
	withCrane := flag.Bool("crane", true, "also crane, on the 17 archives; it takes minutes")
	flag.Parse()
	dir, err := os.MkdirTemp("", "flakeship-bench-push-")
	if err != nil {
		log.Fatal(err)
	}
	err = run(dir, strings.Split(*parts, ","), *shared<<20, *own<<20, *many, *withCrane)
	os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
}

// tool pushes images to a registry.
type tool struct {
	name string
	push func(r *runner, host string, images []item) error
}

func run(dir string, wanted []string, shared, own, many int, withCrane bool) error {
	ours, err := build(dir, "push-images", "-ldflags", "-s -w", "./cmd/push-images")
	if err != nil {
		return err
	}
	imagetool, err := build(dir, "imagetool", "./internal/testenv/imagetool")
	if err != nil {
		return err
	}
	both := []tool{{"skopeo", func(r *runner, host string, images []item) error { return skopeo(r, imagetool, host, images) }}, {"push-images", func(r *runner, host string, images []item) error { return pushImages(r, ours, host, images) }}}
	all := both
	if withCrane {
		crane, err := build(dir, "crane", "-modfile", "tools/go.mod", "github.com/google/go-containerregistry/cmd/crane")
		if err != nil {
			return err
		}
		all = append(both[:2:2], tool{"crane", func(r *runner, host string, images []item) error { return craneEach(r, crane, host, images) }})
	}
	c, err := readCorpus()
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		make func(dir string) (dataset, error)
	}{
		{"archives", func(dir string) (dataset, error) { return archives(dir, c, 17, shared, own) }},
		{"many", func(dir string) (dataset, error) { return archives(dir, c, many, shared, own) }},
		{"stream", func(dir string) (dataset, error) { return stream(dir, c, 100, 26<<20/10) }},
		{"nix2container", func(dir string) (dataset, error) { return nix2container(dir, c, 5, 16, 10<<20) }},
	} {
		if !slices.Contains(wanted, part.name) {
			continue
		}
		data := filepath.Join(dir, "data")
		d, err := part.make(data)
		if err != nil {
			return err
		}
		for _, rtt := range []time.Duration{0, 20 * time.Millisecond} {
			tools := both
			if part.name == "archives" && rtt == 0 {
				tools = all
			}
			if err := compare(dir, d, rtt, tools); err != nil {
				return err
			}
		}
		if err := os.RemoveAll(data); err != nil {
			return err
		}
	}
	return nil
}

// build makes a tool; the arguments are those of go build after -o.
func build(dir, name string, args ...string) (string, error) {
	path := filepath.Join(dir, name)
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-buildvcs=false", "-o", path}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// result is what one push took.
type result struct {
	seconds, mib float64
	cpu          float64 // seconds
	requests     int64
	rss          int64 // MiB of the largest process
}

// compare lets each tool push a dataset cold, unchanged and with one image changed.
func compare(dir string, d dataset, rtt time.Duration, tools []tool) error {
	fmt.Printf("%s; round trip %s\n\n%-12s %-12s %9s %9s %9s %10s %8s\n", d.name, rtt, "", "", "seconds", "of CPU", "requests", "MiB sent", "MiB RSS")
	scenarios := []string{"cold", "unchanged", "one changed"}
	results := map[string]map[string]result{"cold": {}, "unchanged": {}, "one changed": {}}
	for _, t := range tools {
		files := filepath.Join(dir, "registry")
		s, err := serve(files, rtt)
		if err != nil {
			return err
		}
		for _, scenario := range scenarios {
			images := d.images
			if scenario == "one changed" {
				images = append([]item{d.changed}, images[1:]...)
			}
			r, err := measure(t, filepath.Join(dir, "home"), s, images)
			if err != nil {
				s.stop()
				return fmt.Errorf("%s, %s: %w", t.name, scenario, err)
			}
			fmt.Printf("%-12s %-12s %9.2f %9.2f %9d %10.2f %8d\n", scenario, t.name, r.seconds, r.cpu, r.requests, r.mib, r.rss)
			results[scenario][t.name] = r
		}
		s.stop()
		if err := os.RemoveAll(files); err != nil {
			return err
		}
	}
	fmt.Println()
	for _, scenario := range scenarios {
		ours := results[scenario]["push-images"]
		for _, t := range tools {
			if theirs := results[scenario][t.name]; t.name != "push-images" {
				fmt.Printf("%-12s %5.1f times faster than %s, %.2f MiB sent instead of %.2f\n", scenario, theirs.seconds/ours.seconds, t.name, ours.mib, theirs.mib)
			}
		}
	}
	fmt.Println()
	return nil
}

// runner is a machine that has nothing but a home folder.
type runner struct {
	home string
	rss  int64 // KiB of the largest process so far
	cpu  time.Duration
}

// measure pushes from an empty home folder.
func measure(t tool, home string, s *server, images []item) (result, error) {
	if err := os.RemoveAll(home); err != nil {
		return result{}, err
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return result{}, err
	}
	s.reset()
	r := &runner{home: home}
	begin := time.Now()
	err := t.push(r, s.host, images)
	return result{time.Since(begin).Seconds(), float64(s.bytes.Load()) / (1 << 20), r.cpu.Seconds(), s.requests.Load(), r.rss >> 10}, err
}

// run runs a program; its output goes to a file when one is named.
func (r *runner) run(output string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.home, "RUNNER_TEMP=" + r.home, "TMPDIR=" + r.home, "XDG_RUNTIME_DIR=" + r.home}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if output != "" {
		f, err := os.Create(output)
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.Stdout = f
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for r.sample(cmd.Process.Pid) {
			time.Sleep(10 * time.Millisecond)
		}
	}()
	err := cmd.Wait()
	<-over
	r.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", args[0], err, &out)
	}
	return nil
}

// sample reads the largest size a process has had, until it is gone. The kernel's own count at its end is no use: it begins
// with the size of the process that started it.
func (r *runner) sample(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, found := strings.Cut(string(text), "VmHWM:")
	if err != nil || !found {
		return false // a process that has ended has no memory
	}
	var kib int64
	fmt.Sscan(rest, &kib)
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if own, _ := os.Executable(); err == nil && name != own { // before exec it is a copy of this one
		r.rss = max(r.rss, kib)
	}
	return true
}

// skopeo copies one archive after the other, as its users do; its cache of what it sent lives in home.
func skopeo(r *runner, imagetool, host string, images []item) error {
	for _, i := range images {
		if i.script != nil {
			i.archive = filepath.Join(r.home, i.name+".tar")
			if err := r.run(i.archive, append([]string{imagetool}, i.script[1:]...)...); err != nil {
				return err
			}
		}
		args := []string{"skopeo", "copy", "--quiet", "--dest-tls-verify=false", "docker-archive:" + i.archive, "docker://" + host + "/" + i.name + ":latest"}
		if os.Geteuid() == 0 {
			// Root's cache is in /var/lib; without being root it is in home.
			args = append([]string{"unshare", "--user"}, args...)
		}
		if err := r.run("", args...); err != nil {
			return err
		}
	}
	return nil
}

func craneEach(r *runner, crane, host string, images []item) error {
	for _, i := range images {
		if err := r.run("", crane, "push", "--insecure", i.archive, host+"/"+i.name+":latest"); err != nil {
			return err
		}
	}
	return nil
}

func pushImages(r *runner, binary, host string, images []item) error {
	var list []string
	for _, i := range images {
		list = append(list, i.name+":latest="+i.path)
	}
	return r.run("", binary, "--registry", host, "--image", strings.Join(list, "\n"), "--out", filepath.Join(r.home, "push.json"))
}

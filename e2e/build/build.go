// Package build makes the programs that the tests and the demo run and keeps
// them in a versioned folder, so that the Kubernetes control plane is compiled
// once, not once per run.
//
// The folder is $FLAKESHIP_E2E_CACHE or flakeship/e2e in the user's cache
// folder, with one subfolder per content of go.mod, go.sum, sources and version
// of Go. Programs of other versions are removed after two weeks without use.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// servicesSources are the packages of this module that the services program is made of.
var servicesSources = []string{"cmd/services", "env/registryserver", "env/traffic", "process", "runner/artifact", "runner/task"}

// Services returns the path of the services program (see cmd/services), making
// it first when its sources changed. Progress goes to progress, which may be nil.
func Services(ctx context.Context, progress io.Writer) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	flags, err := versionFlags(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", err
	}
	return program{
		name: "services", title: "test services (etcd, Kubernetes, KWOK, registry, Gitea runner)",
		dir: root, pkg: "./cmd/services",
		sources: append([]string{"go.mod", "go.sum"}, servicesSources...),
		ldflags: "-s -w " + flags,
	}.build(ctx, progress)
}

// Act returns the path of act, the GitHub-like runner, making it first when
// its version changed.
func Act(ctx context.Context, progress io.Writer) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	return program{
		name: "act", title: "act",
		dir: filepath.Join(root, "act"), pkg: "github.com/nektos/act",
		sources: []string{"go.mod", "go.sum"},
		ldflags: "-s -w",
	}.build(ctx, progress)
}

// GiteaAct returns the path of Gitea's fork of act, which its runners were built on up to version 0.4, making it first when
// its version changed.
func GiteaAct(ctx context.Context, progress io.Writer) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	return program{
		name: "giteaact", title: "act, Gitea's fork",
		dir: filepath.Join(root, "giteaact"), pkg: "github.com/nektos/act",
		sources: []string{"go.mod", "go.sum"},
		ldflags: "-s -w",
	}.build(ctx, progress)
}

// Cosign returns the path of cosign, which verifies signatures, making it first
// when its version changed.
func Cosign(ctx context.Context, progress io.Writer) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	return program{
		name: "cosign", title: "cosign",
		dir: filepath.Join(root, "cosign"), pkg: "github.com/sigstore/cosign/v3/cmd/cosign",
		sources: []string{"go.mod", "go.sum"},
		ldflags: "-s -w",
	}.build(ctx, progress)
}

// S3 returns the path of versitygw, an S3 server, making it first when its
// version changed.
func S3(ctx context.Context, progress io.Writer) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	return program{
		name: "versitygw", title: "S3 server",
		dir: filepath.Join(root, "s3"), pkg: "github.com/versity/versitygw/cmd/versitygw",
		sources: []string{"go.mod", "go.sum"},
		ldflags: "-s -w",
	}.build(ctx, progress)
}

// Root is the folder of the e2e module, found from the working directory: it
// is that folder, above it, or the e2e folder of one above.
func Root() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		for _, candidate := range []string{dir, filepath.Join(dir, "e2e")} {
			text, err := os.ReadFile(filepath.Join(candidate, "go.mod"))
			if err == nil && strings.Contains(string(text), "\nmodule github.com/flakeship/flakeship/e2e\n") {
				return candidate, nil
			}
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside the flakeship repository", wd)
		}
	}
}

// versionFlags makes the control plane say which release it is; upstream's own
// build sets the same variables.
func versionFlags(goMod string) (string, error) {
	text, err := os.ReadFile(goMod)
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)`).FindSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("%s names no version of k8s.io/kubernetes", goMod)
	}
	var flags []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags,
			fmt.Sprintf("-X %s.gitVersion=%s", pkg, m[1]),
			fmt.Sprintf("-X %s.gitMajor=%s", pkg, m[2]),
			fmt.Sprintf("-X %s.gitMinor=%s", pkg, m[3]),
			fmt.Sprintf("-X %s.gitTreeState=clean", pkg))
	}
	return strings.Join(flags, " "), nil
}

type program struct {
	name, title string
	dir         string   // folder of its module
	pkg         string   // package to build
	sources     []string // files and folders below dir that the program is made from
	ldflags     string
}

func (p program) build(ctx context.Context, progress io.Writer) (string, error) {
	if progress == nil {
		progress = io.Discard
	}
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	key, err := p.key()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, p.name+"-"+key)
	path := filepath.Join(folder, p.name)
	if ready(path) {
		return path, nil
	}

	// Test packages run at the same time: one builds, the others wait for it.
	unlock, err := lock(filepath.Join(cache, p.name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if ready(path) {
		return path, nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	unfinished := path + ".new"
	if err := p.compile(ctx, unfinished, progress); err != nil {
		return "", fmt.Errorf("build %s: %w", p.name, err)
	}
	if err := os.Rename(unfinished, path); err != nil {
		return "", err
	}
	prune(cache, 14*24*time.Hour)
	return path, nil
}

func (p program) compile(ctx context.Context, out string, progress io.Writer) error {
	total, err := p.countPackages(ctx)
	if err != nil {
		return err
	}
	meter := newMeter(progress, p.title, total)
	// -v names each package as it is compiled. -trimpath as the Makefile has it
	// for all else: with another setting everything would be compiled twice.
	cmd := p.command(ctx, "build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", p.ldflags, "-o", out, p.pkg)
	cmd.Stderr = meter
	err = cmd.Run()
	other := meter.finish(err == nil)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, other)
	}
	return nil
}

func (p program) countPackages(ctx context.Context) (int, error) {
	cmd := p.command(ctx, "list", "-deps", p.pkg)
	var stderr strings.Builder
	cmd.Stderr = &stderr // says which modules it downloads, and why it failed
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("list packages: %w\n%s", err, stderr.String())
	}
	return strings.Count(string(out), "\n"), nil
}

// command runs the go tool. Without cgo the programs are static, and the
// packages that the tests share with them are compiled once.
func (p program) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	// The compilers are children of go: an interrupt lets it end them and tidy up.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// key digests all that the program is made from.
func (p program) key() (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s/%s\n%s\n%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, p.pkg, p.ldflags)
	for _, source := range p.sources {
		err := filepath.WalkDir(filepath.Join(p.dir, source), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "%s %d\n", filepath.Base(path), len(text))
			h.Write(text)
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func cacheFolder() (string, error) {
	dir := os.Getenv("FLAKESHIP_E2E_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(user, "flakeship", "e2e")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// ready tells whether the program is there, and marks it as used.
func ready(path string) bool {
	now := time.Now()
	return os.Chtimes(path, now, now) == nil
}

func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", file, err)
	}
	return func() { f.Close() }, nil
}

// prune removes what was not used for as long as age. A failure leaves files
// for the next time.
func prune(cache string, age time.Duration) {
	folders, err := filepath.Glob(filepath.Join(cache, "*-????????????????"))
	if err != nil {
		return
	}
	for _, folder := range folders {
		name, _, _ := strings.Cut(filepath.Base(folder), "-")
		info, err := os.Stat(filepath.Join(folder, name))
		if errors.Is(err, fs.ErrNotExist) {
			info, err = os.Stat(folder)
		}
		if err == nil && time.Since(info.ModTime()) > age {
			_ = os.RemoveAll(folder)
		}
	}
}

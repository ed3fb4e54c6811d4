// Package nixstore gives tests a Nix store of their own: a chroot store in a temporary folder, with settings and caches
// beside it. Neither /nix nor anybody's nix.conf is touched.
package nixstore

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Store is a private Nix store. Its logical paths are /nix/store/..., on disk they are below Root.
type Store struct {
	Dir  string // holds everything
	Root string // prefix of physical paths
	Env  []string
}

// New makes an empty store for one test. settings are more lines of nix.conf, such as "max-jobs = 2".
//
// Builds are sandboxed; their only program is /bin/sh, which is busybox: `/bin/sh -c 'busybox sleep 1'` works too.
func New(t testing.TB, settings ...string) *Store {
	t.Helper()
	return At(t, t.TempDir(), settings...)
}

// At is New in a folder of the caller's.
func At(t testing.TB, dir string, settings ...string) *Store {
	t.Helper()
	s, err := Make(dir, settings...)
	if err != nil {
		t.Fatal(err)
	}
	// Store paths are read-only folders, which t.TempDir cannot remove.
	t.Cleanup(func() { s.Remove() })
	return s
}

// Make is At without a test.
func Make(dir string, settings ...string) (*Store, error) {
	if _, err := exec.LookPath("nix"); err != nil {
		return nil, fmt.Errorf("these tests run the real nix: install Debian's nix-bin: %w", err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("the sandbox's shell is a static busybox: install Debian's busybox-static: %w", err)
	}
	s := &Store{Dir: dir, Root: filepath.Join(dir, "root")}
	conf := filepath.Join(dir, "conf")
	for _, d := range []string{conf, s.Root, filepath.Join(dir, "cache"), filepath.Join(dir, "home")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	lines := append([]string{
		"experimental-features = nix-command flakes",
		"sandbox = true",
		"sandbox-paths = /bin/sh=" + busybox + " /bin/busybox=" + busybox,
		"substituters =",
		"build-users-group =",
		"store = local?root=" + s.Root,
	}, settings...)
	if err := os.WriteFile(filepath.Join(conf, "nix.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return nil, err
	}
	set := []string{
		"NIX_CONF_DIR=" + conf,
		"NIX_USER_CONF_FILES=/dev/null",
		"XDG_CACHE_HOME=" + filepath.Join(dir, "cache"),
		"HOME=" + filepath.Join(dir, "home"),
		"GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_CONFIG_NOSYSTEM=1",
	}
	s.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "NIX_") || slices.ContainsFunc(set, func(x string) bool { return strings.HasPrefix(x, name+"=") })
	}), set...)
	return s, nil
}

// Remove deletes the store.
func (s *Store) Remove() error {
	filepath.WalkDir(s.Root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return nil
	})
	return os.RemoveAll(s.Root)
}

// Physical is where a store path is on disk.
func (s *Store) Physical(path string) string { return s.Root + path }

// Nix runs nix with args and returns its standard output; a failure ends the test.
func (s *Store) Nix(t testing.TB, args ...string) string {
	t.Helper()
	return s.Command(t, "nix", args...)
}

// Command runs a program in the store's environment and returns its standard output; a failure ends the test.
func (s *Store) Command(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = s.Env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// Flake writes flake.nix with the given attributes of packages.x86_64-linux (or of the machine's system), each a Nix
// expression, commits it to a new git repository in dir and returns dir. Expressions may use `image`, `mk` and `self`:
//
//	mk "name" "shell script that makes $out" { more = "attributes"; }    a derivation
//	image "name" "shell script" { ... }                                 one with imageName = "name"
func Flake(t testing.TB, dir string, packages map[string]string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(flakeHead)
	names := make([]string, 0, len(packages))
	for name := range packages {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "      %q = %s;\n", name, packages[name])
	}
	b.WriteString("    };\n  };\n}\n")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	Commit(t, dir)
	return dir
}

const flakeHead = `{
  outputs = { self }: let
    system = "x86_64-linux";
    mk = name: script: more: derivation ({
      inherit name system;
      builder = "/bin/sh";
      args = [ "-c" script ];
      PATH = "/bin";
    } // more);
    image = name: script: more: mk "image-${name}" script more // { imageName = name; imageTag = null; } // more;
  in {
    packages.${system} = {
`

// Commit commits everything in dir, which becomes a git repository if it is none, and returns the commit.
func Commit(t testing.TB, dir string) string {
	t.Helper()
	git := func(args ...string) string {
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "safe.directory=*"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_DATE=2020-01-01T00:00:00Z", "GIT_COMMITTER_DATE=2020-01-01T00:00:00Z")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if _, err := os.Stat(filepath.Join(dir, ".git")); err != nil {
		git("init", "-q", "-b", "main")
	}
	git("add", "-A")
	git("commit", "-q", "--allow-empty", "-m", "change")
	return git("rev-parse", "HEAD")
}

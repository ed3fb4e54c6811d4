// Package nixenv gives tests and the demo the installed Nix with a store and
// settings of its own: nothing of it touches /nix, the user's nix.conf, caches
// or profiles, or talks to a Nix daemon.
//
//	n, err := nixenv.New(ctx, dir, nixenv.Options{Substituters: []string{cache.URL}})
//	defer n.Remove()
//	out, err := n.Command(ctx, "build", "--json", ".#api").Output()
//
// Store paths read /nix/store/… as always; their files are below n.Root.
package nixenv

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Options are settings of the private Nix.
type Options struct {
	// Substituters are cache URLs, asked in order; none by default. Trusted are
	// this environment's key and TrustedKeys.
	Substituters []string
	TrustedKeys  []string // name:base64
	// Busybox is the static busybox that builders find as /bin/sh; empty looks for one.
	Busybox string
	// ExtraConf is added to nix.conf.
	ExtraConf string
}

// Nix is the installed Nix on a private store.
type Nix struct {
	Version       string // 2.8.0
	Dir           string // of all state
	Root          string // physical root of the store: Root/nix/store
	StoreURI      string
	Busybox       string // static; builders run it as /bin/sh
	PublicKey     string // name:base64, trusted by this environment
	SecretKeyFile string // its other half, to sign what is copied to a cache

	bin  string
	home string
}

// keyName names the signing key of every environment.
const keyName = "flakeship-e2e-1"

// New makes the private environment in dir, or renews the settings of one that
// is there: store, caches and key stay.
func New(ctx context.Context, dir string, o Options) (*Nix, error) {
	bin, err := exec.LookPath("nix")
	if err != nil {
		return nil, errors.New("nix is not on PATH; run e2e/install.sh demo")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	n := &Nix{
		Dir: dir, Root: filepath.Join(dir, "root"), Busybox: o.Busybox,
		SecretKeyFile: filepath.Join(dir, "secret-key"),
		bin:           bin, home: filepath.Join(dir, "home"),
	}
	n.StoreURI = "local?root=" + n.Root
	for _, folder := range []string{n.Root, n.home, n.confDir()} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
	}
	if n.Version, err = version(ctx, bin); err != nil {
		return nil, err
	}
	if n.Busybox == "" {
		if n.Busybox, err = Busybox(ctx); err != nil {
			return nil, err
		}
	}
	// Twice: making the key runs Nix, which must not read the user's settings either.
	if err := n.writeConf(o); err != nil {
		return nil, err
	}
	if err := n.makeKey(ctx); err != nil {
		return nil, err
	}
	return n, n.writeConf(o)
}

var versionNumber = regexp.MustCompile(`(\d+)\.(\d+)\S*`)

// version accepts Nix 2.8 or newer, the first with all commands flakeship uses.
func version(ctx context.Context, bin string) (string, error) {
	out, err := exec.CommandContext(ctx, bin, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", bin, err)
	}
	m := versionNumber.FindStringSubmatch(string(out))
	if m == nil {
		return "", fmt.Errorf("%s --version: no version in %q", bin, out)
	}
	major, _ := strconv.Atoi(m[1]) // digits
	minor, _ := strconv.Atoi(m[2])
	if major < 2 || major == 2 && minor < 8 {
		return "", fmt.Errorf("%s is Nix %s, but at least 2.8 is needed", bin, m[0])
	}
	return m[0], nil
}

func (n *Nix) confDir() string { return filepath.Join(n.Dir, "conf") }

func (n *Nix) writeConf(o Options) error {
	// The global flake registry is a file on the network; this one is empty.
	registry := filepath.Join(n.confDir(), "registry.json")
	if err := os.WriteFile(registry, []byte(`{"version":2,"flakes":[]}`), 0o644); err != nil {
		return err
	}
	keys := slices.Clone(o.TrustedKeys)
	if n.PublicKey != "" {
		keys = append(keys, n.PublicKey)
	}
	conf := strings.Join([]string{
		"experimental-features = nix-command flakes",
		"store = " + n.StoreURI,
		"build-users-group =",
		"sandbox = true",
		"sandbox-paths = /bin/sh=" + n.Busybox,
		"substituters = " + strings.Join(o.Substituters, " "),
		"trusted-public-keys = " + strings.Join(keys, " "),
		"flake-registry = " + registry,
		"max-jobs = auto",
		"connect-timeout = 5",
		o.ExtraConf,
	}, "\n")
	return os.WriteFile(filepath.Join(n.confDir(), "nix.conf"), []byte(conf+"\n"), 0o644)
}

func (n *Nix) makeKey(ctx context.Context) error {
	public := filepath.Join(n.Dir, "public-key")
	if _, err := os.Stat(n.SecretKeyFile); err != nil {
		cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(n.bin), "nix-store"),
			"--generate-binary-cache-key", keyName, n.SecretKeyFile, public)
		cmd.Env = n.Environ()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("make signing key: %w\n%s", err, out)
		}
	}
	text, err := os.ReadFile(public)
	n.PublicKey = strings.TrimSpace(string(text))
	return err
}

// Env are the variables that turn every Nix command of a process to the
// private environment. They are to be set, the empty ones too, over whatever
// else the process has.
func (n *Nix) Env() map[string]string {
	return map[string]string{
		"NIX_CONF_DIR":        n.confDir(),
		"NIX_USER_CONF_FILES": os.DevNull,
		"NIX_REMOTE":          n.StoreURI,
		"NIX_CONFIG":          "",
		"NIX_PATH":            "",
		"XDG_CACHE_HOME":      filepath.Join(n.home, ".cache"),
		"XDG_CONFIG_HOME":     filepath.Join(n.home, ".config"),
		"XDG_DATA_HOME":       filepath.Join(n.home, ".local", "share"),
		"XDG_STATE_HOME":      filepath.Join(n.home, ".local", "state"),
	}
}

// Environ is Env with a home and the PATH of this process, for exec.Cmd.
func (n *Nix) Environ() []string {
	env := n.Env()
	env["HOME"] = n.home
	env["PATH"] = os.Getenv("PATH")
	env["LANG"] = "C.UTF-8"
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// Command is `nix args…` in the private environment.
func (n *Nix) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.bin, args...)
	cmd.Env = n.Environ()
	return cmd
}

// File is where the files of a store path are.
func (n *Nix) File(storePath string) string { return filepath.Join(n.Root, storePath) }

// CopyTo is the URL that makes `nix copy --to` sign with this environment's key.
func (n *Nix) CopyTo(cacheURL string) string { return cacheURL + "?secret-key=" + n.SecretKeyFile }

// Remove deletes the environment. Folders in a store are read-only, which
// stops os.RemoveAll for everyone but root.
func (n *Nix) Remove() error {
	err := filepath.WalkDir(n.Root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o755)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(n.Dir))
}

// Busybox finds a statically linked busybox: a program that runs in a build
// sandbox, where there are no libraries. Without an installed one it asks the
// user's Nix for that of nixpkgs.
func Busybox(ctx context.Context) (string, error) {
	candidates := []string{"/bin/busybox", "/usr/bin/busybox"}
	if path, err := exec.LookPath("busybox"); err == nil {
		candidates = append(candidates, path)
	}
	for _, path := range candidates {
		if path, err := filepath.EvalSymlinks(path); err == nil && static(path) {
			return path, nil
		}
	}
	cmd := exec.CommandContext(ctx, "nix", "--extra-experimental-features", "nix-command flakes",
		"build", "--no-link", "--json", "nixpkgs#pkgsStatic.busybox")
	text, err := cmd.Output()
	var built []struct{ Outputs struct{ Out string } }
	if err != nil || json.Unmarshal(text, &built) != nil || len(built) != 1 {
		return "", errors.New("no static busybox in /bin, and nixpkgs#pkgsStatic.busybox cannot be built; run e2e/install.sh demo")
	}
	path := filepath.Join(built[0].Outputs.Out, "bin", "busybox")
	if !static(path) {
		return "", fmt.Errorf("%s is not a static program", path)
	}
	return path, nil
}

// static tells whether path is a program that needs no dynamic loader.
func static(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// Package nix drives the Nix that is installed on this machine: it finds a flake's images, builds them and copies their
// closures to a cache.
//
// It runs the `nix` program and nothing else, so credentials, daemons, remote builders and stores work as the machine's
// owner set them up. From 2.8 on every version works, Lix and Determinate Nix too; what differs between them is in
// version.go.
package nix

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// ErrNotInstalled means that there is no `nix` on PATH.
var ErrNotInstalled = errors.New("nix is not installed: there is no program of that name on PATH")

// Options say which Nix to run and how. The zero value runs the one on PATH as this process would.
type Options struct {
	Path  string    // of the program; empty: found on PATH
	Dir   string    // folder it runs in, to which relative flake references refer; empty: this process's
	Env   []string  // nil: this process's
	Flake string    // reference that Images will be asked about, to be looked up meanwhile; empty: none
	Netrc string    // path of a netrc file with credentials for caches, instead of Nix's own; empty: Nix's own
	Log   io.Writer // gets what it prints to standard error; nil: nobody does. Used from one goroutine at a time
}

// Nix is an installed Nix. It may be used from several goroutines.
type Nix struct {
	Version  Version
	Settings Settings

	path  string
	dir   string
	env   []string
	netrc string // absolute; empty: Nix's own
	log   *syncWriter
	ahead *lookup // of the flake in Options; nil: none
}

// Settings are those of the installed Nix that matter here, after nix.conf, NIX_CONFIG and the user's own files.
type Settings struct {
	Substituters      []string // cache URLs, in order
	TrustedPublicKeys []string // name:base64
	NetrcFile         string
	CertFile          string // certificates trusted for https, as PEM; empty: the system's
	System            string // e.g. x86_64-linux
	StoreDir          string // logical: /nix/store
	StoreRoot         string // prefix of the physical path, for a chroot store; empty: none

	extraPlatforms []string // systems besides System that this machine builds for
	builders       string   // remote builders, one a line or between semicolons; or @ and a file with them
	evaluation     string   // settings that evaluations depend on, as text
}

// Open finds the installed Nix and asks it for its version and settings.
//
// Errors: ErrNotInstalled; *CommandError when it does not run.
func Open(ctx context.Context, o Options) (*Nix, error) {
	n := &Nix{path: o.Path, dir: o.Dir, env: o.Env, log: &syncWriter{w: o.Log}}
	if n.env == nil {
		n.env = os.Environ()
	}
	if n.path == "" {
		path, err := exec.LookPath("nix")
		if err != nil {
			return nil, ErrNotInstalled
		}
		n.path = path
	}
	if o.Flake != "" {
		n.ahead = n.lookUp(ctx, o.Flake)
	}
	// All questions at the same time: a start of nix takes longer than its answer. The name of the last depends on the answer to the
	// first from 2.20 on; the old name works there as well so far.
	var banner []byte
	var storeDir string
	var bannerErr, storeErr error
	var wg sync.WaitGroup
	wg.Go(func() { banner, bannerErr = n.run(ctx, command{args: []string{"--version"}, bare: true}) })
	wg.Go(func() { storeDir, storeErr = n.storeDir(ctx) })
	old := Version{}.showConfig()
	text, err := n.run(ctx, command{args: append(old, "--json"), stderr: io.Discard})
	wg.Wait()
	if errors.Is(bannerErr, os.ErrNotExist) {
		return nil, fmt.Errorf("%w (%s)", ErrNotInstalled, n.path)
	}
	if bannerErr != nil {
		return nil, bannerErr
	}
	if n.Version, bannerErr = ParseVersion(string(banner)); bannerErr != nil {
		return nil, bannerErr
	}
	if now := n.Version.showConfig(); isCommandError(err) && !slices.Equal(now, old) {
		text, err = n.run(ctx, command{args: append(now, "--json")})
	}
	if err := errors.Join(err, storeErr); err != nil {
		return nil, err
	}
	n.Settings, err = parseSettings(text, n.getenv)
	if n.Settings.StoreDir == "" {
		n.Settings.StoreDir = storeDir
	}
	if err == nil && o.Netrc != "" {
		n.netrc, err = filepath.Abs(o.Netrc) // Nix may run in another folder
		n.Settings.NetrcFile = n.netrc
	}
	return n, err
}

// storeDir asks for the store's folder, which is no setting that could be read: it may be compiled in. The source of a flake that is
// looked up already is in it.
func (n *Nix) storeDir(ctx context.Context) (string, error) {
	if n.ahead != nil {
		if <-n.ahead.done; n.ahead.src.path != "" {
			return filepath.Dir(n.ahead.src.path), nil
		}
	}
	// A store without files has one too; of a store that is yet to be made, two processes at the same time would be one too many.
	text, err := n.run(ctx, command{program: "nix-store", args: []string{"--store", "dummy://", "--print-fixed-path", "sha256", strings.Repeat("0", 64), "x"}})
	return filepath.Dir(strings.TrimSpace(string(text))), err
}

// Physical is where a store path is on disk.
func (n *Nix) Physical(storePath string) string { return n.Settings.StoreRoot + storePath }

// Exists says whether a store path is on disk. With a daemon or a local store that is what makes it usable by later steps.
func (n *Nix) Exists(storePath string) bool {
	_, err := os.Lstat(n.Physical(storePath))
	return err == nil
}

func (n *Nix) getenv(name string) string {
	for i := len(n.env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(n.env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// parseSettings reads `nix config show --json`: an object of {"value": ...} per setting.
func parseSettings(text []byte, getenv func(string) string) (Settings, error) {
	var all map[string]struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return Settings{}, fmt.Errorf("read nix's settings: %w", err)
	}
	one := func(name string) string {
		var s string
		json.Unmarshal(all[name].Value, &s) // a setting this Nix does not have is an empty one
		return s
	}
	list := func(name string) []string {
		var items []string
		if json.Unmarshal(all[name].Value, &items) != nil {
			items = strings.Fields(one(name))
		}
		return items
	}
	certFile := one("ssl-cert-file") // a setting since 2.20, an environment variable before
	if certFile == "" {
		certFile = getenv("NIX_SSL_CERT_FILE")
	}
	return Settings{
		CertFile:          certFile,
		Substituters:      list("substituters"),
		TrustedPublicKeys: list("trusted-public-keys"),
		NetrcFile:         one("netrc-file"),
		System:            one("system"),
		StoreDir:          storeDir(one("store")),
		StoreRoot:         storeRoot(one("store"), getenv),
		extraPlatforms:    list("extra-platforms"),
		builders:          one("builders"),
		evaluation:        fmt.Sprintf("%s %s", all["restrict-eval"].Value, all["allow-import-from-derivation"].Value),
	}, nil
}

// buildable are the systems that can be built for, here or on a remote builder of the setting builders; empty: Nix's own.
func (s Settings) buildable(builders string) []string {
	systems := append([]string{s.System}, s.extraPlatforms...)
	for _, machine := range s.machines(builders) {
		// Its address, its systems, a key, ...; - stands for what is usual: the system of this one.
		if fields := strings.Fields(machine); len(fields) > 1 && fields[1] != "-" {
			systems = append(systems, strings.Split(fields[1], ",")...)
		}
	}
	return systems
}

// machines are the remote builders that a setting names, one a line or between semicolons, or @ and a file with them; those of
// Nix's own setting when it is empty.
func (s Settings) machines(builders string) []string {
	builders = cmp.Or(builders, s.builders)
	if file, ok := strings.CutPrefix(builders, "@"); ok {
		text, _ := os.ReadFile(file) // by default a file that need not exist
		builders = string(text)
	}
	var machines []string
	for line := range strings.FieldsFuncSeq(builders, func(r rune) bool { return r == '\n' || r == ';' }) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			machines = append(machines, line)
		}
	}
	return machines
}

// storeDir is the folder that a store's URL names as a parameter; empty: none.
func storeDir(store string) string {
	_, query, _ := strings.Cut(store, "?")
	params, err := url.ParseQuery(query)
	if err != nil {
		return ""
	}
	return params.Get("store")
}

// storeRoot is the physical prefix of a chroot store: `local?root=/x`, a daemon's with the same parameter, or the plain path
// /x. Every other store this machine can read files of has none.
func storeRoot(store string, getenv func(string) string) string {
	uri, query, _ := strings.Cut(store, "?")
	if strings.HasPrefix(uri, "/") {
		return strings.TrimRight(filepath.Clean(uri), "/")
	}
	local := uri == "local" || uri == "local://" || uri == "daemon" || strings.HasPrefix(uri, "unix://")
	if params, err := url.ParseQuery(query); err == nil && local && params.Get("root") != "" {
		return strings.TrimRight(filepath.Clean(params.Get("root")), "/")
	}
	if uri == "auto" || uri == "" {
		return autoRoot(getenv)
	}
	return ""
}

// autoRoot is the chroot store Nix makes by itself for a user who is not root on a machine without /nix.
func autoRoot(getenv func(string) string) string {
	if os.Getuid() == 0 || getenv("NIX_STORE_DIR") != "" || getenv("NIX_STATE_DIR") != "" {
		return ""
	}
	if _, err := os.Stat("/nix"); !os.IsNotExist(err) {
		return ""
	}
	data := getenv("XDG_DATA_HOME")
	if data == "" {
		data = filepath.Join(getenv("HOME"), ".local", "share")
	}
	return filepath.Join(data, "nix", "root")
}

// syncWriter lets several nix processes share one log.
type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return len(p), nil
	}
	return s.w.Write(p)
}

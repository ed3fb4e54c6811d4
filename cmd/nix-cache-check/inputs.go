package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"time"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/evalcache"
	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/nix"
	"github.com/flakeship/flakeship/internal/registry"
	"github.com/flakeship/flakeship/internal/storepath"
	"github.com/flakeship/flakeship/internal/substituter"
	"github.com/flakeship/flakeship/internal/transport"
)

// inputs are what the step was given, and what the installed Nix has where nothing was given.
type inputs struct {
	query        nix.Query
	substituters []string
	caches       substituter.Options
	prefix       string // of the registry; empty: it is not asked
	registry     *registry.Client
	buildOnError bool
	shards       int
	fork         bool     // of a pull request from one: what refuses those without credentials is as if it were not there
	base         nix.Base // zero: none
}

// maxShards is the number of jobs a matrix has at most, on GitHub and on Gitea.
const maxShards = 256

// readInputs checks what was given, and what Nix is set up with in its place. Every problem is reported, before anything is asked.
func readInputs(ctx context.Context, env *action.Env, n *nix.Nix) (inputs, error) {
	s := n.Settings
	in := inputs{
		caches:       substituter.Options{VerifyNARs: env.Bool("verify-nars"), Ask: n.PathInfo, UserAgent: userAgent(), Warnf: env.Warnf, Debugf: env.Debugf},
		query:        nix.Query{Flake: env.Text("flake"), Systems: env.List("systems"), Attributes: env.List("attributes")},
		buildOnError: env.Text("on-cache-error") == "build",
		fork:         env.Fork() != "",
	}
	if in.fork {
		in.caches.LeaveOut = func(cache string, err error) bool {
			denied := new(substituter.DeniedError)
			if !errors.As(err, &denied) || !denied.Anonymous {
				return false
			}
			env.LeaveOut("the cache %s, which wants credentials", cache)
			return true
		}
	}
	var problems []error
	bad := func(hint string, err error) {
		if err != nil {
			problems = append(problems, action.Fail(action.BadInput, err, "%s", hint))
		}
	}
	var err error

	in.substituters = env.List("substituters")
	hint := "give URLs of binary caches in the input substituters, one per line"
	if in.substituters == nil {
		in.substituters = s.Substituters
		hint = "this is a substituter of the installed Nix; name the caches to ask in the input substituters"
	}
	for _, err := range action.Split(substituter.Validate(in.substituters, in.caches)) {
		bad(hint, err)
	}

	keys, hint := env.List("trusted-public-keys"), "a key is name:base64, as nix-store --generate-binary-cache-key writes it to its public key file"
	if keys == nil {
		keys, hint = s.TrustedPublicKeys, "this is a key in trusted-public-keys of the installed Nix; mend it there, or give the keys in the input trusted-public-keys"
	}
	for _, text := range keys {
		key, err := narinfo.ParsePublicKey(text)
		bad(hint, err)
		in.caches.Keys = append(in.caches.Keys, key)
	}

	in.caches.Netrc, err = netrc(env, s.NetrcFile)
	bad("the input netrc-file is the path of a file with lines like: machine cache.example.org login ci password ...", err)

	in.caches.CertFile = certificates(env, s.CertFile)
	in.caches.StoreDir, err = storepath.ParseDir(s.StoreDir)
	bad("Nix has its store in a folder such as /nix/store: see store in nix.conf, and NIX_STORE_DIR", err)

	if given := env.Text("registry"); given != "" {
		if in.prefix, err = registry.Prefix(given); err != nil {
			err = fmt.Errorf("input registry is %w", err)
		}
		bad("give host and path, such as registry.example.org/team, without https:// and without tag", err)
	}
	in.registry, err = openRegistry(env)
	bad("see nix-cache-check --help", err)

	for _, system := range in.query.Systems {
		bad("a Nix system is a processor and a kernel, such as x86_64-linux or aarch64-linux", nix.CheckSystem(system))
	}
	in.query.Options, err = evalOptions(env)
	bad("eval-workers is a number of processes, at least 1; eval-memory is in MiB, at least 256", err)
	if in.shards = env.Int("shards"); in.shards < 1 || in.shards > maxShards {
		bad("shards is the number of machines that build, such as 4", fmt.Errorf("input shards is %d, not between 1 and %d", in.shards, maxShards))
	}
	if dir := env.Text("plan-cache"); dir != "" {
		if in.query.Cache, err = evalcache.Open(dir); err != nil {
			err = fmt.Errorf("input plan-cache is %q: %w", dir, err)
		}
		bad("give a folder that the step may write to", err)
	}
	if base := env.Text("base"); base != "" {
		in.base, err = n.Base(ctx, in.query.Flake, base)
		hint := "give a commit, branch or tag of the flake's own repository, such as origin/main or HEAD~1"
		if shallow := new(nix.BaseError); errors.As(err, &shallow) && shallow.Shallow {
			hint = "this clone is shallow: give actions/checkout fetch-depth: 0, or fetch the commit first"
		}
		bad(hint, err)
	}
	return in, errors.Join(problems...)
}

// systemCertificates is where Debian and many others keep them, and what current versions of Nix name by default.
const systemCertificates = "/etc/ssl/certs/ca-certificates.crt"

// certificates is the file Nix was told to trust, or nothing when the system's own are all there is.
func certificates(env *action.Env, file string) string {
	if file == "" || file == systemCertificates {
		return ""
	}
	if _, err := transport.Certificates(file); err != nil {
		env.Warnf("the certificates of the installed Nix are not used: %v", err)
		return ""
	}
	return file
}

// netrc reads the file that was given, or else the one Nix has, which need not exist and may be root's alone.
func netrc(env *action.Env, installed string) (substituter.Netrc, error) {
	if given := env.Text("netrc-file"); given != "" {
		n, err := substituter.LoadNetrc(given)
		if err != nil {
			err = fmt.Errorf("input netrc-file: %w", err)
		}
		return n, err
	}
	if installed == "" {
		return substituter.Netrc{}, nil
	}
	n, err := substituter.LoadNetrc(installed)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		env.Warnf("the netrc file of the installed Nix is not used: %v", err)
	}
	return n, nil
}

func evalOptions(env *action.Env) (nix.EvalOptions, error) {
	o := nix.EvalOptions{Workers: runtime.GOMAXPROCS(0), Memory: env.Int("eval-memory")}
	if env.Text("eval-workers") != "" {
		o.Workers = env.Int("eval-workers")
	}
	switch {
	case o.Workers < 1:
		return o, fmt.Errorf("input eval-workers is %d", o.Workers)
	case o.Memory < 256: // a process that has not begun occupies 40
		return o, fmt.Errorf("input eval-memory is %d", o.Memory)
	}
	return o, nil
}

// lookups is how many tags are looked up at the same time. Small registries do not like more than a few writers; this only reads.
const lookups = 32

// openRegistry returns a client for the inputs' credentials, hosts and certificates.
func openRegistry(env *action.Env) (*registry.Client, error) {
	username, password := env.Text("registry-username"), env.Text("registry-password")
	if env.Fork() != "" && password == "" {
		username = "" // it may be a variable, while the password is a secret
	}
	if (username == "") != (password == "") {
		return nil, errors.New("registry-username and registry-password are given both or not at all")
	}
	base := transport.Pool(lookups)
	if file := env.Text("ca-file"); file != "" {
		pool, err := transport.Certificates(file)
		if err != nil {
			return nil, fmt.Errorf("input ca-file: %w", err)
		}
		base.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return registry.Open(registry.Options{
		Username: username,
		Password: password,
		Jobs:     lookups,
		Transport: transport.New(transport.Options{
			UserAgent: userAgent(),
			Base:      base,
			Timeout:   30 * time.Second,
			RetryPost: true,    // tokens are asked for with POST
			Buffer:    1 << 20, // manifests and configs whose answers break off are asked for again
			Debugf:    env.Debugf,
		}),
		Insecure: env.List("insecure-registries"),
	}), nil
}

func userAgent() string { return "flakeship/" + action.Version }

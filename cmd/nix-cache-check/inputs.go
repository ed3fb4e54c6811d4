package main

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"time"

	"github.com/flakeship/flakeship/internal/action"
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
	keys         []narinfo.PublicKey
	netrc        substituter.Netrc
	storeDir     storepath.Dir
	prefix       string // of the registry; empty: it is not asked
	buildOnError bool
}

// readInputs checks what was given, and what Nix is set up with in its place. Every problem is reported, before anything is asked.
func readInputs(env *action.Env, s nix.Settings) (inputs, error) {
	in := inputs{
		query:        nix.Query{Flake: env.Text("flake"), Systems: env.List("systems"), Attributes: env.List("attributes")},
		buildOnError: env.Text("on-cache-error") == "build",
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
	for _, err := range action.Split(substituter.Validate(in.substituters)) {
		bad(hint, err)
	}

	keys, hint := env.List("trusted-public-keys"), "a key is name:base64, as nix-store --generate-binary-cache-key writes it to its public key file"
	if keys == nil {
		keys, hint = s.TrustedPublicKeys, "this is a key in trusted-public-keys of the installed Nix; mend it there, or give the keys in the input trusted-public-keys"
	}
	for _, text := range keys {
		key, err := narinfo.ParsePublicKey(text)
		bad(hint, err)
		in.keys = append(in.keys, key)
	}

	in.netrc, err = netrc(env, s.NetrcFile)
	bad("the input netrc-file is the path of a file with lines like: machine cache.example.org login ci password ...", err)

	in.storeDir, err = storepath.ParseDir(s.StoreDir)
	bad("the installed Nix reports no usable store directory", err)

	in.prefix, err = prefix(env.Text("registry"))
	bad("give host and path, such as registry.example.org/team, without https:// and without tag", err)
	return in, errors.Join(problems...)
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

// hasScheme finds what people paste from a browser.
var hasScheme = regexp.MustCompile(`^[a-z]+://`)

// prefix checks the registry prefix: it has to make a repository's name with an image's name behind it.
func prefix(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if hasScheme.MatchString(text) {
		return "", fmt.Errorf("input registry is %q: a registry prefix has no scheme", text)
	}
	if _, err := registry.Open(registry.Options{}).Repository(text + "/image"); err != nil {
		return "", fmt.Errorf("input registry is %q: %w", text, err)
	}
	return text, nil
}

// openRegistry returns a client for the inputs' credentials.
func openRegistry(env *action.Env) *registry.Client {
	return registry.Open(registry.Options{
		Username: env.Text("registry-username"),
		Password: env.Text("registry-password"),
		Transport: transport.New(transport.Options{
			UserAgent: userAgent(),
			Base:      transport.Pool(registry.DefaultJobs),
			Timeout:   30 * time.Second,
			RetryPost: true, // tokens are asked for with POST
			Debugf:    env.Debugf,
		}),
	})
}

func userAgent() string { return "flakeship/" + action.Version }

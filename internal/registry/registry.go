// Package registry speaks to container registries: credentials, tokens, plain http or https, and reading.
//
// It uses go-containerregistry for names, credential files and token exchange, and nothing of its image writer, so that a
// step that only looks a tag up stays small. What writes to registries is internal/push, through Repository.Do.
package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Options says how registries are spoken to. The zero value reads, with the credentials of the docker configuration.
type Options struct {
	// Username and Password are used instead of the docker configuration, Podman's auth.json and credential helpers.
	Username, Password string
	Anonymous          bool // credentials are not looked for

	// Transport carries the requests and owns retries; nil is http.DefaultTransport. Tokens and passwords are set above it:
	// what it logs must leave the Authorization header and query strings out.
	Transport http.RoundTripper

	Push     bool     // ask for the right to write too
	Jobs     int      // requests in flight per registry host; 0 is 8
	Insecure []string // hosts, with port, spoken to over plain http; loopback ones are tried anyway
}

// DefaultJobs is how many requests are in flight per registry host unless told otherwise. Gitea and small registries
// answer 500 to more writers at once.
const DefaultJobs = 8

// Client is a set of registries under one set of options. It may be used from several goroutines.
type Client struct {
	options  Options
	keychain authn.Keychain
	explicit authn.Authenticator // nil: the keychain is asked

	mu       sync.Mutex
	hosts    map[string]*host
	sessions map[string]*session // by registry host and scopes
}

// Open returns a client. It sends nothing yet.
func Open(o Options) *Client {
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	if o.Jobs <= 0 {
		o.Jobs = DefaultJobs
	}
	c := &Client{options: o, keychain: authn.DefaultKeychain, hosts: map[string]*host{}, sessions: map[string]*session{}}
	if o.Username != "" || o.Password != "" {
		c.explicit = &authn.Basic{Username: o.Username, Password: o.Password}
	}
	if o.Anonymous {
		c.explicit = authn.Anonymous
	}
	return c
}

// Head returns the digest of the manifest or index that ref, a repository with tag or digest, names.
//
// Errors:
//   - ErrAbsent when the registry answers that there is none
//   - *DeniedError when it refuses the credentials, or wants some
//   - *StatusError for any other answer
//   - *UnreachableError when there was no answer
//   - *CredentialsError when the configured credentials cannot be read
//   - *name.ErrBadName when ref is no reference
func (c *Client) Head(ctx context.Context, ref string) (digest string, err error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return "", err
	}
	r, err := c.Repository(parsed.Context().Name())
	if err != nil {
		return "", err
	}
	return r.Head(ctx, parsed.Identifier())
}

// Repository is one repository of a registry.
type Repository struct {
	client *Client
	name   name.Repository
}

// Repository names a repository by registry host and path, such as registry.example.org/team/api. It sends nothing.
//
// Errors: *name.ErrBadName.
func (c *Client) Repository(repository string) (*Repository, error) {
	options := []name.Option{name.WeakValidation}
	hostname, _, _ := strings.Cut(repository, "/")
	if slices.Contains(c.options.Insecure, hostname) {
		options = append(options, name.Insecure)
	}
	parsed, err := name.NewRepository(repository, options...)
	if err != nil {
		return nil, err
	}
	return &Repository{c, parsed}, nil
}

// mayBePlain says whether credentials may go to the registry without TLS.
func (r *Repository) mayBePlain() bool {
	hostname := r.Host()
	if slices.Contains(r.client.options.Insecure, hostname) {
		return true
	}
	if h, _, err := net.SplitHostPort(hostname); err == nil {
		hostname = h
	}
	return hostname == "localhost" || strings.HasSuffix(hostname, ".localhost") || net.ParseIP(hostname).IsLoopback()
}

// String is host and path.
func (r *Repository) String() string { return r.name.Name() }

// Path is the repository without its host, as other requests to the same registry name it.
func (r *Repository) Path() string { return r.name.RepositoryStr() }

// Host is the registry's host, with its port if it has one.
func (r *Repository) Host() string { return r.name.RegistryStr() }

// URL returns the address of one thing in the repository, such as "manifests/latest". Do chooses between https and http.
func (r *Repository) URL(rest string) *url.URL {
	return &url.URL{Scheme: "https", Host: r.Host(), Path: "/v2/" + r.Path() + "/" + rest}
}

// Do sends req with the client's credentials for the repository, and read access to those in from, and returns the answer
// when its status is one of want; the caller closes its body.
//
// It waits while Options.Jobs other requests to the host are in flight. Errors are those of Head; ErrAbsent stands for
// status 404.
func (r *Repository) Do(req *http.Request, want []int, from ...*Repository) (*http.Response, error) {
	s, err := r.session(req.Context(), from)
	if err != nil {
		return nil, r.explain(req, err, nil)
	}
	release, err := s.host.acquire(req.Context())
	if err != nil {
		return nil, err
	}
	defer release()
	if req.URL.Host == r.Host() {
		req.URL.Scheme = s.host.scheme // also an address the registry gave, which may have been told a wrong scheme
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, r.explain(req, err, s)
	}
	if slices.Contains(want, resp.StatusCode) {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, r.refused(req, resp, s)
}

// hasScheme finds what people paste from a browser.
var hasScheme = regexp.MustCompile(`^[a-z]+://`)

// Prefix checks a prefix of repositories, such as registry.example.org/team, and returns it without a slash at its end. Its
// first part must be a host: without one, go-containerregistry would mean Docker Hub. The error repeats text, but for what may be a
// password in it.
func Prefix(text string) (string, error) {
	prefix := strings.TrimSuffix(text, "/")
	if err := checkPrefix(prefix); err != nil {
		if _, rest, found := strings.Cut(text, "@"); found {
			text = "...@" + rest
		}
		return "", fmt.Errorf("%q: %w", text, err)
	}
	return prefix, nil
}

func checkPrefix(prefix string) error {
	host, _, _ := strings.Cut(prefix, "/")
	switch {
	case hasScheme.MatchString(prefix):
		return errors.New("a registry prefix has no scheme")
	case strings.Contains(host, "@"):
		return errors.New("credentials are inputs of their own")
	case host != "localhost" && !strings.ContainsAny(host, ".:"):
		return errors.New("it does not begin with a host")
	}
	_, err := Open(Options{}).Repository(prefix + "/image")
	return err
}

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// host is one registry host: how it wants to be spoken to, asked once.
type host struct {
	slots chan struct{}

	mu        sync.Mutex
	challenge *transport.Challenge // nil: not asked yet
	scheme    string
	err       error // it was asked, retries included, and did not answer
}

// acquire waits for one of the host's slots.
func (h *host) acquire(ctx context.Context) (release func(), err error) {
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// session is the right to act on some repositories of one host.
type session struct {
	host      *host
	anonymous bool // no credentials were found

	mu   sync.Mutex
	http *http.Client // nil: no token yet
}

// session returns the session for r and read access to the repositories in from. The first call for a host asks it how it
// wants to be authenticated; the first for a set of repositories gets a token, where the registry uses tokens.
func (r *Repository) session(ctx context.Context, from []*Repository) (*session, error) {
	action := transport.PullScope
	if r.client.options.Push {
		action = transport.PushScope
	}
	scopes := []string{r.name.Scope(action)}
	for _, other := range from {
		scopes = append(scopes, other.name.Scope(transport.PullScope))
	}
	h, s := r.client.lookup(r.Host(), strings.Join(scopes, " "))
	if err := r.ping(ctx, h); err != nil {
		return nil, err
	}
	if h.scheme == "http" && !r.mayBePlain() { // go-containerregistry asks private addresses over http, too
		return nil, http.ErrSchemeMismatch
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return s, nil
	}
	auth, err := r.credentials(ctx)
	if err != nil {
		return nil, err
	}
	s.anonymous = isAnonymous(auth)
	rt, err := r.authenticate(ctx, h, auth, scopes)
	if err != nil {
		return nil, err
	}
	s.http = &http.Client{Transport: rt}
	return s, nil
}

func (c *Client) lookup(hostname, scopes string) (*host, *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[hostname]
	if h == nil {
		h = &host{slots: make(chan struct{}, c.options.Jobs)}
		c.hosts[hostname] = h
	}
	key := hostname + " " + scopes
	s := c.sessions[key]
	if s == nil {
		s = &session{host: h}
		c.sessions[key] = s
	}
	return h, s
}

func (r *Repository) credentials(ctx context.Context) (authn.Authenticator, error) {
	if r.client.explicit != nil {
		return r.client.explicit, nil
	}
	auth, err := authn.Resolve(ctx, r.client.keychain, r.name)
	if err != nil {
		return nil, &CredentialsError{Host: r.Host(), Err: err}
	}
	return auth, nil
}

// authenticate returns a transport that adds the credentials, or a token got with them, to requests to the host; requests
// elsewhere, after a redirect, carry neither.
func (r *Repository) authenticate(ctx context.Context, h *host, auth authn.Authenticator, scopes []string) (http.RoundTripper, error) {
	token := &transport.Token{}
	if strings.EqualFold(h.challenge.Scheme, "bearer") {
		var err error
		if token, err = transport.Exchange(ctx, r.name.Registry, auth, r.client.options.Transport, scopes, h.challenge); err != nil {
			if refused := new(transport.Error); !errors.As(err, &refused) {
				// The address is the registry's own idea of where it is: a wrong one (Gitea's ROOT_URL) shows only here.
				return nil, fmt.Errorf("get a token from %s: %w", h.challenge.Parameters["realm"], err)
			}
			return nil, err
		}
		if token.Token == "" {
			token.Token = token.AccessToken // the name OAuth gives it
		}
	}
	return transport.FromToken(r.name.Registry, auth, r.client.options.Transport, h.challenge, token)
}

func isAnonymous(auth authn.Authenticator) bool { return auth == authn.Anonymous }

package registry

import (
	"context"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// ping asks the registry for its authentication scheme, over https and, where it may be plain, over http.
func (r *Repository) ping(ctx context.Context, h *host) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.challenge != nil || h.err != nil {
		return h.err
	}
	rt := r.client.options.Transport
	if r.mayBePlain() {
		rt = bothWays{rt}
	}
	challenge, err := transport.Ping(ctx, r.name.Registry, rt)
	if err != nil {
		if ctx.Err() == nil {
			h.err = err // one wait for a registry that is down, not one for each image
		}
		return err
	}
	h.challenge, h.scheme = challenge, "https"
	if challenge.Insecure {
		h.scheme = "http"
	}
	return nil
}

// bothWays asks over https and http at once what Ping would ask over one after the other: where a registry speaks http, the push of an
// unchanged image would wait longer for https to fail than for everything else.
type bothWays struct{ next http.RoundTripper }

// grace is how long https may still take when http was answered. A port that speaks http fails to speak https about as soon; but a
// host may have a port for each, and https needs a round trip more and some computing.
const grace = 50 * time.Millisecond

type answer struct {
	resp *http.Response
	err  error
}

// RoundTrip returns https' answer where there is one. An answer that is not returned ends with the context, which is Ping's.
func (b bothWays) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" || req.Response != nil {
		return b.next.RoundTrip(req) // Ping asks over http too when it has waited long enough; a redirect may lead anywhere
	}
	begun := time.Now()
	secure, plain := b.ask(req, "https"), b.ask(req, "http")
	var p answer
	var over <-chan time.Time
	for {
		select {
		case s := <-secure:
			if s.err == nil {
				return s.resp, nil
			}
			if plain != nil {
				p = <-plain
			}
			if p.fromRegistry() {
				return p.resp, nil
			}
			return nil, s.err
		case p = <-plain:
			plain = nil
			if p.fromRegistry() {
				over = time.After(max(grace, time.Since(begun)))
			}
		case <-over:
			return p.resp, nil
		}
	}
}

func (b bothWays) ask(req *http.Request, scheme string) <-chan answer {
	req = req.Clone(req.Context())
	req.URL.Scheme = scheme
	c := make(chan answer, 1)
	go func() {
		resp, err := b.next.RoundTrip(req)
		c <- answer{resp, err}
	}()
	return c
}

// fromRegistry says whether this is an answer to Ping's question. What speaks https answers http with status 400, or a redirect.
func (a answer) fromRegistry() bool {
	return a.resp != nil && (a.resp.StatusCode == http.StatusOK || a.resp.StatusCode == http.StatusUnauthorized)
}

// Package transport is how flakeship speaks HTTP: one http.RoundTripper that names itself, tries again what is worth
// trying again, and keeps a log without secrets.
//
// A connection has one owner of its retries. Where a library under which the transport is put retries on its own, that
// is to be turned off.
package transport

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Options are the settings of New.
type Options struct {
	// UserAgent goes before what a library put into the header, e.g. "flakeship/1.2.0".
	UserAgent string
	// Base makes the connections; nil: Pool(64).
	Base http.RoundTripper
	// Tries is how often one request is sent at most; default 4, about two seconds of waiting in between.
	Tries int
	// Timeout is the longest time for one try, the response's body included; 0: none, as large bodies need.
	Timeout time.Duration
	// Buffer is how many bytes of a response's body are read as part of the try, so that an answer that breaks off is
	// tried again like one that never came. A longer body is handed on with the rest unread. 0: bodies are not buffered.
	Buffer int64
	// MaxWait is the longest wait between two tries; default 30 s. A Retry-After beyond it is not waited for.
	MaxWait time.Duration
	// RetryPost also repeats POST after failures that leave open whether it was carried out. Right for registries, where
	// a POST only opens an upload.
	RetryPost bool
	// Debugf is told of each try, free of secrets; nil: nothing is logged.
	Debugf func(format string, args ...any)
}

// TimeoutError is a try that took longer than Options.Timeout.
type TimeoutError struct{ After time.Duration }

func (e *TimeoutError) Error() string { return fmt.Sprintf("no complete answer within %s", e.After) }

// Timeout makes it a net.Error's timeout.
func (e *TimeoutError) Timeout() bool { return true }

// Temporary completes net.Error.
func (e *TimeoutError) Temporary() bool { return true }

type transport struct{ Options }

// New returns a transport for any number of goroutines.
//
// A request is sent again after a lost or refused connection and after status 408, 425, 429 and 5xx, and 403 with Retry-After,
// provided that it can be repeated: its method is GET, HEAD, PUT, DELETE or OPTIONS, or the server said that it did nothing
// (403, 429, 503), and its body, if any, can be read again (GetBody). Retry-After wins over the transport's own waiting time. A
// wait that would outlast the request's context is not begun. When tries run out the last response is returned, its body
// readable.
func New(o Options) http.RoundTripper {
	if o.Base == nil {
		o.Base = Pool(64)
	}
	if o.Tries == 0 {
		o.Tries = 4
	}
	if o.MaxWait == 0 {
		o.MaxWait = 30 * time.Second
	}
	if o.Debugf == nil {
		o.Debugf = func(string, ...any) {}
	}
	return &transport{o}
}

// Pool returns a base for New that keeps up to conns connections per host alive. Without it Go keeps two, and opens a new
// one for nearly each request of many at a time.
func Pool(conns int) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.MaxIdleConns = 0
	t.MaxIdleConnsPerHost = conns
	t.MaxConnsPerHost = conns
	return t
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		r, err := t.prepare(req, try)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		resp, err := t.once(r)
		t.log(r, resp, err, try, time.Since(start))
		wait, again := t.again(req, resp, err, try)
		if !again {
			return resp, err
		}
		if resp != nil {
			io.CopyN(io.Discard, resp.Body, 64<<10) // a body read to its end frees the connection for the next try
			resp.Body.Close()
		}
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
	}
}

// CloseIdleConnections lets http.Client close what the base holds.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.Base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// prepare returns a copy of req for one try: a RoundTripper leaves its request alone.
func (t *transport) prepare(req *http.Request, try int) (*http.Request, error) {
	r := req.Clone(req.Context())
	if try > 1 && req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, fmt.Errorf("read the request's body again: %w", err)
		}
		r.Body = body
	}
	if t.UserAgent != "" {
		agent := t.UserAgent
		if theirs := r.Header.Get("User-Agent"); theirs != "" {
			agent += " " + theirs
		}
		r.Header.Set("User-Agent", agent)
	}
	return r, nil
}

// once sends r and, when asked to, waits for its body.
func (t *transport) once(r *http.Request) (*http.Response, error) {
	if t.Timeout == 0 {
		resp, err := t.Base.RoundTrip(r)
		return t.buffer(resp, err)
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), t.Timeout, &TimeoutError{t.Timeout})
	resp, err := t.Base.RoundTrip(r.WithContext(ctx))
	if err != nil {
		err = cause(ctx, err)
		cancel()
		return nil, err
	}
	resp.Body = &timedBody{resp.Body, ctx, cancel}
	return t.buffer(resp, nil)
}

// buffer reads the first part of the body into memory.
func (t *transport) buffer(resp *http.Response, err error) (*http.Response, error) {
	if err != nil || t.Buffer == 0 {
		return resp, err
	}
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(resp.Body, t.Buffer))
	if err != nil {
		resp.Body.Close()
		return nil, fmt.Errorf("the answer broke off after %d bytes: %w", n, err)
	}
	if n < t.Buffer {
		resp.Body.Close()
		resp.Body = io.NopCloser(&b)
	} else {
		resp.Body = &prefixed{io.MultiReader(&b, resp.Body), resp.Body}
	}
	return resp, nil
}

// prefixed is a body of which a part was read already.
type prefixed struct {
	io.Reader
	io.Closer
}

// timedBody is a body that must be read before its try's time is up.
type timedBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelFunc
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = cause(b.ctx, err)
	}
	return n, err
}

func (b *timedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// cause puts the TimeoutError in place of the "context deadline exceeded" it makes of every pending call, so that a try
// that ran out of time is not taken for a caller that did.
func cause(ctx context.Context, err error) error {
	var late *TimeoutError
	if errors.As(context.Cause(ctx), &late) {
		return late
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// Certificates returns the system's certificates and those in file, as PEM.
func Certificates(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate", file)
	}
	return pool, nil
}

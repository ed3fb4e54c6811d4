package substituter

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// web is a cache that gives its files over http or https.
type web struct {
	clients
	base  *url.URL                  // without user, parameters and final slash
	user  *url.Userinfo             // nil: none is known
	sign  func(*http.Request) error // adds credentials of another kind; nil: there are none
	store bool                      // it is an object store, whatever its answers look like
	name  string                    // the cache's, for people
	fresh bool                      // proxies are to ask the cache anew
	warnf func(string, ...any)

	forbidden sync.Once // the warning about 403
}

func (w *web) url(name string) string {
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		return name // the URL in a narinfo may be a whole one
	}
	return w.base.String() + "/" + name
}

func (w *web) read(ctx context.Context, name string, limit int64) ([]byte, error) {
	resp, err := w.get(ctx, w.small, http.MethodGet, name)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, &RequestError{URL: w.url(name), Err: err}
	case int64(len(body)) > limit:
		return nil, tooLong(w.url(name), limit)
	}
	return body, nil
}

func (w *web) open(ctx context.Context, name string) (io.ReadCloser, error) {
	resp, err := w.get(ctx, w.bulk, http.MethodGet, name)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// has asks with HEAD, and with GET for the first byte where that is not known.
func (w *web) has(ctx context.Context, name string) (bool, error) {
	resp, err := w.get(ctx, w.small, http.MethodHead, name)
	if status := new(StatusError); errors.As(err, &status) && (status.Status == http.StatusMethodNotAllowed || status.Status == http.StatusNotImplemented) {
		resp, err = w.get(ctx, w.bulk, http.MethodGet, name, "Range", "bytes=0-0")
	}
	if err == errNotFound {
		return false, nil
	}
	if err == nil {
		resp.Body.Close()
	}
	return err == nil, err
}

func (w *web) put(ctx context.Context, name string, b *body) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, w.url(name), nil)
	if err != nil {
		return &RequestError{http.MethodPut, w.url(name), err}
	}
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(b, 0, b.size)), nil }
	req.Body, _ = req.GetBody()
	req.ContentLength = b.size
	req.Header.Set("Content-Type", b.kind)
	resp, err := w.send(w.bulk, req)
	if err == nil {
		resp.Body.Close()
	}
	return err
}

// get sends a request without body. What an object store hides is not there, except nix-cache-info: a cache that does not even
// show that is closed to us.
func (w *web) get(ctx context.Context, client *http.Client, method, name string, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.url(name), nil)
	if err != nil {
		return nil, &RequestError{method, w.url(name), err}
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if w.fresh {
		req.Header.Set("Cache-Control", "no-cache")
	}
	resp, err := w.send(client, req)
	hidden := new(hiddenError)
	switch {
	case !errors.As(err, &hidden):
		return resp, err
	case name == "nix-cache-info":
		return nil, hidden.denied
	}
	w.forbidden.Do(func() {
		w.warnf("%s answers 403 for what it does not have, as S3 does without the right to list: taken for missing", w.name)
	})
	return nil, errNotFound
}

// hiddenError is 403 from a cache that says so for files that do not exist.
type hiddenError struct{ denied *DeniedError }

func (e *hiddenError) Error() string { return e.denied.Error() }

// send makes one request with the cache's credentials and returns an answer of success; the caller closes its body.
//
// Errors: errNotFound and *hiddenError, for GET and HEAD; *DeniedError, *StatusError, *RequestError, or the cause of the end of
// the request's context.
func (w *web) send(client *http.Client, req *http.Request) (*http.Response, error) {
	at := req.URL.String()
	if w.user != nil && req.URL.Host == w.base.Host {
		password, _ := w.user.Password()
		req.SetBasicAuth(w.user.Username(), password) // http.Client drops it when it is sent to another host
	}
	if w.sign != nil && req.URL.Host == w.base.Host {
		if err := w.sign(req); err != nil {
			return nil, &RequestError{req.Method, at, err}
		}
	}
	resp, err := client.Do(req)
	switch {
	case err == nil:
	case req.Context().Err() != nil:
		return nil, context.Cause(req.Context())
	case strings.Contains(err.Error(), http.StatusText(http.StatusProxyAuthRequired)): // all that net/http tells of a refused CONNECT
		return nil, &DeniedError{Method: req.Method, URL: at, Status: http.StatusProxyAuthRequired}
	default:
		if wrapped := new(url.Error); errors.As(err, &wrapped) {
			err = wrapped.Err // its text repeats the URL
		}
		return nil, &RequestError{req.Method, at, err}
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // the status says what matters
	reads := req.Method == http.MethodGet || req.Method == http.MethodHead
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusGone:
		if reads {
			return nil, errNotFound
		}
	case http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusForbidden:
		denied := &DeniedError{Method: req.Method, URL: at, Status: resp.StatusCode, Anonymous: w.user == nil && req.Header.Get("Authorization") == ""}
		if reads && resp.StatusCode == http.StatusForbidden && w.hides(resp.Header, string(body)) {
			return nil, &hiddenError{denied}
		}
		return nil, denied
	}
	return nil, &StatusError{Method: req.Method, URL: at, Status: resp.StatusCode, Detail: firstLine(string(body))}
}

// hides says whether a 403 is the answer of an object store to a name it does not have: without the right to list a bucket, S3
// and its likes do not tell "absent" from "forbidden". Their other reasons, such as a key they do not know, have other codes.
func (w *web) hides(h http.Header, body string) bool {
	if strings.Contains(body, "<Code>") {
		return strings.Contains(body, "<Code>AccessDenied</Code>")
	}
	return w.store || h.Get("X-Amz-Request-Id") != "" || h.Get("Server") == "AmazonS3"
}

// firstLine returns what a server says in words: code and message of an object store, or the first line of text, at most 200
// bytes; a web page says nothing.
func firstLine(body string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(body), "\n")
	if code := element(body, "Code"); code != "" {
		line = code + ": " + element(body, "Message")
	}
	if line = strings.TrimSpace(line); strings.HasPrefix(line, "<") {
		return ""
	}
	if len(line) > 200 {
		line = strings.ToValidUTF8(line[:200], "") + "..."
	}
	return line
}

// element is the text of an XML element; an object store's answers are that simple.
func element(body, name string) string {
	_, after, _ := strings.Cut(body, "<"+name+">")
	text, _, ok := strings.Cut(after, "</"+name+">")
	if !ok {
		return ""
	}
	return strings.Join(strings.Fields(text), " ")
}

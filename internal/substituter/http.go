package substituter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
)

// httpSource is a cache that gives files over http or https.
type httpSource struct {
	client *http.Client
	bulk   *http.Client  // without a time limit
	base   *url.URL      // without user, parameters and final slash
	user   *url.Userinfo // nil: none is known
	dir    storepath.Dir
	warnf  func(string, ...any)
	fresh  bool // proxies are to ask the cache anew

	forbidden sync.Once // the warning about 403
}

func (s *httpSource) cacheInfo(ctx context.Context) (string, error) {
	text, err := s.get(ctx, "nix-cache-info")
	if hidden := new(hiddenError); errors.As(err, &hidden) {
		return "", hidden.denied // a cache that does not even show this is closed to us
	}
	return text, err
}

func (s *httpSource) lookup(ctx context.Context, paths []storepath.Path, parallel int, answer func(int, found)) {
	each(ctx, len(paths), parallel, answer, func(i int) found { return s.narInfo(ctx, paths[i]) })
}

// each calls ask for 0 to n-1, from parallel goroutines, and answer with what it returns or, when ctx has ended, with its cause.
func each(ctx context.Context, n, parallel int, answer func(int, found), ask func(int) found) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, parallel) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if ctx.Err() != nil {
					answer(i, found{err: context.Cause(ctx)})
				} else {
					answer(i, ask(i))
				}
			}
		})
	}
	wg.Wait()
}

func (s *httpSource) narInfo(ctx context.Context, p storepath.Path) found {
	name := p.Hash() + ".narinfo"
	text, err := s.get(ctx, name)
	if hidden := new(hiddenError); errors.As(err, &hidden) {
		s.forbidden.Do(func() {
			s.warnf("%s answers 403 for what it does not have, as S3 does without the right to list: taken for missing", s.base)
		})
		return found{err: errNotFound}
	}
	if err != nil {
		return found{err: err}
	}
	n, err := narinfo.Parse(text, s.dir)
	if err != nil {
		return found{err: &CorruptError{s.url(name), err}}
	}
	return found{info: n}
}

func (s *httpSource) url(name string) string { return s.base.String() + "/" + name }

// hiddenError is 403 from a cache that says so for files that do not exist.
type hiddenError struct{ denied *DeniedError }

func (e *hiddenError) Error() string { return e.denied.Error() }

// get reads a small file. Errors: errNotFound, *hiddenError, *DeniedError, *StatusError, *RequestError, *CorruptError, or the
// cause of ctx's end.
func (s *httpSource) get(ctx context.Context, name string) (string, error) {
	resp, err := s.send(ctx, s.client, http.MethodGet, name, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, narinfo.MaxSize+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", &RequestError{URL: s.url(name), Err: err}
	case len(body) > narinfo.MaxSize:
		return "", &CorruptError{s.url(name), fmt.Errorf("longer than %d KiB", narinfo.MaxSize>>10)}
	}
	return string(body), nil
}

// send makes one request, with body unless it is nil, and returns an answer of success. Errors: as get.
func (s *httpSource) send(ctx context.Context, client *http.Client, method, name string, body *body) (*http.Response, error) {
	at := s.url(name)
	req, err := http.NewRequestWithContext(ctx, method, at, nil)
	if err != nil {
		return nil, &RequestError{method, at, err}
	}
	if body != nil {
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(body, 0, body.size)), nil }
		req.Body, _ = req.GetBody()
		req.ContentLength = body.size
		req.Header.Set("Content-Type", body.kind)
	}
	if s.fresh && body == nil {
		req.Header.Set("Cache-Control", "no-cache")
	}
	if s.user != nil {
		password, _ := s.user.Password()
		req.SetBasicAuth(s.user.Username(), password) // http.Client drops it when it is sent to another host
	}
	resp, err := client.Do(req)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case strings.Contains(err.Error(), http.StatusText(http.StatusProxyAuthRequired)): // all that net/http tells of a refused CONNECT
		return nil, &DeniedError{Method: method, URL: at, Status: http.StatusProxyAuthRequired}
	default:
		if wrapped := new(url.Error); errors.As(err, &wrapped) {
			err = wrapped.Err // its text repeats the URL
		}
		return nil, &RequestError{method, at, err}
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // the status says what matters
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusGone:
		if body == nil { // a cache that cannot be written to may say so too
			return nil, errNotFound
		}
	case http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusForbidden:
		denied := &DeniedError{Method: method, URL: at, Status: resp.StatusCode, Anonymous: s.user == nil}
		if body == nil && resp.StatusCode == http.StatusForbidden && hides(resp.Header, string(text)) {
			return nil, &hiddenError{denied}
		}
		return nil, denied
	}
	return nil, &StatusError{Method: method, URL: at, Status: resp.StatusCode, Detail: firstLine(string(text))}
}

// hides says whether a 403 is the answer of an object store to a name it does not have: without the right to list a bucket, S3
// and its likes do not tell "absent" from "forbidden". Their other reasons, such as a key they do not know, have other codes.
func hides(h http.Header, body string) bool {
	if strings.Contains(body, "<Code>") {
		return strings.Contains(body, "<Code>AccessDenied</Code>")
	}
	return h.Get("X-Amz-Request-Id") != ""
}

// firstLine returns what a server says in words: the first line of text, at most 200 bytes; a web page says nothing.
func firstLine(body string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(body), "\n")
	if line = strings.TrimSpace(line); strings.HasPrefix(line, "<") {
		return ""
	}
	if len(line) > 200 {
		line = strings.ToValidUTF8(line[:200], "") + "..."
	}
	return line
}

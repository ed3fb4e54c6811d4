package push

import (
	"bytes"
	"io"
	"net/http"
	"path"
	"strings"
)

// DryRun returns a transport that lets a registry be read, through inner, and answers every write itself, the way a registry
// does that takes everything: a push over it does all but write. Bodies are read to their end, so that what would be sent is
// counted.
func DryRun(inner http.RoundTripper) http.RoundTripper { return dryRun{inner} }

type dryRun struct{ inner http.RoundTripper }

func (d dryRun) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet || req.Method == http.MethodHead || !strings.HasPrefix(req.URL.Path, "/v2/") {
		return d.inner.RoundTrip(req) // other paths give tokens
	}
	if req.Body != nil {
		defer req.Body.Close()
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return nil, err
		}
	}
	query := req.URL.Query()
	switch {
	case req.Method == http.MethodPut:
		return answerTo(req, http.StatusCreated, nil), nil
	case query.Has("mount"):
		repo := strings.TrimSuffix(strings.TrimPrefix(req.URL.Path, "/v2/"), "/blobs/uploads/")
		if query.Get("from") != repo { // not asked: this very run may have put it there
			return answerTo(req, http.StatusCreated, nil), nil
		}
		ask := req.Clone(req.Context())
		ask.Method, ask.Body, ask.ContentLength = http.MethodHead, nil, 0
		ask.URL.Path, ask.URL.RawQuery = "/v2/"+repo+"/blobs/"+query.Get("mount"), ""
		resp, err := d.inner.RoundTrip(ask)
		if err != nil {
			return nil, err
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return answerTo(req, http.StatusCreated, nil), nil
		}
	}
	return answerTo(req, http.StatusAccepted, http.Header{"Location": {path.Join(req.URL.Path, "dry-run")}}), nil
}

// CloseIdleConnections lets http.Client close what inner holds.
func (d dryRun) CloseIdleConnections() {
	if c, ok := d.inner.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// answerTo makes a response without a body.
func answerTo(req *http.Request, status int, header http.Header) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Header: header, Request: req,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: io.NopCloser(bytes.NewReader(nil)),
	}
}

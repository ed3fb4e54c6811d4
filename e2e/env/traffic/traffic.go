// Package traffic records what reached an HTTP server, one JSON line per
// request, and sums it up: tests and the demo report bytes that were really
// sent, not what the sender says of itself.
package traffic

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"sync"
	"time"
)

// Request is one request that was answered or broken off.
type Request struct {
	Time      time.Time `json:"time"` // of arrival
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	Query     string    `json:"query,omitempty"`
	Status    int       `json:"status"`
	Received  int64     `json:"received"` // bytes of the request's body
	Sent      int64     `json:"sent"`     // bytes of the response's body
	Seconds   float64   `json:"seconds"`
	UserAgent string    `json:"userAgent,omitempty"`
}

// Record passes requests to next and writes a line for each to w. The line is
// written before the response ends, so a client that has its answer finds it.
func Record(w io.Writer, next http.Handler) http.Handler {
	var mu sync.Mutex
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		entry := Request{
			Time: time.Now(), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, UserAgent: r.UserAgent(),
		}
		body := &countingBody{ReadCloser: r.Body}
		r.Body = body
		out := &countingWriter{ResponseWriter: rw}
		defer func() {
			entry.Status, entry.Sent, entry.Received = out.status, out.bytes, body.bytes
			entry.Seconds = time.Since(entry.Time).Seconds()
			line, err := json.Marshal(entry)
			if err != nil {
				panic(err) // a struct of strings and numbers
			}
			mu.Lock()
			defer mu.Unlock()
			_, _ = w.Write(append(line, '\n'))
		}()
		next.ServeHTTP(out, r)
	})
}

type countingBody struct {
	io.ReadCloser
	bytes int64
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes += int64(n)
	return n, err
}

type countingWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *countingWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Read returns the requests of a file that Record wrote to, from byte offset
// on, and the offset to go on from. A missing file holds none.
func Read(file string, offset int64) ([]Request, int64, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, offset, nil
	}
	if err != nil {
		return nil, offset, err
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, offset, err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, offset, err
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1] // the last line may be on its way
	var requests []Request
	for line := range bytes.Lines(text) {
		var r Request
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, offset, fmt.Errorf("%s: %w", file, err)
		}
		requests = append(requests, r)
	}
	return requests, offset + int64(len(text)), nil
}

// Summary is what a list of requests to a registry comes to.
type Summary struct {
	Requests    int
	Blobs       int   // uploads that were finished
	BlobBytes   int64 // bytes of blobs that arrived, of unfinished uploads too
	Mounts      int   // blobs taken from another repository without an upload
	Manifests   int   // manifests and indexes put, by digest or tag
	BytesIn     int64 // of all request bodies
	BytesOut    int64 // of all response bodies
	FailedCalls int   // answered with 5xx or not at all
}

var (
	upload   = regexp.MustCompile(`^/v2/.+/blobs/uploads/`)
	manifest = regexp.MustCompile(`^/v2/.+/manifests/`)
)

// Sum sums up.
func Sum(requests []Request) Summary {
	var s Summary
	for _, r := range requests {
		s.Requests++
		s.BytesIn += r.Received
		s.BytesOut += r.Sent
		switch {
		case r.Status == 0 || r.Status >= 500:
			s.FailedCalls++
		case manifest.MatchString(r.Path) && r.Method == http.MethodPut && r.Status == http.StatusCreated:
			s.Manifests++
		case upload.MatchString(r.Path) && r.Method == http.MethodPut && r.Status == http.StatusCreated:
			s.Blobs++
		case upload.MatchString(r.Path) && r.Method == http.MethodPost && r.Status == http.StatusCreated:
			// Created at once: mounted, or the whole blob came with the POST.
			if r.Received > 0 {
				s.Blobs++
			} else {
				s.Mounts++
			}
		}
		if upload.MatchString(r.Path) {
			s.BlobBytes += r.Received
		}
	}
	return s
}

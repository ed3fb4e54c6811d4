package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// script answers each request with the next step; the last step repeats.
type script struct {
	steps  []func(*http.Request) (*http.Response, error)
	bodies []string
	times  []time.Time
	agents []string
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.times = append(s.times, time.Now())
	s.agents = append(s.agents, r.Header.Get("User-Agent"))
	if r.Body != nil {
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		s.bodies = append(s.bodies, string(b))
	}
	return s.steps[min(len(s.times), len(s.steps))-1](r)
}

func status(code int, header ...string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		h := http.Header{}
		for i := 0; i+1 < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return &http.Response{StatusCode: code, Status: http.StatusText(code), Header: h, Body: io.NopCloser(strings.NewReader("body")), Request: r}, nil
	}
}

func fails(err error) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

func hangs(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestRetries(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	reset := &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	tests := []struct {
		name      string
		method    string
		retryPost bool
		steps     []func(*http.Request) (*http.Response, error)
		tries     int
		status    int
		err       error
	}{
		{"an answer is an answer", "GET", false, []func(*http.Request) (*http.Response, error){status(404)}, 1, 404, nil},
		{"busy, then fine", "GET", false, []func(*http.Request) (*http.Response, error){status(503), status(429), status(200)}, 3, 200, nil},
		{"tries run out", "GET", false, []func(*http.Request) (*http.Response, error){status(500)}, 4, 500, nil},
		{"a method it does not know stays unknown", "GET", false, []func(*http.Request) (*http.Response, error){status(501)}, 1, 501, nil},
		{"connection lost", "PUT", false, []func(*http.Request) (*http.Response, error){fails(reset), status(201)}, 2, 201, nil},
		{"refused for good", "GET", false, []func(*http.Request) (*http.Response, error){fails(dial)}, 4, 0, syscall.ECONNREFUSED},
		{"post may have been carried out", "POST", false, []func(*http.Request) (*http.Response, error){fails(reset)}, 1, 0, syscall.ECONNRESET},
		{"post was never sent", "POST", false, []func(*http.Request) (*http.Response, error){fails(dial), status(202)}, 2, 202, nil},
		{"post was turned away", "POST", false, []func(*http.Request) (*http.Response, error){status(429), status(202)}, 2, 202, nil},
		{"post failed half-way", "POST", false, []func(*http.Request) (*http.Response, error){status(500)}, 1, 500, nil},
		{"post that only opens an upload", "POST", true, []func(*http.Request) (*http.Response, error){status(500), fails(reset), status(202)}, 3, 202, nil},
		{"no such host", "GET", false, []func(*http.Request) (*http.Response, error){fails(&net.DNSError{IsNotFound: true})}, 1, 0, &net.DNSError{}},
		{"plain http on the other side", "GET", false, []func(*http.Request) (*http.Response, error){fails(http.ErrSchemeMismatch)}, 1, 0, http.ErrSchemeMismatch},
		{"asked too often, the GitHub way", "GET", false, []func(*http.Request) (*http.Response, error){status(403, "Retry-After", "1"), status(200)}, 2, 200, nil},
		{"denied", "GET", false, []func(*http.Request) (*http.Response, error){status(403)}, 1, 403, nil},
		{"long Retry-After is not waited for", "GET", false, []func(*http.Request) (*http.Response, error){status(429, "Retry-After", "3600")}, 1, 429, nil},
		{"hanging costs two tries", "GET", false, []func(*http.Request) (*http.Response, error){hangs}, 2, 0, &TimeoutError{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: test.steps}
				rt := New(Options{Base: s, RetryPost: test.retryPost, Timeout: 10 * time.Second})
				req, _ := http.NewRequest(test.method, "http://cache.test/x", strings.NewReader("payload"))
				resp, err := rt.RoundTrip(req)
				if len(s.times) != test.tries {
					t.Errorf("%d tries, want %d", len(s.times), test.tries)
				}
				for i, b := range s.bodies {
					if b != "payload" {
						t.Errorf("body of try %d is %q, want the whole payload", i+1, b)
					}
				}
				if test.err != nil {
					var late *TimeoutError
					var dns *net.DNSError
					if !errors.Is(err, test.err) && !(errors.As(test.err, &late) && errors.As(err, &late)) && !(errors.As(test.err, &dns) && errors.As(err, &dns)) {
						t.Errorf("error %v, want %v", err, test.err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if resp.StatusCode != test.status {
					t.Errorf("status %d, want %d", resp.StatusCode, test.status)
				}
				if b, err := io.ReadAll(resp.Body); string(b) != "body" || err != nil {
					t.Errorf("the last response's body is %q, %v; want it readable", b, err)
				}
			})
		})
	}
}

func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		date := time.Now().Add(7 * time.Second).UTC().Format(http.TimeFormat)
		s := &script{steps: []func(*http.Request) (*http.Response, error){
			status(429, "Retry-After", "3"), status(503, "Retry-After", date), status(500), status(200)}}
		req, _ := http.NewRequest("GET", "http://cache.test/x", nil)
		if _, err := New(Options{Base: s}).RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		var waits []time.Duration
		for i := range s.times[1:] {
			waits = append(waits, s.times[i+1].Sub(s.times[i]))
		}
		if waits[0] != 3*time.Second {
			t.Errorf("waited %s, Retry-After said 3 s", waits[0])
		}
		if waits[1] < 3*time.Second || waits[1] > 4*time.Second {
			t.Errorf("waited %s, Retry-After's date was 4 s away", waits[1])
		}
		if waits[2] < 500*time.Millisecond || waits[2] > time.Second {
			t.Errorf("waited %s after the third try, want 0.5 to 1 s", waits[2])
		}
	})
}

func TestContextEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &script{steps: []func(*http.Request) (*http.Response, error){status(503, "Retry-After", "20")}}
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://cache.test/x", nil)
		go func() { time.Sleep(time.Second); cancel() }()
		start := time.Now()
		if _, err := New(Options{Base: s}).RoundTrip(req); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("returned after %s, was cancelled after 1 s", took)
		}
	})
}

func TestNoWaitBeyondTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		s := &script{steps: []func(*http.Request) (*http.Response, error){status(503, "Retry-After", "20")}}
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://cache.test/x", nil)
		resp, err := New(Options{Base: s}).RoundTrip(req)
		if err != nil || resp.StatusCode != 503 {
			t.Errorf("got %v, %v; want the server's answer at once", resp, err)
		}
	})
}

// A body that cannot be read twice is sent once.
func TestStreamedBody(t *testing.T) {
	s := &script{steps: []func(*http.Request) (*http.Response, error){status(503), status(200)}}
	req, _ := http.NewRequest("PUT", "http://cache.test/x", io.MultiReader(strings.NewReader("payload")))
	resp, err := New(Options{Base: s}).RoundTrip(req)
	if err != nil || resp.StatusCode != 503 || len(s.times) != 1 {
		t.Errorf("got %v, %v after %d tries", resp, err, len(s.times))
	}
}

// breaker is a server whose first n answers end in the middle.
func breaker(n int32) *httptest.Server {
	var served atomic.Int32
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		if served.Add(1) <= n {
			w.Write([]byte("half"))
			panic(http.ErrAbortHandler)
		}
		w.Write([]byte("0123456789"))
	}))
}

func TestBrokenOffAnswer(t *testing.T) {
	srv := breaker(1)
	defer srv.Close()
	client := &http.Client{Transport: New(Options{Buffer: 1 << 10})}
	resp, err := client.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); string(b) != "0123456789" || err != nil {
		t.Errorf("body %q, %v", b, err)
	}
}

func TestBufferLeavesTheRest(t *testing.T) {
	srv := breaker(0)
	defer srv.Close()
	for _, size := range []int64{1, 9, 10, 11} {
		client := &http.Client{Transport: New(Options{Buffer: size, Timeout: time.Minute})}
		resp, err := client.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); string(b) != "0123456789" || err != nil {
			t.Errorf("buffer of %d: body %q, %v", size, b, err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The time limit covers the body, and says so in words of its own.
func TestStalledBody(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("some"))
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(release)
	var late *TimeoutError

	client := &http.Client{Transport: New(Options{Tries: 1, Timeout: 50 * time.Millisecond})}
	resp, err := client.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); !errors.As(err, &late) {
		t.Errorf("reading ends with %v, want a TimeoutError", err)
	}
	resp.Body.Close()

	client.Transport = New(Options{Tries: 1, Timeout: 50 * time.Millisecond, Buffer: 1 << 10})
	if _, err := client.Get(srv.URL); !errors.As(err, &late) {
		t.Errorf("the request ends with %v, want a TimeoutError", err)
	}
}

func TestUserAgent(t *testing.T) {
	s := &script{steps: []func(*http.Request) (*http.Response, error){status(200)}}
	rt := New(Options{Base: s, UserAgent: "flakeship/1"})
	req, _ := http.NewRequest("GET", "http://cache.test/x", nil)
	rt.RoundTrip(req)
	req.Header.Set("User-Agent", "go-containerregistry/0")
	rt.RoundTrip(req)
	if got := fmt.Sprint(s.agents); got != "[flakeship/1 flakeship/1 go-containerregistry/0]" {
		t.Errorf("user agents %s", got)
	}
	if req.Header.Get("User-Agent") != "go-containerregistry/0" {
		t.Error("the caller's request was changed")
	}
}

func TestLogHasNoSecrets(t *testing.T) {
	var log bytes.Buffer
	s := &script{steps: []func(*http.Request) (*http.Response, error){status(500), status(200)}}
	rt := New(Options{Base: s, Debugf: func(f string, a ...any) { fmt.Fprintf(&log, f+"\n", a...) }})
	req, _ := http.NewRequest("GET", "https://user:hunter2@cache.test/x?X-Amz-Signature=hunter2&digest=sha256:abc", nil)
	req.Header.Set("Authorization", "Bearer hunter2")
	if _, err := rt.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "hunter2") || strings.Contains(log.String(), "user") {
		t.Errorf("the log holds a secret:\n%s", log.String())
	}
	for _, want := range []string{"GET https://cache.test/x?X-Amz-Signature=...&digest=sha256:abc", "try 2"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120")
	f.Add("Fri, 31 Dec 1999 23:59:59 GMT")
	f.Add("-1")
	f.Fuzz(func(t *testing.T, value string) {
		if wait, _ := RetryAfter(value, time.Now()); wait < 0 {
			t.Errorf("RetryAfter(%q) = %s", value, wait)
		}
	})
}

package registry

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// far is a host whose answers over each scheme take their time; status 0 is a connection that fails.
type far map[string]struct {
	after  time.Duration
	status int
}

func (f far) RoundTrip(req *http.Request) (*http.Response, error) {
	a := f[req.URL.Scheme]
	select {
	case <-time.After(a.after):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	if a.status == 0 {
		return nil, errors.New("no " + req.URL.Scheme + " here")
	}
	return &http.Response{StatusCode: a.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
}

// https is preferred, and http is not waited for longer than https takes to fail.
func TestPingBothWays(t *testing.T) {
	noCredentials(t)
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		host   far
		scheme string // empty: it fails
		after  time.Duration
	}{
		"only http":                {far{"https": {40 * ms, 0}, "http": {40 * ms, 200}}, "http", 40 * ms},
		"only http, with tokens":   {far{"https": {40 * ms, 0}, "http": {40 * ms, 401}}, "http", 40 * ms},
		"https is never answered":  {far{"https": {time.Hour, 0}, "http": {40 * ms, 200}}, "http", 90 * ms},
		"a long way to http":       {far{"https": {time.Hour, 0}, "http": {100 * ms, 200}}, "http", 200 * ms},
		"only https":               {far{"https": {60 * ms, 200}, "http": {40 * ms, 400}}, "https", 60 * ms},
		"only https, slow":         {far{"https": {time.Second, 200}, "http": {40 * ms, 400}}, "https", time.Second},
		"a port for each":          {far{"https": {60 * ms, 401}, "http": {40 * ms, 200}}, "https", 60 * ms},
		"http leads to https":      {far{"https": {200 * ms, 200}, "http": {40 * ms, 308}}, "https", 200 * ms},
		"neither":                  {far{"https": {40 * ms, 0}, "http": {40 * ms, 0}}, "", 80 * ms},
		"https takes all its time": {far{"https": {250 * ms, 200}, "http": {time.Hour, 0}}, "https", 250 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, err := Open(Options{Transport: tt.host}).Repository("127.0.0.1:5000/team/api")
				if err != nil {
					t.Fatal(err)
				}
				h, begun := &host{}, time.Now()
				err = r.ping(t.Context(), h)
				if h.scheme != tt.scheme || (err == nil) != (tt.scheme != "") || time.Since(begun) != tt.after {
					t.Errorf("speaks %q after %s, %v; want %q after %s", h.scheme, time.Since(begun), err, tt.scheme, tt.after)
				}
				if err != nil && (!strings.Contains(err.Error(), "no https here") || !strings.Contains(err.Error(), "no http here")) {
					t.Errorf("%v names not both ways", err)
				}
			})
		})
	}
}

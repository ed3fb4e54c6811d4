package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// again says whether, and after which wait, a request is worth another try.
func (t *transport) again(req *http.Request, resp *http.Response, err error, try int) (time.Duration, bool) {
	replayable := req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
	if try >= t.Tries || !replayable || req.Context().Err() != nil {
		return 0, false
	}
	safe := t.repeatable(req.Method)
	var wait time.Duration
	if err != nil {
		if !lost(err, try) || !safe && !unsent(err) {
			return 0, false
		}
		wait = backoff(try)
	} else {
		var told bool
		if wait, told = RetryAfter(resp.Header.Get("Retry-After"), time.Now()); !told {
			wait = backoff(try)
		}
		limited := told && resp.StatusCode == http.StatusForbidden // what GitHub says to those who ask too often
		refused := limited || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
		if !limited && !busy(resp.StatusCode) || !safe && !refused {
			return 0, false
		}
	}
	if wait > t.MaxWait {
		return 0, false
	}
	if end, ok := req.Context().Deadline(); ok && time.Until(end) <= wait {
		return 0, false // the answer at hand says more than "deadline exceeded"
	}
	return wait, true
}

func (t *transport) repeatable(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions:
		return true
	case http.MethodPost:
		return t.RetryPost
	}
	return false
}

// busy are the statuses that may be gone in a moment.
func busy(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500
}

// lost says whether err is of the kind that a second try may not meet.
func lost(err error, try int) bool {
	var (
		late *TimeoutError
		cert *tls.CertificateVerificationError
		talk tls.RecordHeaderError
		name *net.DNSError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &late):
		return try < 2 // a server that hangs costs the whole time limit each time
	case errors.As(err, &cert), errors.As(err, &talk), errors.Is(err, http.ErrSchemeMismatch):
		return false // also what a registry without TLS says to the first, hopeful, https request
	case errors.As(err, &name):
		return !name.IsNotFound
	}
	return !strings.Contains(err.Error(), "unsupported protocol scheme") // has no type of its own
}

// unsent says whether err came before anything was sent.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// backoff is the wait after the try-th try: 0.25 s doubled each time, spread out so that many clients of one server that
// fell over do not come back in step.
func backoff(try int) time.Duration {
	full := 250 * time.Millisecond << min(try-1, 10)
	return full/2 + rand.N(full/2)
}

// RetryAfter reads the header of that name: seconds, or a date. It reports false for neither.
func RetryAfter(value string, now time.Time) (time.Duration, bool) {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(date.Sub(now), 0), true
	}
	return 0, false
}

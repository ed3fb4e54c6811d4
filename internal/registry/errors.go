package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	ours "github.com/flakeship/flakeship/internal/transport"
)

// ErrAbsent says that the registry was asked and has no such tag, digest or repository.
var ErrAbsent = errors.New("not in the registry")

// absentError is ErrAbsent and the answer that said so.
type absentError struct{ *StatusError }

func (e *absentError) Error() string        { return ErrAbsent.Error() + ": " + e.StatusError.Error() }
func (e *absentError) Is(target error) bool { return target == ErrAbsent }
func (e *absentError) Unwrap() error        { return e.StatusError }

// DeniedError says that a registry refused: it wants credentials, does not know those it got, or they do not suffice.
type DeniedError struct {
	Host       string
	Repository string // path, without the host
	Status     int    // 401 or 403
	Anonymous  bool   // no credentials were found, so none were sent
	Detail     string // the registry's words, one line
}

func (e *DeniedError) Error() string {
	what := "refuses the credentials"
	switch {
	case e.Anonymous:
		what = "wants credentials and none were found"
	case e.Status == http.StatusForbidden:
		what = "takes the credentials but they do not suffice"
	}
	return fmt.Sprintf("%s %s for %s: %d %s", e.Host, what, e.Repository, e.Status, e.Detail)
}

// StatusError is an answer that says neither yes nor no: a failing registry, or something that is none.
type StatusError struct {
	Method string
	URL    string // without query
	Status int
	Codes  []string // the registry's error codes, such as MANIFEST_BLOB_UNKNOWN
	Detail string   // its words, one line

	RetryAfter time.Duration // what it asked to wait, 0 when it did not
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: %d %s", e.Method, e.URL, e.Status, e.Detail)
}

// Has says whether the registry gave an error code.
func (e *StatusError) Has(code transport.ErrorCode) bool {
	for _, c := range e.Codes {
		if c == string(code) {
			return true
		}
	}
	return false
}

// UnreachableError says that there was no answer: no such host, connection refused, a certificate that does not verify.
type UnreachableError struct {
	Host string
	Err  error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%s cannot be reached: %v", e.Host, e.Err)
}
func (e *UnreachableError) Unwrap() error { return e.Err }

// CredentialsError says that credentials could not be read: a docker configuration that is no JSON, a helper that fails.
type CredentialsError struct {
	Host string
	Err  error
}

func (e *CredentialsError) Error() string {
	cause, _, _ := strings.Cut(e.Err.Error(), ", out: `") // what a helper printed before it failed may be the secret itself
	return fmt.Sprintf("credentials for %s cannot be read: %s", e.Host, cause)
}
func (e *CredentialsError) Unwrap() error { return e.Err }

// explain turns an error without an answer to req into one of the package's; s is nil when there is no session yet.
func (r *Repository) explain(req *http.Request, err error, s *session) error {
	if ctxErr := req.Context().Err(); ctxErr != nil {
		return ctxErr
	}
	if unread := new(CredentialsError); errors.As(err, &unread) {
		return unread
	}
	// On loopback http is tried after https; what it is told on a port for https explains nothing.
	if untrusted := new(tls.CertificateVerificationError); errors.As(err, &untrusted) {
		return &UnreachableError{Host: r.Host(), Err: untrusted}
	}
	// Ping and token exchange report answers as errors of their own type.
	if answer := new(transport.Error); errors.As(err, &answer) {
		var codes, words []string
		for _, d := range answer.Errors {
			codes, words = append(codes, string(d.Code)), append(words, d.String())
		}
		u := req.URL
		if answer.Request != nil {
			u = answer.Request.URL
		}
		return r.classify(http.MethodGet, u, answer.StatusCode, codes, strings.Join(words, "; "), r.isAnonymous(req.Context(), s))
	}
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		err = wrapped.Err // its text has the URL, with the query
	}
	return &UnreachableError{Host: r.Host(), Err: err}
}

// refused turns an unwanted answer into an error.
func (r *Repository) refused(req *http.Request, resp *http.Response, s *session) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what arrived is all there is to show
	var said struct{ Errors []transport.Diagnostic }
	var codes, words []string
	if json.Unmarshal(body, &said) == nil {
		for _, d := range said.Errors {
			codes = append(codes, string(d.Code))
			words = append(words, strings.TrimSuffix(string(d.Code)+": "+d.Message, ": "))
		}
	}
	detail := strings.Join(words, "; ")
	if detail == "" {
		detail = http.StatusText(resp.StatusCode)
		if text := line(string(body)); text != "" && !strings.HasPrefix(text, "<") { // an HTML page explains nothing
			detail += ": " + text
		}
	}
	err := r.classify(req.Method, req.URL, resp.StatusCode, codes, detail, r.isAnonymous(req.Context(), s))
	if answer := new(StatusError); errors.As(err, &answer) {
		answer.RetryAfter, _ = ours.RetryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	return err
}

func (r *Repository) classify(method string, u *url.URL, status int, codes []string, detail string, anonymous bool) error {
	if detail == "" {
		detail = http.StatusText(status)
	}
	answer := &StatusError{Method: method, URL: redacted(u), Status: status, Codes: codes, Detail: line(detail)}
	switch status {
	case http.StatusOK, http.StatusNoContent:
		// Where anything but the answer of a registry would do: a web server that has one page for every question.
		answer.Detail += ": no container registry answers at this address"
	case http.StatusNotFound:
		// A web server that is no registry answers 404 to the first question, which a registry never does.
		if strings.TrimSuffix(u.Path, "/") != "/v2" {
			return &absentError{answer}
		}
		answer.Detail += ": no container registry answers at this address"
	case http.StatusUnauthorized, http.StatusForbidden:
		// GitHub's registry says 403 when it is asked too often.
		if !answer.Has(transport.TooManyRequestsErrorCode) {
			return &DeniedError{Host: r.Host(), Repository: r.Path(), Status: status, Anonymous: anonymous, Detail: line(detail)}
		}
	}
	return answer
}

func (r *Repository) isAnonymous(ctx context.Context, s *session) bool {
	if s != nil {
		return s.anonymous
	}
	auth, err := r.credentials(ctx)
	return err == nil && isAnonymous(auth)
}

// redacted is u without what may be secret: upload addresses and redirects carry signatures in their query.
func redacted(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// line folds text to one line of at most 300 bytes.
func line(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	return text
}

package substituter

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
)

// URLError is a cache URL that cannot be used.
type URLError struct {
	URL    string // without user and password
	Reason string
}

func (e *URLError) Error() string { return fmt.Sprintf("cache %q: %s", e.URL, e.Reason) }

// StoreDirError is a cache whose paths do not fit the installed Nix.
type StoreDirError struct {
	Cache        string
	Theirs, Ours string // store directories
}

func (e *StoreDirError) Error() string {
	return fmt.Sprintf("cache %s is for stores in %s, this Nix has its store in %s", e.Cache, e.Theirs, e.Ours)
}

// DeniedError is a cache that wants credentials, or others: 401, 403, 407.
type DeniedError struct {
	Method    string // empty: GET
	URL       string
	Status    int
	Anonymous bool // no credentials were known for its host
}

func (e *DeniedError) Error() string {
	who := "the credentials sent are refused"
	if e.Status == http.StatusProxyAuthRequired {
		who = "the proxy wants credentials"
	} else if e.Anonymous {
		who = "no credentials were found for its host"
	}
	return fmt.Sprintf("%s %s: %s, %s", cmp.Or(e.Method, "GET"), e.URL, status(e.Status), who)
}

// StatusError is an answer that says neither "here" nor "not here".
type StatusError struct {
	Method string // empty: GET
	URL    string
	Status int
	Detail string // first line of the answer
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s %s: %s", cmp.Or(e.Method, "GET"), e.URL, status(e.Status))
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

func status(code int) string {
	if text := http.StatusText(code); text != "" {
		return fmt.Sprintf("%d %s", code, text)
	}
	return fmt.Sprint(code)
}

// RequestError is a cache that gave no answer: refused connection, no such host, time out, unreadable file.
type RequestError struct {
	Method string // empty: GET
	URL    string
	Err    error
}

func (e *RequestError) Error() string {
	return fmt.Sprintf("%s %s: %v", cmp.Or(e.Method, "GET"), e.URL, e.Err)
}
func (e *RequestError) Unwrap() error { return e.Err }

// CorruptError is a file of a cache that Nix could not read either.
type CorruptError struct {
	URL string
	Err error
}

func (e *CorruptError) Error() string { return fmt.Sprintf("%s: %v", e.URL, e.Err) }
func (e *CorruptError) Unwrap() error { return e.Err }

// StoreError is a store behind the installed Nix that could not be asked.
type StoreError struct {
	Store string
	Err   error
}

func (e *StoreError) Error() string { return fmt.Sprintf("ask %s: %v", e.Store, e.Err) }
func (e *StoreError) Unwrap() error { return e.Err }

var userinfo = regexp.MustCompile(`//[^/]*@`)

// redactText is for URLs that cannot even be parsed.
func redactText(text string) string { return userinfo.ReplaceAllString(text, "//") }

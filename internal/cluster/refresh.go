package cluster

import (
	"io"
	"net/http"
	"os"
	"strings"
)

// refresh sends a request a second time when the server no longer takes the credentials, and they are of a kind that is renewed
// while a long wait goes on: a token in a file, or what an exec plugin prints. client-go would go on with an old token from a
// file for up to a minute, and has the plugin run again only for the request after the one that failed.
type refresh struct {
	next      http.RoundTripper
	tokenFile string // empty: it is the plugin that renews
}

func (t *refresh) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.next.RoundTrip(r)
	if err != nil || answer.StatusCode != http.StatusUnauthorized || r.Body != nil && r.Body != http.NoBody && r.GetBody == nil {
		return answer, err
	}
	again := r.Clone(r.Context())
	if t.tokenFile != "" {
		token, err := os.ReadFile(t.tokenFile)
		if err != nil {
			return answer, nil // the refusal says more
		}
		again.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	if r.GetBody != nil {
		if again.Body, err = r.GetBody(); err != nil {
			return answer, nil
		}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection can be used again
	answer.Body.Close()
	return t.next.RoundTrip(again)
}

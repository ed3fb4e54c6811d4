package registry

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

// How long a registry, or a proxy in front of it, asks to wait is told with its answer.
func TestRetryAfterIsTold(t *testing.T) {
	noCredentials(t)
	for value, want := range map[string]time.Duration{
		"7": 7 * time.Second, "0": 0, "": 0, "-7": 0, "soon": 0, "Fri, 31 Dec 1999 23:59:59 GMT": 0,
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): time.Hour,
	} {
		host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				w.Header().Set("Retry-After", value)
				w.WriteHeader(http.StatusTooManyRequests)
			}
		}))
		_, err := Open(Options{}).Head(t.Context(), host+"/team/api:v1")
		answer := new(StatusError)
		if !errors.As(err, &answer) || answer.RetryAfter > want || answer.RetryAfter < want-10*time.Minute*(want/time.Hour) {
			t.Errorf("Retry-After %q: %v, %+v, want %s", value, err, answer, want)
		}
	}
}

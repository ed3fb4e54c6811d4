package transport

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// log tells Debugf of one try. Headers are never logged: they carry the credentials.
func (t *transport) log(r *http.Request, resp *http.Response, err error, try int, took time.Duration) {
	again := ""
	if try > 1 {
		again = ", try " + string(rune('0'+min(try, 9)))
	}
	took = took.Round(time.Millisecond)
	if err != nil {
		t.Debugf("%s %s: %v (%s%s)", r.Method, Redact(r.URL), err, took, again)
		return
	}
	t.Debugf("%s %s: %s (%s%s)", r.Method, Redact(r.URL), resp.Status, took, again)
}

// plain are the query parameters whose values are worth reading and hold no secret: what the registry API has.
var plain = []string{"digest", "from", "last", "mount", "n", "scope", "service"}

// Redact returns u without what may be a secret: user and password, and the values of query parameters other than the
// registry API's, such as those of a presigned URL.
func Redact(u *url.URL) string {
	c := *u
	c.User = nil
	c.Fragment, c.RawFragment = "", ""
	if c.RawQuery != "" {
		var parts []string
		for part := range strings.SplitSeq(c.RawQuery, "&") {
			if name, _, ok := strings.Cut(part, "="); ok && !slices.Contains(plain, name) {
				part = name + "=..."
			}
			parts = append(parts, part)
		}
		c.RawQuery = strings.Join(parts, "&")
	}
	return c.String()
}

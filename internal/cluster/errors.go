package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// Class says what kind of thing went wrong.
type Class int

// The classes, the gravest for a whole run last.
const (
	Other       Class = iota
	Absent            // 404: the object, or something it belongs to, does not exist
	Invalid           // the server does not take the object: its content is wrong, or a policy is against it
	Immutable         // the object differs from the live one in a field that cannot be changed
	Conflict          // another field manager owns what would change
	Denied            // no right to do it
	Credentials       // the server does not know who asks
	Unreachable       // no answer at all
)

// Diagnosis is what an error of the API server, or on the way to it, means.
type Diagnosis struct {
	Class     Class
	Text      string          // one sentence, without the object's name
	Missing   *Right          // the right that is missing, when Denied by RBAC
	Conflicts []FieldConflict // when Conflict
	TLS       bool            // Unreachable, because the server's certificate is not trusted
}

// Right is what a Role grants.
type Right struct {
	User, Verb string // the user may be unknown
	Resource   string // plural name
	Group      string // API group; empty: core
	Namespace  string // empty: cluster-wide
}

func (r Right) String() string {
	who := "whoever deploys"
	if r.User != "" {
		who = fmt.Sprintf("user %q", r.User)
	}
	s := fmt.Sprintf("%s may not %s %s", who, r.Verb, r.Resource)
	if r.Group != "" {
		s += "." + r.Group
	}
	if r.Namespace != "" {
		return s + " in namespace " + r.Namespace
	}
	return s + " (cluster-wide)"
}

// failedWebhook names the webhook that did not answer.
var failedWebhook = regexp.MustCompile(`failed calling webhook "([^"]*)"`)

// Webhook is the name of the admission webhook whose silence failed the request; empty: that was not the cause.
func (d Diagnosis) Webhook() string {
	if m := failedWebhook.FindStringSubmatch(d.Text); m != nil {
		return m[1]
	}
	return ""
}

// FieldConflict is one field that somebody else owns with another value.
type FieldConflict struct {
	Field       string // e.g. .spec.replicas
	Manager     string // e.g. kubectl-edit
	Subresource string // through which it was written, e.g. scale
}

var (
	rbac        = regexp.MustCompile(`User "([^"]*)" cannot (\S+) resource "([^"]*)" in API group "([^"]*)"(?: in the namespace "([^"]*)")?`)
	ownedBy     = regexp.MustCompile(`conflict with "([^"]*)"(?: with subresource "([^"]*)")?`)
	isInvalid   = regexp.MustCompile(`^\S+ "[^"]*" is invalid: `)
	typedPatch  = regexp.MustCompile(`^failed to create typed patch object \([^)]*\): `)
	goValue     = regexp.MustCompile(`&value\.valueUnstructured\{Value:([^}]*)\}`)
	dump        = regexp.MustCompile(`Invalid value: (\{.*\}|\[.*\]): `) // whole pod templates
	immutable   = regexp.MustCompile(immutableTexts)
	isForbidden = regexp.MustCompile(`^\S+ "[^"]*" is forbidden: `)
)

// immutableTexts is how the API server's validation and the rules of definitions say that a field cannot be changed. Status and
// cause are the same as for a value that is wrong in itself, so the words have to do.
const immutableTexts = `(?i)\bfield is immutable\b|\bis immutable after creation\b|\bmay not change once set\b|\bcannot change roleRef\b` +
	`|\bupdates to \S+ are forbidden\b|\bupdates to statefulset spec for fields other than\b|\bpod updates may not change fields other than\b|\bvalue is immutable\b`

// Diagnose explains err, which came from a request to the API server.
func Diagnose(err error) Diagnosis {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return diagnoseTransport(err)
	}
	s := status.Status()
	d := Diagnosis{Text: s.Message}
	var causes []metav1.StatusCause
	if s.Details != nil {
		causes = s.Details.Causes
	}
	switch {
	case s.Reason == metav1.StatusReasonUnauthorized || s.Code == http.StatusUnauthorized:
		d.Class, d.Text = Credentials, "the API server refuses the credentials (401)"
	case apierrors.HasStatusCause(err, "NamespaceTerminating"):
		d.Text = isForbidden.ReplaceAllString(s.Message, "")
	case s.Reason == metav1.StatusReasonForbidden || s.Code == http.StatusForbidden:
		d.Class = Denied
		if m := rbac.FindStringSubmatch(s.Message); m != nil {
			d.Missing = &Right{m[1], m[2], m[3], m[4], m[5]}
			d.Text = d.Missing.String()
		} else {
			d.Text = isForbidden.ReplaceAllString(s.Message, "refused: ")
		}
	case s.Reason == metav1.StatusReasonConflict:
		for _, cause := range causes {
			if cause.Type == metav1.CauseTypeFieldManagerConflict {
				owner := ownedBy.FindStringSubmatch(cause.Message)
				if owner == nil {
					owner = []string{"", cause.Message, ""}
				}
				d.Class = Conflict
				d.Conflicts = append(d.Conflicts, FieldConflict{cause.Field, owner[1], owner[2]})
			}
		}
		if d.Class == Conflict {
			d.Text = fmt.Sprintf("%s is owned by %s", d.Conflicts[0].Field, d.Conflicts[0].Manager)
			if more := len(d.Conflicts) - 1; more > 0 {
				d.Text += fmt.Sprintf(", and %d more fields", more)
			}
		}
	case s.Reason == metav1.StatusReasonInvalid || s.Code == http.StatusUnprocessableEntity:
		d.Class, d.Text = Invalid, isInvalid.ReplaceAllString(s.Message, "")
		if len(causes) > 0 {
			d.Text, d.Class = fromCauses(causes)
		}
	case s.Reason == metav1.StatusReasonBadRequest || strings.HasPrefix(s.Message, "failed to create typed patch object"):
		text := strings.TrimPrefix(typedPatch.ReplaceAllString(s.Message, ""), "errors:\n")
		text = strings.ReplaceAll(strings.TrimSpace(goValue.ReplaceAllString(text, "$1")), "\n  ", "; ")
		d.Class, d.Text = Invalid, text
	case s.Reason == metav1.StatusReasonNotFound:
		d.Class = Absent
	}
	return d
}

// fromCauses makes a short sentence of the causes of status 422.
func fromCauses(causes []metav1.StatusCause) (text string, class Class) {
	class = Immutable
	var parts []string
	for _, cause := range causes {
		if !immutable.MatchString(cause.Message) {
			class = Invalid
		}
		text := dump.ReplaceAllString(cause.Message, "")
		if cause.Field != "" { // a policy's refusal is about the whole object
			text = cause.Field + ": " + text
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; "), class
}

func diagnoseTransport(err error) Diagnosis {
	d := Diagnosis{Class: Other, Text: err.Error()}
	var request *url.Error
	if !errors.As(err, &request) {
		return d
	}
	d.Text = request.Err.Error() // the URL would only repeat what is known
	var certificate *tls.CertificateVerificationError
	switch {
	case strings.HasPrefix(d.Text, "getting credentials: "):
		d.Class = Credentials
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
	default:
		d.Class, d.TLS = Unreachable, errors.As(err, &certificate)
	}
	return d
}

// transient says whether the same request may well succeed a moment later. Status 429, and 5xx with a Retry-After, have been
// retried by client-go before they get here.
func transient(err error) bool {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		s := status.Status()
		switch s.Code {
		case http.StatusConflict: // somebody wrote at the same moment; what a field manager owns stays owned
			return !apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict) && !strings.Contains(s.Message, "Precondition failed")
		case http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusTooManyRequests, http.StatusBadGateway:
			return true
		case http.StatusInternalServerError:
			for _, text := range []string{"failed calling webhook", "etcdserver: leader changed", "etcdserver: request timed out", "no endpoints available"} {
				if strings.Contains(s.Message, text) {
					return true
				}
			}
		}
		return false
	}
	return utilnet.IsConnectionReset(err) || utilnet.IsProbableEOF(err) || utilnet.IsHTTP2ConnectionLost(err) ||
		utilnet.IsConnectionRefused(err) || strings.Contains(err.Error(), "GOAWAY") ||
		strings.Contains(err.Error(), "unexpected error when reading response body") // client-go's words for a server that dies while it answers
}

// Retry calls do until it succeeds, fails for good, or has failed for about ten seconds: long enough for a webhook's pod or
// an API server to come back. do must be safe to repeat, as server-side apply is. It returns do's last error.
func Retry(ctx context.Context, do func() error) error {
	pause := 50 * time.Millisecond
	for {
		err := do()
		if err == nil || !transient(err) || pause > 5*time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		pause *= 2
	}
}

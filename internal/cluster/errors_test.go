package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Answers of kube-apiserver 1.37.2, as they came, but for the pod template, which is longer.
func TestDiagnose(t *testing.T) {
	tests := []struct {
		name, status string
		want         Diagnosis
	}{
		{"unknown field", `{"status":"Failure","message":"failed to create typed patch object (/x; apps/v1, Kind=Deployment): .spec.replica: field not declared in schema","code":500}`,
			Diagnosis{Class: Invalid, Text: ".spec.replica: field not declared in schema"}},
		{"two wrong types", `{"status":"Failure","message":"failed to create typed patch object (shop/x; apps/v1, Kind=Deployment): errors:\n  .metadata.labels.a: expected string, got \u0026value.valueUnstructured{Value:1}\n  .spec.replicas: expected numeric (int or float), got string","code":500}`,
			Diagnosis{Class: Invalid, Text: ".metadata.labels.a: expected string, got 1; .spec.replicas: expected numeric (int or float), got string"}},
		{"no namespace", `{"status":"Failure","message":"namespaces \"nope\" not found","reason":"NotFound","details":{"name":"nope","kind":"namespaces"},"code":404}`,
			Diagnosis{Class: Absent, Text: `namespaces "nope" not found`}},
		{"invalid", `{"status":"Failure","message":"Deployment.apps \"x\" is invalid: [spec.selector: Required value, ...]","reason":"Invalid","details":{"name":"x","group":"apps","kind":"Deployment","causes":[{"reason":"FieldValueRequired","message":"Required value","field":"spec.selector"},{"reason":"FieldValueInvalid","message":"Invalid value: null: does not match","field":"spec.template.metadata.labels"}]},"code":422}`,
			Diagnosis{Class: Invalid, Text: "spec.selector: Required value; spec.template.metadata.labels: Invalid value: null: does not match"}},
		{"a policy", `{"status":"Failure","message":"secrets \"x\" is forbidden: m","reason":"Invalid","details":{"causes":[{"message":"ValidatingAdmissionPolicy 'p' with binding 'b' denied request: too weak"}]},"code":422}`,
			Diagnosis{Class: Invalid, Text: "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: too weak"}},
		{"immutable", `{"status":"Failure","message":"Job.batch \"j\" is invalid: spec.template: Invalid value: {\"a\":{}}: field is immutable","reason":"Invalid","details":{"causes":[{"reason":"FieldValueInvalid","message":"Invalid value: {\"a\":{\"b: c\":null}}: field is immutable","field":"spec.template"}]},"code":422}`,
			Diagnosis{Class: Immutable, Text: "spec.template: field is immutable"}},
		{"immutable, and wrong besides", `{"status":"Failure","message":"m","reason":"Invalid","details":{"causes":[{"message":"Invalid value: {}: field is immutable","field":"spec.template"},{"message":"Required value","field":"spec.x"}]},"code":422}`,
			Diagnosis{Class: Invalid, Text: "spec.template: field is immutable; spec.x: Required value"}},
		{"conflict", `{"status":"Failure","message":"Apply failed with 2 conflicts: ...","reason":"Conflict","details":{"causes":[{"reason":"FieldManagerConflict","message":"conflict with \"kubectl\" with subresource \"scale\" using apps/v1","field":".spec.replicas"},{"reason":"FieldManagerConflict","message":"conflict with \"kubectl-edit\" using v1 at 2026-11-22T15:57:33Z","field":".data.a"}]},"code":409}`,
			Diagnosis{Class: Conflict, Text: ".spec.replicas is owned by kubectl, and 1 more fields", Conflicts: []FieldConflict{{".spec.replicas", "kubectl", "scale"}, {".data.a", "kubectl-edit", ""}}}},
		{"changed in between", `{"status":"Failure","message":"the object has been modified","reason":"Conflict","code":409}`,
			Diagnosis{Class: Other, Text: "the object has been modified"}},
		{"forbidden", `{"status":"Failure","message":"deployments.apps \"web\" is forbidden: User \"ci\" cannot patch resource \"deployments\" in API group \"apps\" in the namespace \"shop\"","reason":"Forbidden","code":403}`,
			Diagnosis{Class: Denied, Text: `user "ci" may not patch deployments.apps in namespace shop`, Missing: &Right{"ci", "patch", "deployments", "apps", "shop"}}},
		{"forbidden in the whole cluster", `{"status":"Failure","message":"namespaces \"x\" is forbidden: User \"ci\" cannot get resource \"namespaces\" in API group \"\" at the cluster scope","reason":"Forbidden","code":403}`,
			Diagnosis{Class: Denied, Text: `user "ci" may not get namespaces (cluster-wide)`, Missing: &Right{"ci", "get", "namespaces", "", ""}}},
		{"quota", `{"status":"Failure","message":"pods \"x\" is forbidden: exceeded quota: none, requested: pods=1","reason":"Forbidden","code":403}`,
			Diagnosis{Class: Denied, Text: "refused: exceeded quota: none, requested: pods=1"}},
		{"namespace going", `{"status":"Failure","message":"configmaps \"a\" is forbidden: unable to create new content in namespace x because it is being terminated","reason":"Forbidden","details":{"causes":[{"reason":"NamespaceTerminating","message":"namespace x is being terminated","field":"metadata.namespace"}]},"code":403}`,
			Diagnosis{Class: Other, Text: "unable to create new content in namespace x because it is being terminated"}},
		{"unauthorized", `{"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}`,
			Diagnosis{Class: Credentials, Text: "the API server refuses the credentials (401)"}},
	}
	for _, tt := range tests {
		var status metav1.Status
		if err := json.Unmarshal([]byte(tt.status), &status); err != nil {
			t.Fatal(err)
		}
		got := Diagnose(fmt.Errorf("wrapped: %w", &apierrors.StatusError{ErrStatus: status}))
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func FuzzDiagnose(f *testing.F) {
	f.Add(`conflict with "a" with subresource "b"`, "Conflict", int32(409))
	f.Add(`Invalid value: {"a": "}: "}: field is immutable`, "Invalid", int32(422))
	f.Add(`x "y" is forbidden: User "u" cannot v resource "r" in API group "g"`, "Forbidden", int32(403))
	f.Fuzz(func(t *testing.T, message, reason string, code int32) {
		d := Diagnose(&apierrors.StatusError{ErrStatus: metav1.Status{Message: message, Reason: metav1.StatusReason(reason), Code: code,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: metav1.CauseTypeFieldManagerConflict, Message: message, Field: "f"}}}}})
		if d.Class == Conflict && len(d.Conflicts) == 0 || d.Missing != nil && d.Class != Denied {
			t.Errorf("%+v", d)
		}
	})
}

// open connects to a server that handler plays.
func open(t *testing.T, handler http.HandlerFunc) *Cluster {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := Open(Options{Server: server.URL, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fail(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"reason":%q,"code":%d}`, message, reason, code)
}

// What passes is tried again, by client-go or by Retry; what does not is not.
func TestRetry(t *testing.T) {
	tests := []struct {
		name  string
		fault http.HandlerFunc
		tries int32 // of which all but the last meet the fault
		ok    bool
	}{
		{"429 with Retry-After", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "0")
			fail(w, 429, "TooManyRequests", "busy")
		}, 3, true},
		{"503", func(w http.ResponseWriter, r *http.Request) { fail(w, 503, "ServiceUnavailable", "starting") }, 3, true},
		{"a webhook that is down", func(w http.ResponseWriter, r *http.Request) {
			fail(w, 500, "InternalError", `failed calling webhook "x": connection refused`)
		}, 3, true},
		{"a connection that ends", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, 3, true},
		{"any other 500", func(w http.ResponseWriter, r *http.Request) { fail(w, 500, "InternalError", "bug") }, 1, false},
		{"422", func(w http.ResponseWriter, r *http.Request) { fail(w, 422, "Invalid", "wrong") }, 1, false},
		{"409, created at the same moment", func(w http.ResponseWriter, r *http.Request) { fail(w, 409, "AlreadyExists", "exists") }, 3, true},
		{"409, another UID", func(w http.ResponseWriter, r *http.Request) {
			fail(w, 409, "Conflict", "Precondition failed: UID in precondition: a, UID in object meta: b")
		}, 1, false},
		{"409, owned", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(409)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409,"details":{"causes":[{"reason":"FieldManagerConflict","message":"conflict with \"x\"","field":".data"}]}}`)
		}, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tries atomic.Int32
			c := open(t, func(w http.ResponseWriter, r *http.Request) {
				if tries.Add(1) < 3 {
					tt.fault(w, r)
					return
				}
				fmt.Fprint(w, `{"kind":"APIResourceList"}`)
			})
			err := Retry(context.Background(), func() error {
				_, err := c.get(context.Background(), "/x", "application/json")
				return err
			})
			if (err == nil) != tt.ok || tries.Load() != tt.tries {
				t.Errorf("%d tries, %v; want %d, ok %v", tries.Load(), err, tt.tries, tt.ok)
			}
		})
	}
}

func TestRetryEndsWithContext(t *testing.T) {
	ctx, stop := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer stop()
	begin := time.Now()
	err := Retry(ctx, func() error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Code: 503, Message: "down"}}
	})
	if err == nil || time.Since(begin) > 30*time.Second {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
}

func TestUnreachable(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	for url, want := range map[string]Diagnosis{
		"http://127.0.0.1:1": {Class: Unreachable, Text: "dial tcp 127.0.0.1:1: connect: connection refused"},
		server.URL:           {Class: Unreachable, TLS: true, Text: "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
	} {
		c, err := Open(Options{Server: url, Getenv: func(string) string { return "" }})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Discover(context.Background())
		if got := Diagnose(err); got.Class != want.Class || got.TLS != want.TLS || !strings.HasPrefix(got.Text, want.Text) {
			t.Errorf("Discover(%s): %+v, want %+v", url, got, want)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	c, _ := Open(Options{Server: server.URL, Getenv: func(string) string { return "" }})
	if _, err := c.Discover(ctx); !errors.Is(err, context.Canceled) || Diagnose(err).Class != Other {
		t.Errorf("Discover: %v, want %v", err, context.Canceled)
	}
}

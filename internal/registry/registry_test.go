package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	fake "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const oneManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

// serve runs handler and returns host:port.
func serve(t *testing.T, handler http.Handler) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// noCredentials hides the machine's own docker configuration.
func noCredentials(t *testing.T) string {
	home := t.TempDir()
	for _, v := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG"} {
		t.Setenv(v, home)
	}
	t.Setenv("REGISTRY_AUTH_FILE", "")
	return home
}

// withManifest is a registry that has team/api:v1.
func withManifest(t *testing.T) http.Handler {
	h := fake.New(fake.Logger(log.New(io.Discard, "", 0)))
	req := httptest.NewRequest(http.MethodPut, "/v2/team/api/manifests/v1", strings.NewReader(oneManifest))
	req.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	if w.Code != http.StatusCreated {
		t.Fatalf("PUT manifest = %d %s", w.Code, w.Body)
	}
	return h
}

func TestHeadFindsATag(t *testing.T) {
	noCredentials(t)
	host := serve(t, withManifest(t))
	got, err := Open(Options{}).Head(t.Context(), host+"/team/api:v1")
	if want := digestOf([]byte(oneManifest)); err != nil || got != want {
		t.Errorf("Head = %q, %v, want %q", got, err, want)
	}
	for _, ref := range []string{"/team/api:v2", "/team/web:v1", "/team/api@" + digestOf(nil)} {
		if got, err := Open(Options{}).Head(t.Context(), host+ref); !errors.Is(err, ErrAbsent) {
			t.Errorf("Head(%s) = %q, %v, want ErrAbsent", ref, got, err)
		}
	}
}

// A registry that answers HEAD without a digest, or not at all, is asked with GET.
func TestHeadWithoutHelpFromTheRegistry(t *testing.T) {
	noCredentials(t)
	for _, answer := range []int{http.StatusOK, http.StatusMethodNotAllowed} {
		h := withManifest(t)
		host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(answer)
				return
			}
			h.ServeHTTP(w, r)
		}))
		got, err := Open(Options{}).Head(t.Context(), host+"/team/api:v1")
		if want := digestOf([]byte(oneManifest)); err != nil || got != want {
			t.Errorf("with HEAD = %d: %q, %v, want %q", answer, got, err, want)
		}
	}
}

func TestAnswersAreTold(t *testing.T) {
	noCredentials(t)
	describe := func(err error) string {
		denied, status, gone := new(DeniedError), new(StatusError), new(UnreachableError)
		switch {
		case errors.Is(err, ErrAbsent):
			return "absent"
		case errors.As(err, &denied):
			return fmt.Sprintf("denied %d anonymous=%v", denied.Status, denied.Anonymous)
		case errors.As(err, &status):
			return fmt.Sprintf("status %d %v", status.Status, status.Codes)
		case errors.As(err, &gone):
			return "unreachable"
		}
		return fmt.Sprint(err)
	}
	for _, test := range []struct {
		name       string
		ping, head int
		body       string
		user       string
		want       string
	}{
		{"no tag", 200, 404, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, "", "absent"},
		{"not a registry", 404, 404, "<html>", "", "status 404 []"},
		{"not a registry, but everything is fine with it", 301, 200, "", "", "status 301 []"},
		{"credentials wanted", 200, 401, `{"errors":[{"code":"UNAUTHORIZED"}]}`, "", "denied 401 anonymous=true"},
		{"credentials wrong", 200, 401, `{"errors":[{"code":"UNAUTHORIZED"}]}`, "u", "denied 401 anonymous=false"},
		{"credentials too weak", 200, 403, ``, "u", "denied 403 anonymous=false"},
		{"asked too often, the GitHub way", 200, 403, `{"errors":[{"code":"TOOMANYREQUESTS"}]}`, "u", "status 403 [TOOMANYREQUESTS]"},
		{"failing", 200, 500, `oops`, "", "status 500 []"},
		{"failing at once", 503, 200, ``, "", "status 503 []"},
		{"denied at once", 403, 200, ``, "", "denied 403 anonymous=true"},
	} {
		t.Run(test.name, func(t *testing.T) {
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				status := test.head
				if r.URL.Path == "/v2/" {
					status = test.ping
				}
				w.WriteHeader(status)
				if r.URL.Path != "/v2/" || status != 200 {
					io.WriteString(w, test.body)
				}
			}))
			r, err := Open(Options{Username: test.user, Password: test.user}).Repository(host + "/team/api")
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Manifest(t.Context(), "v1")
			if got := describe(err); got != test.want {
				t.Errorf("Manifest = %s (%v), want %s", got, err, test.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines: %q", err)
			}
		})
	}

	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if _, err := Open(Options{}).Head(t.Context(), closed.Addr().String()+"/team/api:v1"); describe(err) != "unreachable" {
		t.Errorf("Head at a closed port: %v, want unreachable", err)
	}
	if _, err := Open(Options{}).Head(t.Context(), "h.example.org/Team/api:v1"); !errors.As(err, new(*name.ErrBadName)) {
		t.Errorf("Head of a bad name: %v", err)
	}
}

func TestCredentialsOfTheDockerConfiguration(t *testing.T) {
	inner := withManifest(t)
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "ci" || pass != "s3cret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	auths := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("ci:s3cret")))

	home := noCredentials(t)
	if _, err := Open(Options{}).Head(t.Context(), host+"/team/api:v1"); !errors.As(err, new(*DeniedError)) {
		t.Errorf("without credentials: %v, want *DeniedError", err)
	}
	write(filepath.Join(home, "containers", "auth.json"), auths)
	if _, err := Open(Options{}).Head(t.Context(), host+"/team/api:v1"); err != nil {
		t.Errorf("with Podman's auth.json: %v", err)
	}
	write(filepath.Join(home, "config.json"), "{")
	if _, err := Open(Options{}).Head(t.Context(), host+"/team/api:v1"); !errors.As(err, new(*CredentialsError)) {
		t.Errorf("with a broken docker configuration: %v, want *CredentialsError", err)
	}
	write(filepath.Join(home, "config.json"), auths)
	if _, err := Open(Options{}).Head(t.Context(), host+"/team/api:v1"); err != nil {
		t.Errorf("with a docker configuration: %v", err)
	}
	if _, err := Open(Options{Username: "ci", Password: "wrong"}).Head(t.Context(), host+"/team/api:v1"); !errors.As(err, new(*DeniedError)) {
		t.Errorf("explicit credentials do not win over the docker configuration: %v", err)
	}
}

// A token registry is asked for its challenge once per host and for one token per repository.
func TestTokens(t *testing.T) {
	noCredentials(t)
	inner := withManifest(t)
	var pings, tokens atomic.Int32
	var host string
	host = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			tokens.Add(1)
			if _, pass, _ := r.BasicAuth(); pass != "s3cret" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			json.NewEncoder(w).Encode(map[string]string{"access_token": strings.Join(r.URL.Query()["scope"], "+")})
		case r.Header.Get("Authorization") == "":
			pings.Add(1)
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, host))
			w.WriteHeader(http.StatusUnauthorized)
		case r.Header.Get("Authorization") == "Bearer repository:team/api:pull":
			inner.ServeHTTP(w, r)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	c := Open(Options{Username: "ci", Password: "s3cret"})
	for range 3 {
		if _, err := c.Head(t.Context(), host+"/team/api:v1"); err != nil {
			t.Fatal(err)
		}
	}
	if got := [2]int32{pings.Load(), tokens.Load()}; got != [2]int32{1, 1} {
		t.Errorf("pings, tokens = %v, want one of each", got)
	}
	_, err := Open(Options{Username: "ci", Password: "wrong"}).Head(t.Context(), host+"/team/api:v1")
	if denied := new(DeniedError); !errors.As(err, &denied) || denied.Anonymous || denied.Status != http.StatusUnauthorized {
		t.Errorf("with a wrong password: %v, want *DeniedError 401", err)
	}
}

func TestNoMoreThanJobsRequestsAtOnce(t *testing.T) {
	noCredentials(t)
	var now, most atomic.Int32
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for n := now.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		time.Sleep(5 * time.Millisecond)
		now.Add(-1)
	}))
	c := Open(Options{Jobs: 2})
	r, err := c.Repository(host + "/team/api")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	for range 10 {
		go func() { r.Manifest(context.Background(), "v1"); done <- struct{}{} }()
	}
	for range 10 {
		<-done
	}
	if most.Load() != 2 {
		t.Errorf("%d requests at once, want 2", most.Load())
	}
}

// What a registry says or signs ends up in errors, and errors in logs.
func TestErrorsCarryNoSecrets(t *testing.T) {
	noCredentials(t)
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, "http://127.0.0.1:1/store?X-Signature=s3cret", http.StatusTemporaryRedirect)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
	}))
	r, err := Open(Options{Username: "ci", Password: "s3cret"}).Repository(host + "/team/api")
	if err != nil {
		t.Fatal(err)
	}
	_, blobErr := r.Blob(t.Context(), digestOf(nil), 10)
	_, headErr := r.Head(t.Context(), "v1")
	for _, err := range []error{blobErr, headErr} {
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("error = %v", err)
		}
	}
}

func TestBlobsAreChecked(t *testing.T) {
	noCredentials(t)
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "content") }))
	r, err := Open(Options{}).Repository(host + "/team/api")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := r.Blob(t.Context(), digestOf([]byte("content")), 7); err != nil || string(b) != "content" {
		t.Errorf("Blob = %q, %v", b, err)
	}
	if _, err := r.Blob(t.Context(), digestOf([]byte("content")), 6); err == nil {
		t.Error("a blob over the limit was read")
	}
	if _, err := r.Blob(t.Context(), digestOf([]byte("other")), 10); err == nil {
		t.Error("a blob with another digest was believed")
	}
	if _, err := r.Manifest(t.Context(), digestOf([]byte("other"))); err == nil {
		t.Error("a manifest with another digest was believed")
	}
}

func TestTags(t *testing.T) {
	noCredentials(t)
	host := serve(t, withManifest(t))
	r, err := Open(Options{}).Repository(host + "/team/api")
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Tags(t.Context(), 5)
	if diff := cmp.Diff([]string{"v1"}, got); err != nil || diff != "" {
		t.Errorf("Tags: %v %s", err, diff)
	}
	if !(&StatusError{Codes: []string{"A", "TAG_INVALID"}}).Has(transport.TagInvalidErrorCode) {
		t.Error("Has misses a code")
	}
}

// Whatever is in a docker configuration or Podman's file: credentials come out of it, or one error that does not repeat it.
func FuzzCredentialFiles(f *testing.F) {
	f.Add(`{"auths":{"h.example.org":{"auth":"Y2k6czNjcmV0"}}}`)
	f.Add(`{"auths":{"https://h.example.org/v1/":{"username":"ci","password":"s3cret","identitytoken":"x"}},"credsStore":"none"}`)
	f.Add(`{"credHelpers":{"h.example.org":"../../bin/sh"},"auths":{"h.example.org":{"auth":"s3cret!"}}}`)
	f.Add(`{"auths":{"h.example.org/team":{"auth":"czNjcmV0"}}}`)
	f.Add(`{"auths":[]}`)
	f.Fuzz(func(t *testing.T, text string) {
		home := noCredentials(t)
		t.Setenv("PATH", home) // no helper is there
		for _, file := range []string{"config.json", "auth.json"} {
			for _, old := range []string{"config.json", "auth.json"} {
				os.Remove(filepath.Join(home, old))
			}
			t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(home, "auth.json"))
			if err := os.WriteFile(filepath.Join(home, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			repo, err := Open(Options{}).Repository("h.example.org/team/api")
			if err != nil {
				t.Fatal(err)
			}
			auth, err := repo.credentials(t.Context())
			if (auth == nil) == (err == nil) {
				t.Errorf("%s: credentials %v, %v", file, auth, err)
			}
			if err != nil && (!errors.As(err, new(*CredentialsError)) || !strings.Contains(text, "cred") && strings.Contains(err.Error(), "s3cret")) {
				t.Errorf("%s: %v", file, err)
			}
		}
	})
}

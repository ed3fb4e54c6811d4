package cluster

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

const kubeconfigText = `apiVersion: v1
kind: Config
clusters:
- {name: one, cluster: {server: "https://one.test:6443"}}
- {name: two, cluster: {server: "https://two.test"}}
users:
- {name: u, user: {token: t0ken}}
contexts:
- {name: a, context: {cluster: one, user: u, namespace: shop}}
- {name: b, context: {cluster: two, user: u}}
current-context: a
`

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config")
	if err := os.WriteFile(path, []byte(kubeconfigText), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte(strings.ReplaceAll(kubeconfigText, "current-context: a", "current-context: b")), 0o600); err != nil {
		t.Fatal(err)
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(kubeconfigText))
	type got struct {
		server, namespace string
		secrets           []string
	}
	tests := []struct {
		name       string
		options    Options
		kubeconfig string // the variable
		want       got
	}{
		{"a path", Options{Kubeconfig: path}, "", got{"https://one.test:6443", "shop", nil}},
		{"content", Options{Kubeconfig: kubeconfigText}, "", got{"https://one.test:6443", "shop", []string{"t0ken"}}},
		{"content in base64", Options{Kubeconfig: encoded}, "", got{"https://one.test:6443", "shop", []string{"t0ken"}}},
		{"content in base64, in lines", Options{Kubeconfig: encoded[:76] + "\n" + encoded[76:]}, "", got{"https://one.test:6443", "shop", []string{"t0ken"}}},
		{"a context", Options{Kubeconfig: path, Context: "b"}, "", got{"https://two.test", "default", nil}},
		{"a namespace", Options{Kubeconfig: path, Namespace: "mine"}, "", got{"https://one.test:6443", "mine", nil}},
		{"the variable", Options{}, other, got{"https://two.test", "default", nil}},
		{"the variable with several", Options{}, filepath.Join(dir, "gone") + ":" + path + ":" + other, got{"https://one.test:6443", "shop", nil}},
		{"the input wins over the variable", Options{Kubeconfig: path}, other, got{"https://one.test:6443", "shop", nil}},
		{"a server wins over the variable", Options{Server: "https://x.test/k8s/", Token: "x"}, other, got{"https://x.test/k8s/", "default", nil}},
		{"a server without a scheme", Options{Server: "x.test:6443", CA: certificate(t)}, "", got{"https://x.test:6443", "default", nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.options.Getenv = func(name string) string {
				if name == "KUBECONFIG" {
					return tt.kubeconfig
				}
				return ""
			}
			c, err := Open(tt.options)
			if err != nil {
				t.Fatal(err)
			}
			if have := (got{c.Server, c.Namespace, c.Secrets}); !cmp.Equal(have, tt.want, cmp.AllowUnexported(got{})) {
				t.Errorf("%+v, want %+v", have, tt.want)
			}
		})
	}
}

// certificate is any.
func certificate(t *testing.T) string {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

func TestOpenProblems(t *testing.T) {
	long := strings.Repeat("c2VjcmV0", 100)
	tests := []struct {
		options Options
		want    string
	}{
		{Options{}, ErrNoCluster.Error()},
		{Options{Context: "a"}, "context: it belongs to a kubeconfig, which is not given"},
		{Options{CA: "x"}, "ca: it belongs to server, which is not given"},
		{Options{Kubeconfig: "gone"}, "kubeconfig: gone: no such file or directory"},
		{Options{Kubeconfig: "."}, "kubeconfig: .: is a directory"},
		{Options{Kubeconfig: long}, "kubeconfig: it is neither an existing file nor the content of a kubeconfig"},
		{Options{Kubeconfig: "a: b\nc: [secret\n"}, "kubeconfig: its content is no kubeconfig"},
		{Options{Kubeconfig: "apiVersion: v1\nkind: Config\n"}, "kubeconfig: it holds no cluster"},
		{Options{Kubeconfig: kubeconfigText, Context: "c"}, `context: the kubeconfig has no context "c"`},
		{Options{Kubeconfig: kubeconfigText, Server: "https://x"}, "server: it takes the place of a kubeconfig: give one of the two"},
		{Options{Server: "https://x", CA: "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"}, "ca: unable to load root certificates: unable to parse bytes as PEM block"},
		{Options{Server: "https://x", Token: "a", TokenFile: "b"}, "token-file: it takes the place of token: give one of the two"},
		{Options{Server: "https://x", TokenFile: "gone"}, "token-file: open gone: no such file or directory"},
		{Options{Server: "https://x", AsGroups: []string{"g"}}, "as-groups: it belongs to as, which is not given"},
		{Options{Server: "https://x", CA: "gone"}, "ca: open gone: no such file or directory"},
	}
	for _, tt := range tests {
		tt.options.Getenv = func(string) string { return "" }
		_, err := Open(tt.options)
		if err == nil || err.Error() != tt.want {
			t.Errorf("Open(%.40q): %v, want %s", tt.options.Kubeconfig, err, tt.want)
		}
	}
}

const aggregated = `{"kind":"APIGroupDiscoveryList","items":[{"metadata":{"name":%q},"versions":[{"version":"v1","freshness":"Current","resources":[
	{"resource":"deployments","responseKind":{"group":"apps","version":"v1","kind":"Deployment"},"scope":"Namespaced","verbs":["patch"]},
	{"resource":"views","responseKind":{"group":"apps","version":"v1","kind":"Deployment"},"scope":"Cluster"},
	{"resource":"nothing","scope":"Cluster"},
	{"resource":"nodes","responseKind":{"group":"","version":"v1","kind":"Node"},"scope":"Cluster"}]}]}]}`

const legacy = `{"kind":"APIResourceList","resources":[{"name":"deployments","kind":"Deployment","namespaced":true},{"name":"deployments/scale","kind":"Scale","namespaced":true},{"name":"nodes","kind":"Node"}]}`

// The same is found on a server with aggregated discovery and on one without.
func TestKinds(t *testing.T) {
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	for _, old := range []bool{false, true} {
		asked := []string{}
		c := open(t, func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.Path)
			switch {
			case r.URL.Path == "/apis/apps/v1":
				fmt.Fprint(w, legacy)
			case r.URL.Path != "/api" && r.URL.Path != "/apis":
				fail(w, 404, "NotFound", "no")
			case old:
				fmt.Fprint(w, `{"kind":"APIGroupList","groups":[]}`)
			default:
				fmt.Fprintf(w, aggregated, map[string]string{"/api": "", "/apis": "apps"}[r.URL.Path])
			}
		})
		kinds, err := c.Discover(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for kind, want := range map[string]Kind{
			"Deployment": {apps.WithKind("Deployment"), "deployments", true},
			"Node":       {apps.WithKind("Node"), "nodes", false},
		} {
			got, err := kinds.Find(context.Background(), apps.WithKind(kind))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("Find(%s): %v %s", kind, err, diff)
			}
		}
		_, err = kinds.Find(context.Background(), schema.GroupVersionKind{Group: "extensions", Version: "v1beta1", Kind: "Deployment"})
		var unknown *UnknownKindError
		if !errors.As(err, &unknown) || !slices.Contains(unknown.Known, "apps/v1") || !IsUnknownKind(err) {
			t.Errorf("Find: %v", err)
		}
		if want := 2; !old && len(asked) != want {
			t.Errorf("asked %v", asked)
		}
		if err := kinds.Refresh(context.Background(), schema.GroupVersion{Group: "gone", Version: "v1"}); err != nil {
			t.Errorf("Refresh: %v", err)
		}
	}
}

// An API group that does not answer keeps nobody from using the others, and is not taken for one that is gone. One that did not
// answer at first is asked again, once.
func TestGroupAway(t *testing.T) {
	const away = `{"kind":"APIGroupDiscoveryList","items":[{"metadata":{"name":"away.test"},"versions":[{"version":"v1","freshness":"Stale"}]},
		{"metadata":{"name":"going.test"},"versions":[{"version":"v1","freshness":"Stale"}]}, {"metadata":{"name":"coming.test"},"versions":[{"version":"v1","freshness":"Stale"}]},
		{"metadata":{"name":"apps"},"versions":[{"version":"v1","freshness":"Current","resources":[{"resource":"deployments","responseKind":{"group":"apps","version":"v1","kind":"Deployment"},"scope":"Namespaced"}]}]}]}`
	asked := map[string]int{}
	c := open(t, func(w http.ResponseWriter, r *http.Request) {
		asked[r.URL.Path]++
		switch r.URL.Path {
		case "/api":
			fmt.Fprint(w, `{"kind":"APIGroupDiscoveryList"}`)
		case "/apis":
			fmt.Fprint(w, away)
		case "/apis/coming.test/v1":
			fmt.Fprint(w, `{"kind":"APIResourceList","resources":[{"name":"things","kind":"Thing","namespaced":true}]}`)
		case "/apis/away.test/v1":
			fail(w, 500, "InternalError", "nobody is there")
		default:
			fail(w, 404, "NotFound", "no")
		}
	})
	kinds, err := c.Discover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kinds.Any(t.Context(), schema.GroupKind{Group: "apps", Kind: "Deployment"}); err != nil {
		t.Error(err)
	}
	if kind, err := kinds.Any(t.Context(), schema.GroupKind{Group: "coming.test", Kind: "Thing"}); err != nil || kind.Resource != "things" {
		t.Errorf("%+v, %v", kind, err)
	}
	for group, unknown := range map[string]bool{"away.test": false, "going.test": true, "gone.test": true} {
		_, find := kinds.Find(t.Context(), schema.GroupVersionKind{Group: group, Version: "v1", Kind: "Thing"})
		_, any := kinds.Any(t.Context(), schema.GroupKind{Group: group, Kind: "Thing"})
		for _, err := range []error{find, any} {
			if err == nil || IsUnknownKind(err) != unknown || strings.Contains(err.Error(), "does not answer") == unknown {
				t.Errorf("%s: %v", group, err)
			}
		}
		if n := asked["/apis/"+group+"/v1"]; n > 1 {
			t.Errorf("%s was asked %d times", group, n)
		}
	}
}

// What the server warns of is passed on once.
func TestWarnings(t *testing.T) {
	var got []string
	server := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Warning", `299 - "v1beta1 is deprecated"`)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}`)
	}
	c := open(t, server)
	c, err := Open(Options{Server: c.Server, Getenv: func(string) string { return "" }, Warn: func(text string) { got = append(got, text) }})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, err := c.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("x").Patch(context.Background(), "a", types.ApplyPatchType, []byte("{}"), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"v1beta1 is deprecated"}, got); diff != "" {
		t.Error(diff)
	}
}

// Credentials that were renewed while the run goes on are used at once, whoever renews them; who acts as another says so.
func TestRenewedCredentials(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	valid := "one"
	var bodies []string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer "+valid || r.Header.Get("Impersonate-User") != "somebody" || r.Header.Get("Impersonate-Group") != "group" {
			fail(w, 401, "Unauthorized", "no")
			return
		}
		body, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(body))
		fmt.Fprint(w, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}`)
	}))
	t.Cleanup(server.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	plugin := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh,
  args: [-c, 'echo "{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\",\"status\":{\"token\":\"$(cat %s)\"}}"']}}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, server.URL, base64.StdEncoding.EncodeToString([]byte(ca)), file)
	for name, o := range map[string]Options{"file": {Server: server.URL, CA: ca, TokenFile: file}, "plugin": {Kubeconfig: plugin}} {
		valid, bodies = "one", nil
		write("one")
		o.Getenv, o.As, o.AsGroups = os.Getenv, "somebody", []string{"group"}
		c, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		patch := func() error {
			_, err := c.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("x").Patch(context.Background(), "a", types.ApplyPatchType, []byte("{}"), metav1.PatchOptions{})
			return err
		}
		if err := patch(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		valid = "two"
		if err := patch(); Diagnose(err).Class != Credentials {
			t.Errorf("%s: with an old token: %v", name, err)
		}
		write("two")
		if err := patch(); err != nil {
			t.Errorf("%s: with a new token: %v", name, err)
		}
		if diff := cmp.Diff([]string{"{}", "{}"}, bodies); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A fence keeps what writes from being sent, and nothing else.
func TestFence(t *testing.T) {
	var got []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}`)
	}))
	defer s.Close()
	c, err := Open(Options{Server: s.URL, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	maps := c.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("n")
	patch := func(ctx context.Context) error {
		_, err := maps.Patch(ctx, "a", types.ApplyPatchType, []byte("{}"), metav1.PatchOptions{FieldManager: "m"})
		return err
	}
	against := errors.New("not now")
	for _, want := range []error{against, nil} {
		c.Fence(func(context.Context) error { return want })
		if err := patch(t.Context()); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
		if err := patch(Unfenced(t.Context())); err != nil {
			t.Error(err)
		}
		if _, err := maps.Get(t.Context(), "a", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	if want := "[PATCH GET PATCH PATCH GET]"; fmt.Sprint(got) != want {
		t.Errorf("requests %v, want %s", got, want)
	}
}

// Package deploy_test runs deploy-manifests against a real API server with real controllers and simulated nodes.
package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/flakeship/flakeship/e2e/build"
	"github.com/flakeship/flakeship/e2e/env"
	"github.com/flakeship/flakeship/e2e/pipeline"
	"github.com/flakeship/flakeship/internal/handoff"
)

// What all tests share: each works in namespaces of its own.
var (
	cluster *env.Cluster
	binary  string
	objects dynamic.Interface
	client  *kubernetes.Clientset
)

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "12") // such tests wait, most of the time; those that count requests or stop the server are not among them
	code, err := start(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func start(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "flakeship-deploy-test-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	root, err := build.Root()
	if err != nil {
		return 1, err
	}
	if err := pipeline.GoBuild(context.Background(), filepath.Dir(root), dir, "./cmd/deploy-manifests"); err != nil {
		return 1, err
	}
	binary = filepath.Join(dir, "deploy-manifests")
	if cluster, err = env.StartCluster(context.Background(), env.Options{Dir: dir, Audit: true, Progress: os.Stderr}); err != nil {
		return 1, err
	}
	defer cluster.Stop()
	if client, err = cluster.Client(); err != nil {
		return 1, err
	}
	if objects, err = dynamic.NewForConfig(cluster.Config()); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// outcome is what one run of deploy-manifests left.
type outcome struct {
	code   int
	log    string
	result *handoff.DeployResult // nil: none was written
}

// command is deploy-manifests on manifests, a text, as the cluster's administrator.
func command(t *testing.T, manifests string, args ...string) (cmd *exec.Cmd, out string) {
	t.Helper()
	dir := t.TempDir()
	file, out := filepath.Join(dir, "m.yaml"), filepath.Join(dir, "out.json")
	if err := os.WriteFile(file, []byte(manifests), 0o644); err != nil {
		t.Fatal(err)
	}
	// Deploys of one test go one after the other and seldom have all of its objects: unless a test is about that, what is not
	// given stays, and what failed can be looked at.
	cmd = exec.Command(binary, append([]string{"--manifests", "m.yaml", "--out", out}, args...)...)
	cmd.Dir = dir
	// Nothing of the machine's own configuration. The set has the test's name.
	cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + filepath.Dir(binary), "PATH=" + os.Getenv("PATH"), "KUBECONFIG=" + cluster.Kubeconfig, "GITHUB_REPOSITORY=test/" + t.Name(),
		"INPUT_PRUNE=false", "INPUT_ON_FAILURE=leave"}
	return cmd, out
}

func deploy(t *testing.T, manifests string, args ...string) outcome {
	t.Helper()
	cmd, out := command(t, manifests, args...)
	return finish(t, cmd, out)
}

// finish runs deploy-manifests to its end.
func finish(t *testing.T, cmd *exec.Cmd, out string) outcome {
	t.Helper()
	var log bytes.Buffer
	cmd.Stderr = &log
	err := cmd.Run()
	o := outcome{log: log.String()}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		o.code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(out); err == nil {
		o.result = new(handoff.DeployResult)
		if err := handoff.Load(out, o.result); err != nil {
			t.Fatal(err)
		}
	}
	if o.code != 0 { // whatever went wrong, it is said once, with what to do
		if strings.Count(o.log, "deploy-manifests: error: ") != 1 || strings.Count(o.log, "deploy-manifests: hint: ") != 1 {
			t.Errorf("not one error and one hint:\n%s", o.log)
		}
	}
	return o
}

// wants fails the test unless the run ended with code and its log has all the texts.
func (o outcome) wants(t *testing.T, code int, texts ...string) {
	t.Helper()
	if o.code != code {
		t.Fatalf("exit code %d, want %d:\n%s", o.code, code, o.log)
	}
	for _, text := range texts {
		if !strings.Contains(o.log, text) {
			t.Errorf("the log lacks %q:\n%s", text, o.log)
		}
	}
}

// actions fails the test unless the result's objects are these, given as "Kind/ns/name action rollout", in any order.
func (o outcome) actions(t *testing.T, want ...string) {
	t.Helper()
	if o.result == nil {
		t.Fatalf("no result:\n%s", o.log)
	}
	got := map[string]bool{}
	for _, object := range o.result.Objects {
		got[fmt.Sprintf("%s %s %s", object.ID(), object.Action, object.Rollout)] = true
	}
	for _, line := range want {
		if !got[line] {
			t.Errorf("the result lacks %q", line)
		}
		delete(got, line)
	}
	if len(got) > 0 {
		t.Errorf("the result also has %v\n%s", got, o.log)
	}
}

// namespace makes a namespace for the test.
func namespace(t *testing.T) string {
	t.Helper()
	name := strings.ToLower(strings.Map(func(r rune) rune {
		if r == '/' || r == '_' {
			return '-'
		}
		return r
	}, t.Name()))
	apply(t, "v1", "namespaces", "", map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}, "test")
	return name
}

// apply writes an object as another field manager.
func apply(t *testing.T, groupVersion, resource, ns string, o map[string]any, manager string) {
	t.Helper()
	u := &unstructured.Unstructured{Object: o}
	_, err := at(t, groupVersion, resource, ns).Apply(t.Context(), u.GetName(), u, metav1.ApplyOptions{FieldManager: manager, Force: true})
	if err != nil {
		t.Fatal(err)
	}
}

func at(t *testing.T, groupVersion, resource, ns string) dynamic.ResourceInterface {
	t.Helper()
	gv, err := schema.ParseGroupVersion(groupVersion)
	if err != nil {
		t.Fatal(err)
	}
	if ns == "" {
		return objects.Resource(gv.WithResource(resource))
	}
	return objects.Resource(gv.WithResource(resource)).Namespace(ns)
}

func get(t *testing.T, groupVersion, resource, ns, name string) *unstructured.Unstructured {
	t.Helper()
	o, err := at(t, groupVersion, resource, ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// count is how many objects of a kind a namespace has.
func count(t *testing.T, groupVersion, resource, ns string) int {
	t.Helper()
	list, err := at(t, groupVersion, resource, ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

// configMaps names the ConfigMaps of a namespace that somebody asked for. The controller manager adds kube-root-ca.crt to every
// namespace in its own time.
func configMaps(t *testing.T, ns string) (names []string) {
	t.Helper()
	list, err := at(t, "v1", "configmaps", ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list.Items {
		if o.GetName() != "kube-root-ca.crt" {
			names = append(names, o.GetName())
		}
	}
	return names
}

// requests are the API server's log entries of deploy-manifests since the last call, without those for the set's own objects:
// three for the lock, one to read the parent and one to write it when something changes.
func requests(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(allRequests(t), func(line string) bool {
		return strings.Contains(line, "/leases/flakeship-") || strings.Contains(line, "/secrets/flakeship-")
	})
}

// allRequests are those for the set's own objects, too.
func allRequests(t *testing.T) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(cluster.AuditLog)
	if err != nil {
		t.Fatal(err)
	}
	seen := auditRead
	auditRead = len(text)
	for line := range bytes.Lines(text[seen:]) {
		var entry struct{ UserAgent, Verb, RequestURI, Stage string }
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(entry.UserAgent, "deploy-manifests") && entry.Stage == "ResponseComplete" {
			lines = append(lines, entry.Verb+" "+entry.RequestURI)
		}
	}
	return lines
}

var auditRead int

const (
	configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %s}\ndata: {a: '%s'}\n---\n"
	workload  = `apiVersion: apps/v1
kind: %s
metadata: {name: %s, namespace: %s}
spec:
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec: {containers: [{name: main, image: '%[4]s'}]}
---
`
	job = `apiVersion: batch/v1
kind: Job
metadata: {name: %s, namespace: %s, annotations: {%s}}
spec:
  backoffLimit: 0
  template:
    spec: {restartPolicy: Never, containers: [{name: main, image: '%s'}]}
---
`
)

func deployment(name, ns, image string) string {
	return fmt.Sprintf(workload, "Deployment", name, ns, image)
}

package deploy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// An API server that is killed in the middle of an apply, and is back soon, is either not noticed or reported as what it is; the
// next run finishes the work.
func TestServerKilledMidApply(t *testing.T) {
	ns := namespace(t)
	var manifests string
	for i := range 150 {
		manifests += fmt.Sprintf(configMap, fmt.Sprint("c", i), ns, "1")
	}
	for i := range 10 {
		manifests += deployment(fmt.Sprint("d", i), ns, "web:1")
	}
	cmd, _ := command(t, manifests, "--on-failure", "leave")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the first object is there", func() bool { return len(configMaps(t, ns)) > 0 })
	if err := cluster.RestartAPIServer(0); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if text := log.String(); err != nil && (strings.Count(text, "deploy-manifests: error: ") != 1 || strings.Count(text, "deploy-manifests: hint: ") != 1 || !strings.Contains(text, cluster.URL)) {
		t.Errorf("%v:\n%s", err, text)
	}
	await(t, "the API server is ready", func() bool {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(t.Context()).Error() == nil
	})
	last := deploy(t, manifests)
	last.wants(t, 0, "rollouts: 10 ready")
	if names := configMaps(t, ns); len(names) != 150 {
		t.Errorf("%d ConfigMaps", len(names))
	}
	deploy(t, manifests).wants(t, 0, "deployed: 160 unchanged; rollouts: 10 ready")
}

// A token that ends while a rollout is waited for, and is renewed in its file, as in a pod, does not end the deploy.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	allow(t, ns, "system:serviceaccount:"+ns+":default", rule("", "get list watch patch create update delete", "*"), rule("apps", "get list watch patch create", "*"),
		rule("coordination.k8s.io", "get list create update patch delete", "*"), rule("events.k8s.io", "list watch", "*"))
	await(t, "the service account is there", func() bool {
		_, err := client.CoreV1().ServiceAccounts(ns).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	file := filepath.Join(t.TempDir(), "token")
	renew := func(name string) (token string) { // one that ends with the Secret of that name
		t.Helper()
		apply(t, "v1", "secrets", ns, map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name}}, "test")
		answer, err := client.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), "default", &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
			BoundObjectRef: &authv1.BoundObjectReference{Kind: "Secret", APIVersion: "v1", Name: name}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(answer.Status.Token), 0o600); err != nil {
			t.Fatal(err)
		}
		return answer.Status.Token
	}
	first := renew("one")
	node := "no-such-node-yet"
	manifests := strings.Replace(deployment("web", ns, "web:1"), "containers:", "nodeSelector: {"+ns+": '"+node+"'}, containers:", 1)
	// No KUBECONFIG: the server and a token file, as a pod has them.
	cmd, _ := command(t, manifests, "--server", cluster.URL, "--ca", filepath.Join(cluster.Dir, "ca.crt"), "--token-file", file, "--namespace", ns)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	await(t, "the Deployment is there", func() bool { return count(t, "apps/v1", "deployments", ns) == 1 })

	renew("two")
	if err := at(t, "v1", "secrets", ns).Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, first)
	label(t, ns, node)
	if err := cmd.Wait(); err != nil || !strings.Contains(log.String(), "ready       Deployment/"+ns+"/web") {
		t.Errorf("%v:\n%s", err, log.String())
	}
}

// awaitEnd returns when the API server no longer takes a token, which it remembers for a while.
func awaitEnd(t *testing.T, token string) {
	t.Helper()
	old, err := kubernetes.NewForConfig(&rest.Config{Host: cluster.URL, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(cluster.Dir, "ca.crt")}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the token has ended", func() bool {
		_, err := old.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return err != nil && strings.Contains(err.Error(), "Unauthorized")
	})
}

// label lets pods run that wait for a node with it.
func label(t *testing.T, key, value string) {
	t.Helper()
	patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]string{key: value}}})
	if _, err := client.CoreV1().Nodes().Patch(t.Context(), "node-1", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// A token that ends while a rollout is waited for, and is not renewed, is told as that, and not as a lock that another run took.
func TestTokenEndsForGood(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	allow(t, ns, "system:serviceaccount:"+ns+":deployer", rule("", "get list watch patch create update delete", "*"), rule("apps", "get list watch patch create", "*"))
	for _, kind := range []string{"ServiceAccount", "Secret"} {
		apply(t, "v1", strings.ToLower(kind)+"s", ns, map[string]any{"apiVersion": "v1", "kind": kind, "metadata": map[string]any{"name": "deployer"}}, "test")
	}
	answer, err := client.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), "deployer", &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		BoundObjectRef: &authv1.BoundObjectReference{Kind: "Secret", APIVersion: "v1", Name: "deployer"}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waits := strings.Replace(deployment("web", ns, "web:1"), "containers:", "nodeSelector: {"+ns+": 'later'}, containers:", 1)
	_, log, end := startDeploy(t, waits, "--server", cluster.URL, "--ca", filepath.Join(cluster.Dir, "ca.crt"), "--token", answer.Status.Token,
		"--namespace", ns, "--on-failure=rollback")
	await(t, "the Deployment is there", func() bool { return count(t, "apps/v1", "deployments", ns) == 1 })
	if err := at(t, "v1", "secrets", ns).Delete(t.Context(), "deployer", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, answer.Status.Token)
	label(t, ns, "later")
	code := end()
	outcome{code: code, log: log.String()}.wants(t, 3, "the API server refuses the credentials (401)", "hint: give a token or kubeconfig that is valid now", "the rollback failed too: ")
	if strings.Contains(log.String(), answer.Status.Token) {
		t.Errorf("the log shows the token:\n%s", log)
	}
}

// A webhook that does not answer is named, before anything is written.
func TestBrokenWebhook(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, "admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "", map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": map[string]any{"name": ns},
		"webhooks": []any{map[string]any{"name": "broken.example.org", "sideEffects": "None", "admissionReviewVersions": []any{"v1"}, "timeoutSeconds": int64(1),
			"clientConfig":      map[string]any{"url": "https://127.0.0.1:1/"},
			"namespaceSelector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": ns}},
			"rules":             []any{map[string]any{"apiGroups": []any{""}, "apiVersions": []any{"v1"}, "resources": []any{"configmaps"}, "operations": []any{"CREATE", "UPDATE"}}}}},
	}, "test")
	t.Cleanup(func() {
		_ = at(t, "admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "").Delete(t.Context(), ns, metav1.DeleteOptions{})
	})
	o := deploy(t, fmt.Sprintf(configMap, "a", ns, "1")+deployment("web", ns, "web:1"))
	o.wants(t, 1, "failed calling webhook", "hint: the webhook broken.example.org of the cluster does not answer", "nothing was applied")
	if n := count(t, "apps/v1", "deployments", ns); n != 0 {
		t.Errorf("%d Deployments", n)
	}
	// One that is only away for a moment, as while its pod is replaced, is waited for.
	_, log, end := startDeploy(t, fmt.Sprintf(configMap, "a", ns, "1"))
	time.Sleep(1500 * time.Millisecond)
	if err := at(t, "admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "").Delete(t.Context(), ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if code := end(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, log)
	}
}

// A definition is not changed so that what is stored could no longer be read.
func TestDefinitionSafety(t *testing.T) {
	ns := namespace(t)
	good := fmt.Sprintf(definition, ns, "") + fmt.Sprintf(widget, ns, "size: 1")
	deploy(t, good).wants(t, 0)
	other := fmt.Sprintf(configMap, "a", ns, "1")
	for _, tt := range []struct{ from, to, want string }{
		{"scope: Namespaced", "scope: Cluster", "spec.scope"},
		{"name: v1\n", "name: v2\n", "status.storedVersions"},
	} {
		o := deploy(t, strings.Replace(fmt.Sprintf(definition, ns, ""), tt.from, tt.to, 1)+other, "--prune=false")
		o.wants(t, 2, "CustomResourceDefinition/widgets."+ns+".test: "+tt.want, "nothing was applied")
	}
	if names := configMaps(t, ns); len(names) > 0 {
		t.Errorf("ConfigMaps %v were applied", names)
	}
}

package deploy_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// allow gives a user rights in a namespace, besides those that every set needs in its own.
func allow(t *testing.T, ns, user string, rules ...rbacv1.PolicyRule) {
	t.Helper()
	rules = append(rules, rule("coordination.k8s.io", "get create update", "leases"), rule("", "get list create patch delete", "secrets"))
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: rules}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: user}, Subjects: []rbacv1.Subject{{Kind: "User", Name: user}}}
	if _, err := client.RbacV1().Roles(ns).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.RbacV1().RoleBindings(ns).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func rule(group string, verbs string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: strings.Fields(verbs)}
}

// Who may not do it is told which verb on which resource is missing; nothing is written.
func TestDenied(t *testing.T) {
	ns := namespace(t)
	kubeconfig, err := cluster.User("reader")
	if err != nil {
		t.Fatal(err)
	}
	allow(t, ns, "reader", rule("", "get list patch create", "configmaps"), rule("apps", "get list watch", "deployments"))
	o := deploy(t, fmt.Sprintf(configMap, "a", ns, "1")+deployment("web", ns, "web:1"), "--kubeconfig", kubeconfig, "--namespace", ns)
	o.wants(t, 3, `user "reader" may not patch deployments.apps in namespace `+ns, "a Role in namespace "+ns, `apiGroups ["apps"], resources ["deployments"]`)
	o.actions(t, "ConfigMap/"+ns+"/a skipped none", "Deployment/"+ns+"/web failed none")
	if names := configMaps(t, ns); len(names) > 0 {
		t.Errorf("ConfigMaps %v were applied", names)
	}
}

// What will only be needed after the first write is asked for before it: to delete what has to be created again, and to watch.
// The Role to grant is printed for all of it at once.
func TestDeniedLater(t *testing.T) {
	ns := namespace(t)
	kubeconfig, err := cluster.User("patcher")
	if err != nil {
		t.Fatal(err)
	}
	deploy(t, fmt.Sprintf(job, "migrate", ns, "", "migrate:1"), "--namespace", ns).wants(t, 0)
	allow(t, ns, "patcher", rule("batch", "get list patch create watch", "jobs"), rule("apps", "get patch create", "deployments"))
	manifests := fmt.Sprintf(job, "migrate", ns, recreate, "migrate:2") + deployment("web", ns, "web:1") +
		"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: " + ns + "}\nspec: {ports: [{port: 80}]}\n"
	o := deploy(t, manifests, "--kubeconfig", kubeconfig, "--namespace", ns)
	o.wants(t, 3, "may not delete jobs.batch in namespace "+ns, "may not list deployments.apps in namespace "+ns, "may not patch services in namespace "+ns, "nothing was applied",
		"kind: Role", "metadata: {name: flakeship, namespace: "+ns+"}", `- {apiGroups: [""], resources: [services], verbs: [get, list, watch, create, patch, delete]}`,
		`- {apiGroups: ["apps"], resources: [deployments], `, `- {apiGroups: ["batch"], resources: [jobs], `)
	if image := fmt.Sprint(get(t, "batch/v1", "jobs", ns, "migrate").Object["spec"]); !strings.Contains(image, "migrate:1") {
		t.Errorf("the Job was created again: %s", image)
	}
}

// What is to be pruned in the end must be allowed in the beginning.
func TestPruneDenied(t *testing.T) {
	ns := namespace(t)
	kubeconfig, err := cluster.User("keeper")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{withPrune, "--namespace", ns, "--name", "shop"}
	deploy(t, fmt.Sprintf(configMap, "a", ns, "1")+fmt.Sprintf(configMap, "b", ns, "1")+fmt.Sprintf(configMap, "c", ns, "1"), args...).wants(t, 0)
	allow(t, ns, "keeper", rule("", "get list patch create", "configmaps"))
	with := append(args, "--kubeconfig", kubeconfig)
	for _, value := range []string{"1", "2"} { // be there something to write or not
		o := deploy(t, fmt.Sprintf(configMap, "a", ns, value), with...)
		o.wants(t, 3, "to be pruned: ConfigMap/"+ns+"/b: whoever deploys may not delete configmaps in namespace "+ns, "to be pruned: ConfigMap/"+ns+"/c: ", "nothing was applied",
			"metadata: {name: flakeship, namespace: "+ns+"}", `- {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch, create, patch, delete]}`)
		if got := stateOf(t, ns); got != "1 [a b c]" {
			t.Errorf("there is %s", got)
		}
	}
	deploy(t, fmt.Sprintf(configMap, "a", ns, "2"), append(with, "--prune=false")...).wants(t, 0, "1 configured")
}

// stateOf is a's value and what else is there.
func stateOf(t *testing.T, ns string) string {
	return fmt.Sprint(value(t, ns, "a"), " ", configMaps(t, ns))
}

// Less than everything is enough: without the right to read, an apply still says truly what it changed, and without the
// right to see pods a rollout is still waited for.
func TestFewRights(t *testing.T) {
	ns := namespace(t)
	kubeconfig, err := cluster.User("writer")
	if err != nil {
		t.Fatal(err)
	}
	allow(t, ns, "writer", rule("", "patch create", "configmaps"), rule("apps", "get list watch patch create", "deployments"))
	manifests := fmt.Sprintf(configMap, "a", ns, "1") + fmt.Sprintf(configMap, "b", ns, "1") + deployment("web", ns, "web:1")
	first := deploy(t, manifests, "--kubeconfig", kubeconfig, "--namespace", ns)
	first.wants(t, 0, `warning: failing pods cannot be named: user "writer" may not list pods in namespace `+ns)
	first.actions(t, "ConfigMap/"+ns+"/a created none", "ConfigMap/"+ns+"/b created none", "Deployment/"+ns+"/web created ready")
	manifests = fmt.Sprintf(configMap, "a", ns, "1") + fmt.Sprintf(configMap, "b", ns, "2") + deployment("web", ns, "web:1")
	deploy(t, manifests, "--kubeconfig", kubeconfig, "--namespace", ns).actions(t,
		"ConfigMap/"+ns+"/a unchanged none", "ConfigMap/"+ns+"/b configured none", "Deployment/"+ns+"/web unchanged ready")
}

// A Role and its binding come together, for a user who may grant only what it has: the binding can be checked only once the
// Role is there.
func TestRoleAndBinding(t *testing.T) {
	ns := namespace(t)
	kubeconfig, err := cluster.User("granter")
	if err != nil {
		t.Fatal(err)
	}
	allow(t, ns, "granter", rule("rbac.authorization.k8s.io", "get list patch create", "roles", "rolebindings"), rule("", "get patch create", "configmaps"))
	manifests := `apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: b, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: fresh-role}
subjects: [{kind: ServiceAccount, name: default, namespace: %[1]s}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: fresh-role, namespace: %[1]s}
rules: [{apiGroups: [''], resources: [configmaps], verbs: [get]}]
`
	deploy(t, fmt.Sprintf(manifests, ns), "--kubeconfig", kubeconfig, "--namespace", ns).actions(t, "Role/"+ns+"/fresh-role created none", "RoleBinding/"+ns+"/b created none")
}

// The ways to say which cluster is meant, and who speaks.
func TestConnections(t *testing.T) {
	ns := namespace(t)
	token, err := client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	allow(t, ns, "system:serviceaccount:default:default", rule("", "get patch create", "configmaps"))
	ca := filepath.Join(cluster.Dir, "ca.crt")
	caText, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(cluster.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	manifests := fmt.Sprintf(configMap, "a", ns, "1")
	for _, args := range [][]string{
		{"--server", cluster.URL, "--token", token.Status.Token, "--ca", ca},
		{"--server", cluster.URL, "--token", token.Status.Token, "--ca", string(caText)},
		{"--kubeconfig", cluster.Kubeconfig, "--token", token.Status.Token},
		{"--kubeconfig", cluster.Kubeconfig, "--context", "flakeship-e2e"},
		{"--kubeconfig", string(content)},
		{"--kubeconfig", base64.StdEncoding.EncodeToString(content)},
	} {
		deploy(t, manifests, append(args, "--namespace", ns)...).wants(t, 0)
	}
	live := get(t, "v1", "configmaps", ns, "a")
	if len(live.GetManagedFields()) != 1 || live.GetManagedFields()[0].Manager != "flakeship" {
		t.Errorf("managed fields: %v", live.GetManagedFields())
	}

	deploy(t, manifests, "--server", cluster.URL, "--token", "wrong", "--ca", ca).wants(t, 3, cluster.URL+": the API server refuses the credentials (401)")
	deploy(t, manifests, "--server", cluster.URL, "--token", "any").wants(t, 1, "cannot be reached: tls: failed to verify certificate", "certificate authority")
	for _, secret := range []string{token.Status.Token, "client-key-data"} {
		if o := deploy(t, manifests, "--server", cluster.URL, "--token", token.Status.Token); strings.Contains(o.log, secret) {
			t.Errorf("the log shows a secret:\n%s", o.log)
		}
	}
}

// What a plugin of the kubeconfig prints is the token; and whoever may act as another does.
func TestPluginAndImpersonation(t *testing.T) {
	ns := namespace(t)
	token, err := client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const user = "system:serviceaccount:default:default"
	manifests := fmt.Sprintf(configMap, "a", ns, "1")
	credential := filepath.Join(t.TempDir(), "credential.json")
	text := fmt.Sprintf(`{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":%q}}`, token.Status.Token)
	if err := os.WriteFile(credential, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	plugin := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: '%s', certificate-authority: '%s'}}], contexts: [{name: c, context: {cluster: c, user: u}}],
users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: cat, args: ['%s'], interactiveMode: Never}}}]}
`, cluster.URL, filepath.Join(cluster.Dir, "ca.crt"), credential)
	both := [][]string{{"--kubeconfig", plugin}, {"--as", user, "--as-groups", "system:authenticated"}}
	for _, args := range both { // the account may nothing yet: it is not the administrator who asks
		deploy(t, manifests, append(args, "--namespace", ns)...).wants(t, 3, `user "`+user+`" may not get leases.coordination.k8s.io in namespace `+ns)
	}
	allow(t, ns, user, rule("", "get patch create", "configmaps"))
	for _, args := range both {
		deploy(t, manifests, append(args, "--namespace", ns)...).wants(t, 0)
	}
}

// In a pod, nothing has to be said: its service account, its namespace and the server are where every pod has them.
func TestInCluster(t *testing.T) {
	ns := namespace(t)
	await(t, "the service account is there", func() bool {
		_, err := client.CoreV1().ServiceAccounts(ns).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	token, err := client.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), "default", &authv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	allow(t, ns, "system:serviceaccount:"+ns+":default", rule("", "get patch create", "configmaps"))
	account := t.TempDir()
	ca, err := os.ReadFile(filepath.Join(cluster.Dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"token": token.Status.Token, "namespace": ns, "ca.crt": string(ca)} {
		if err := os.WriteFile(filepath.Join(account, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd, out := command(t, strings.Replace(fmt.Sprintf(configMap, "a", ns, "1"), ", namespace: "+ns, "", 1))
	// A /run of its own, where the account's folder can be put in.
	const pod = `mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io && ln -s "$ACCOUNT" /run/secrets/kubernetes.io/serviceaccount && exec "$@"`
	cmd.Args = append([]string{"unshare", "--map-root-user", "--mount", "sh", "-c", pod, "sh"}, cmd.Args...)
	if cmd.Path, err = exec.LookPath("unshare"); err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(strings.TrimPrefix(cluster.URL, "https://"), ":")
	cmd.Env = slices.DeleteFunc(cmd.Env, func(line string) bool { return strings.HasPrefix(line, "KUBECONFIG=") })
	cmd.Env = append(cmd.Env, "ACCOUNT="+account, "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port)
	finish(t, cmd, out).wants(t, 0, "created     ConfigMap/"+ns+"/a")
}

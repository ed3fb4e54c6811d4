package deploy_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const recreate = `flakeship.dev/recreate: "true"`

// A Job whose image changed is refused before anything is written, unless its author allowed it to be run again.
func TestJob(t *testing.T) {
	ns := namespace(t)
	deploy(t, fmt.Sprintf(job, "migrate", ns, "", "migrate:1")).wants(t, 0)
	refused := deploy(t, fmt.Sprintf(job, "migrate", ns, "", "migrate:2")+fmt.Sprintf(configMap, "a", ns, "1"))
	refused.wants(t, 2, "Job/"+ns+"/migrate: spec.template: field is immutable", recreate)
	refused.actions(t, "Job/"+ns+"/migrate failed none", "ConfigMap/"+ns+"/a skipped none")

	uid := get(t, "batch/v1", "jobs", ns, "migrate").GetUID()
	allowed := fmt.Sprintf(job, "migrate", ns, recreate, "migrate:2")
	again := deploy(t, allowed)
	again.wants(t, 0, "recreated   Job/"+ns+"/migrate (deleted and created again: spec.template: field is immutable)", "ready       Job/"+ns+"/migrate: complete")
	if get(t, "batch/v1", "jobs", ns, "migrate").GetUID() == uid || !again.result.Changed {
		t.Error("it is still the same Job")
	}
	deploy(t, allowed).wants(t, 0, "deployed: 1 unchanged; rollouts: 1 ready")
}

// What cannot be changed is told from what is merely wrong, in every kind that may be created again: with permission the first
// is, the second never.
func TestImmutable(t *testing.T) {
	ns := namespace(t)
	annotated := "metadata: {name: x, namespace: " + ns + ", annotations: {" + recreate + "}}\n"
	template := "template: {metadata: {labels: {app: %[1]s}}, spec: {containers: [{name: main, image: web}]}}"
	for _, tt := range []struct {
		name, version, resource, before, after, invalid string
		always                                          bool // refused with permission too
		wide                                            bool // of no namespace
	}{
		{name: "Job", version: "batch/v1", resource: "jobs", before: "spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: a}]}}}",
			after: "spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: b}]}}}", invalid: "spec: {backoffLimit: -1, template: {spec: {restartPolicy: Never, containers: [{name: main, image: b}]}}}"},
		{name: "Deployment", version: "apps/v1", resource: "deployments", before: "spec: {selector: {matchLabels: {app: a}}, " + fmt.Sprintf(template, "a") + "}",
			after: "spec: {selector: {matchLabels: {app: b}}, " + fmt.Sprintf(template, "b") + "}", invalid: "spec: {replicas: -1, selector: {matchLabels: {app: b}}, " + fmt.Sprintf(template, "b") + "}"},
		{name: "DaemonSet", version: "apps/v1", resource: "daemonsets", before: "spec: {selector: {matchLabels: {app: c}}, " + fmt.Sprintf(template, "c") + "}",
			after: "spec: {selector: {matchLabels: {app: d}}, " + fmt.Sprintf(template, "d") + "}", invalid: "spec: {revisionHistoryLimit: -1, selector: {matchLabels: {app: d}}, " + fmt.Sprintf(template, "d") + "}"},
		{name: "ReplicaSet", version: "apps/v1", resource: "replicasets", before: "spec: {selector: {matchLabels: {app: e}}, " + fmt.Sprintf(template, "e") + "}",
			after: "spec: {selector: {matchLabels: {app: f}}, " + fmt.Sprintf(template, "f") + "}", invalid: "spec: {replicas: -1, selector: {matchLabels: {app: f}}, " + fmt.Sprintf(template, "f") + "}"},
		{name: "Pod", version: "v1", resource: "pods", before: "spec: {containers: [{name: main, image: web}]}", after: "spec: {containers: [{name: main, image: web, command: [serve]}]}",
			invalid: "spec: {containers: [{name: main, image: web, command: [serve], imagePullPolicy: Seldom}]}"},
		{name: "StatefulSet", version: "apps/v1", resource: "statefulsets", before: "spec: {serviceName: a, selector: {matchLabels: {app: s}}, " + fmt.Sprintf(template, "s") + "}",
			after: "spec: {serviceName: b, selector: {matchLabels: {app: s}}, " + fmt.Sprintf(template, "s") + "}", invalid: "spec: {serviceName: b, replicas: -1, selector: {matchLabels: {app: s}}, " + fmt.Sprintf(template, "s") + "}"},
		{name: "Service", version: "v1", resource: "services", before: "spec: {clusterIP: 10.96.7.1, ports: [{port: 80}]}", after: "spec: {clusterIP: 10.96.7.2, ports: [{port: 80}]}",
			invalid: "spec: {clusterIP: 10.96.7.2, ports: [{port: 99999}]}"},
		{name: "ConfigMap", version: "v1", resource: "configmaps", before: "immutable: true\ndata: {a: x}", after: "immutable: true\ndata: {a: z}", invalid: "immutable: true\ndata: {'a/b': z}"},
		{name: "Secret", version: "v1", resource: "secrets", before: "type: example.org/a", after: "type: example.org/b", invalid: "type: kubernetes.io/tls"},
		{name: "RoleBinding", version: "rbac.authorization.k8s.io/v1", resource: "rolebindings", before: "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}",
			after: "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}", invalid: "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Nothing, name: edit}"},
		{name: "ClusterRoleBinding", version: "rbac.authorization.k8s.io/v1", resource: "clusterrolebindings", wide: true, before: "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}",
			after: "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}", invalid: "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Nothing, name: edit}"},
		{name: "StorageClass", version: "storage.k8s.io/v1", resource: "storageclasses", wide: true, before: "provisioner: none.test/a\nparameters: {a: x}",
			after: "provisioner: none.test/a\nparameters: {a: z}", invalid: "provisioner: none.test/a\nparameters: {a: z}\nvolumeBindingMode: Never"},
		{name: "PersistentVolumeClaim", version: "v1", resource: "persistentvolumeclaims", always: true,
			before:  "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: a}",
			after:   "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: b}",
			invalid: "spec: {accessModes: [Any], resources: {requests: {storage: 1Gi}}, storageClassName: b}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns, id := ns, tt.name+"/"+ns+"/x"
			if tt.wide {
				ns, id = "", tt.name+"/x"
			}
			head := "apiVersion: " + tt.version + "\nkind: " + tt.name + "\n"
			deploy(t, head+annotated+tt.before, "--wait=false").wants(t, 0)
			uid := get(t, tt.version, tt.resource, ns, "x").GetUID()

			deploy(t, head+annotated+tt.invalid, "--wait=false").wants(t, 2, "nothing was applied")
			if tt.always {
				deploy(t, head+annotated+tt.after, "--wait=false").wants(t, 2, "nothing was applied", "a "+tt.name+" is never deleted to be created again")
				return
			}
			deploy(t, head+strings.ReplaceAll(annotated, recreate, "a: b")+tt.after, "--wait=false").wants(t, 2, "nothing was applied", "hint: annotate the "+tt.name+" with "+recreate)
			if get(t, tt.version, tt.resource, ns, "x").GetUID() != uid {
				t.Fatal("it was created again without permission, or for a manifest that is wrong")
			}
			deploy(t, head+annotated+tt.after, "--wait=false").wants(t, 0, "recreated   "+id, "deployed: 1 recreated")
			if get(t, tt.version, tt.resource, ns, "x").GetUID() == uid {
				t.Error("it is still the same")
			}
			deploy(t, head+annotated+tt.after, "--wait=false").wants(t, 0, "deployed: 1 unchanged")
		})
	}
}

// A hook that runs before the rest keeps the rest from being written until it is complete; one that runs after it comes when
// everything is ready. Both run again with a new image, and not otherwise.
func TestHooks(t *testing.T) {
	ns := namespace(t)
	set := func(before, web, after string) string {
		return fmt.Sprintf(job, "before", ns, "flakeship.dev/hook: before", before) + deployment("web", ns, web) + fmt.Sprintf(job, "after", ns, "flakeship.dev/hook: after", after)
	}
	first := deploy(t, set("bad-job:1", "web:1", "after:1"))
	first.wants(t, 5, "Job/"+ns+"/before")
	first.actions(t, "Job/"+ns+"/before created failed", "Deployment/"+ns+"/web skipped none", "Job/"+ns+"/after skipped none")

	// The same again: it had failed, so it is run again.
	deploy(t, set("bad-job:1", "web:1", "after:1")).wants(t, 5, "recreated   Job/"+ns+"/before (deleted and created again: it had failed)")

	second := deploy(t, set("good:1", "web:1", "after:1"))
	second.wants(t, 0, "deployed: 2 created, 1 recreated; rollouts: 3 ready")
	order := []string{"ready       Job/" + ns + "/before", "created     Deployment/" + ns + "/web", "ready       Deployment/" + ns + "/web", "created     Job/" + ns + "/after", "ready       Job/" + ns + "/after"}
	at := -1
	for _, line := range order {
		next := strings.Index(second.log, line)
		if next <= at {
			t.Errorf("%q is missing or comes too early:\n%s", line, second.log)
		}
		at = next
	}
	requests(t)
	deploy(t, set("good:1", "web:1", "after:1")).wants(t, 0, "deployed: 3 unchanged; rollouts: 3 ready")
	if asked := requests(t); len(asked) != 4 {
		t.Errorf("%d requests, want 4:\n%s", len(asked), strings.Join(asked, "\n"))
	}

	third := deploy(t, set("good:2", "never-ready:1", "after:2"), "--timeout=8s")
	third.wants(t, 6, "recreated   Job/"+ns+"/before")
	third.actions(t, "Job/"+ns+"/before recreated ready", "Deployment/"+ns+"/web configured timeout", "Job/"+ns+"/after skipped none")

	deploy(t, fmt.Sprintf(job, "x", ns, "flakeship.dev/hook: sometimes", "x")+strings.Replace(fmt.Sprintf(configMap, "a", ns, "1"), "}", ", annotations: {flakeship.dev/hook: after}}", 1)).
		wants(t, 2, "is \"sometimes\", not before or after", "only a Job can be a hook")
}

// An object that is on its way out is not applied to.
func TestBeingDeleted(t *testing.T) {
	ns := namespace(t)
	manifest := fmt.Sprintf(configMap, "a", ns, "1")
	held := strings.Replace(manifest, "namespace: "+ns, "namespace: "+ns+", finalizers: [example.org/hold]", 1)
	deploy(t, held).wants(t, 0)
	if err := at(t, "v1", "configmaps", ns).Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	deploy(t, held).wants(t, 1, "it is being deleted", "example.org/hold")
	deploy(t, manifest, "--conflicts", "force").wants(t, 1, "it is being deleted")
}

// A namespace that is on its way out takes nothing new, and is not applied to itself.
func TestNamespaceTerminating(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	held := strings.Replace(fmt.Sprintf(configMap, "held", ns, "1"), "namespace: "+ns, "namespace: "+ns+", finalizers: [example.org/hold]", 1)
	deploy(t, held).wants(t, 0)
	if err := at(t, "v1", "namespaces", "").Delete(t.Context(), ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the namespace is ending", func() bool { return get(t, "v1", "configmaps", ns, "held").GetDeletionTimestamp() != nil })
	deploy(t, fmt.Sprintf(configMap, "a", ns, "1"), "--prune=false").wants(t, 1, "because it is being terminated", "nothing was applied")
	deploy(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+ns+"}\n", "--prune=false").wants(t, 1, "Namespace/"+ns+": it is being deleted", "nothing was applied")
}

// Lists whose elements have keys may name each only once, and whoever does so twice is shown where.
func TestDuplicateKeys(t *testing.T) {
	ns := namespace(t)
	for part, want := range map[string]string{
		"ports: [{containerPort: 53}, {containerPort: 53}]":         `duplicate entries for key [containerPort=53,protocol="TCP"]`,
		"env: [{name: A, value: x}, {name: A, value: y}]":           `duplicate entries for key [name="A"]`,
		"ports: [{containerPort: 53}], ports: [{containerPort: 5}]": "is given twice",
	} {
		deploy(t, strings.Replace(deployment("web", ns, "web:1"), "image: 'web:1'", "image: 'web:1', "+part, 1)).wants(t, 2, "m.yaml:", want)
	}
	// One port for two protocols are two keys.
	deploy(t, strings.Replace(deployment("web", ns, "web:1"), "image: 'web:1'", "image: 'web:1', ports: [{containerPort: 53}, {containerPort: 53, protocol: UDP}]", 1)).wants(t, 0)
}

package apply

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/manifest"
)

func decode(t *testing.T, text string) []manifest.Object {
	t.Helper()
	objects, problems := manifest.Decode("m.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return objects
}

func TestNormalise(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"what only a server sets", `{apiVersion: v1, kind: X, metadata: {name: x, uid: u, resourceVersion: "1", generation: 2, creationTimestamp: null, selfLink: s, managedFields: [], labels: {a: b}}, status: {}, spec: {status: kept}}`,
			`{apiVersion: v1, kind: X, metadata: {name: x, labels: {a: b}}, spec: {status: kept}}`},
		{"what the server does not keep", `{apiVersion: v1, kind: X, metadata: {name: x, labels: {}, annotations: {flakeship.dev/applied: mark}}}`,
			`{apiVersion: v1, kind: X, metadata: {name: x}}`},
		{"stringData", `{apiVersion: v1, kind: Secret, metadata: {name: x}, data: {a: AA==, b: BB==}, stringData: {b: hello, c: ""}}`,
			`{apiVersion: v1, kind: Secret, metadata: {name: x}, data: {a: AA==, b: aGVsbG8=, c: ""}}`},
		{"stringData that is empty", `{apiVersion: v1, kind: Secret, metadata: {name: x}, stringData: {}}`, `{apiVersion: v1, kind: Secret, metadata: {name: x}}`},
		{"stringData that is wrong is for the server to judge", `{apiVersion: v1, kind: Secret, metadata: {name: x}, data: {a: AA==}, stringData: {a: x, b: 1}}`,
			`{apiVersion: v1, kind: Secret, metadata: {name: x}, data: {a: AA==}, stringData: {a: x, b: 1}}`},
		{"somebody else's Secret", `{apiVersion: x.org/v1, kind: Secret, metadata: {name: x}, stringData: {a: b}}`, `{apiVersion: x.org/v1, kind: Secret, metadata: {name: x}, stringData: {a: b}}`},
		{"ports of a Service", `{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 53}, {port: 53, protocol: UDP}]}}`,
			`{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 53, protocol: TCP}, {port: 53, protocol: UDP}]}}`},
		{"ports and time stamps in a template", `{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}, spec: {template: {metadata: {creationTimestamp: null, labels: {a: b}}, spec: {containers: [{ports: [{containerPort: 1}]}], initContainers: [{ports: [{containerPort: 2}]}, {}]}}}}`,
			`{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}, spec: {template: {metadata: {labels: {a: b}}, spec: {containers: [{ports: [{containerPort: 1, protocol: TCP}]}], initContainers: [{ports: [{containerPort: 2, protocol: TCP}]}, {}]}}}}`},
		{"a CronJob", `{apiVersion: batch/v1, kind: CronJob, metadata: {name: x}, spec: {jobTemplate: {spec: {template: {spec: {containers: [{ports: [{containerPort: 1}]}]}}}}}}`,
			`{apiVersion: batch/v1, kind: CronJob, metadata: {name: x}, spec: {jobTemplate: {spec: {template: {spec: {containers: [{ports: [{containerPort: 1, protocol: TCP}]}]}}}}}}`},
		{"what is not of the right shape", `{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}, spec: {template: [1], ports: 2}}`, `{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}, spec: {template: [1], ports: 2}}`},
		{"containers that are none", `{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [1, {ports: x}], initContainers: {a: b}}}`, `{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [1, {ports: x}], initContainers: {a: b}}}`},
	}
	for _, tt := range tests {
		o, want := decode(t, tt.in)[0], decode(t, tt.want)[0]
		for _, time := range []string{"once", "twice"} {
			normalise(o.Unstructured)
			if diff := cmp.Diff(want.Object, o.Object); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", tt.name, time, diff)
			}
		}
	}
}

// A value of a Secret that is no text is named, and not shown.
func TestNotText(t *testing.T) {
	for text, want := range map[string]string{
		`{apiVersion: v1, kind: Secret, metadata: {name: x}, stringData: {a: x, c: 1, b: true}}`:  "stringData.b",
		`{apiVersion: v1, kind: Secret, metadata: {name: x}, data: {a: 1.5}, stringData: {a: 1}}`: "data.a",
		`{apiVersion: v1, kind: Secret, metadata: {name: x}, data: {a: AA==, b: null}}`:           "",
		`{apiVersion: v1, kind: Secret, metadata: {name: x}, data: [1]}`:                          "",
		`{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {a: 1}}`:                    "",
	} {
		if got := notText(decode(t, text)[0].Unstructured); got != want {
			t.Errorf("notText(%s) = %q, want %q", text, got, want)
		}
	}
}

// Whatever is needed comes before what needs it.
func TestStages(t *testing.T) {
	order := decode(t, `
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: x}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: x}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: x}}
---
{apiVersion: example.org/v1, kind: Deployment, metadata: {name: custom}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: x}}
`)
	var got []stage
	for _, o := range order {
		got = append(got, stageOf(o.GroupVersionKind().GroupKind()))
	}
	if want := []stage{foundations, settings, bindings, services, workloads, gates}; !slices.Equal(got, want) {
		t.Errorf("stages %v, want %v", got, want)
	}
}

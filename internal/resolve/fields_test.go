package resolve

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flakeship/flakeship/internal/handoff"
)

// Every place that holds an image is found, and none that does not.
func TestPlaces(t *testing.T) {
	text := `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: d
  annotations: {image: api}
spec:
  template:
    spec:
      containers: [{name: c, image: api:YES, env: [{name: IMAGE, value: api}], args: [api]}]
      initContainers: [{name: i, image: api:YES}, {name: j}]
      ephemeralContainers: [{name: e, image: api:YES}]
      volumes: [{name: v, image: {reference: api:YES, pullPolicy: Always}}, {name: w, configMap: {name: api}}]
status: {containers: [{image: api}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: c}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: api:YES}]}}}}}
---
apiVersion: example.org/v1
kind: Fleet
metadata: {name: f}
spec:
  image: api
  groups:
  - podTemplate: {spec: {containers: [{image: api:YES}]}}
  - template: {initContainers: [{image: '{{ .Values.image }}'}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fleets.example.org}
spec: {versions: [{schema: {openAPIV3Schema: {default: {containers: [{image: api}]}}}}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cm}
data: {image: api, containers: 'image: api'}
`
	objects := decode(t, text)
	result := table(t, push("reg:5000/team", "api")).Objects(objects, strict)
	to := "reg:5000/team/api:" + hash + "@" + digest("1")
	if diff := cmp.Diff(handoffPins("api:YES", to, 6), result.Pinned); diff != "" || len(result.Problems)+len(result.Warnings) > 0 {
		t.Errorf("pinned (-want +got):\n%s%v%v", diff, result.Problems, result.Warnings)
	}
	want := decode(t, strings.ReplaceAll(text, "api:YES", to))
	for i := range want {
		if diff := cmp.Diff(want[i].Object, objects[i].Object); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want[i].ID(), diff)
		}
	}
}

func handoffPins(from, to string, n int) []handoff.PinnedImage {
	return []handoff.PinnedImage{{From: from, To: to, Count: n}}
}

// Fields of custom resources count as images when they are declared.
func TestDeclaredPaths(t *testing.T) {
	text := `
apiVersion: example.org/v1
kind: Fleet
metadata: {name: f}
spec:
  image: api:YES
  pools: [{image: api:YES}, {image: api:YES, runners: [[{at: api:YES}]]}, {other: api}]
  containers: [{image: api:YES}]
---
apiVersion: example.org/v1
kind: Ship
metadata: {name: s}
spec: {image: api}
`
	tab := table(t, push("reg:5000/team", "api"))
	if err := tab.Declare([]string{"Fleet.example.org=spec.image", "Fleet.example.org = .spec.pools[].image", "Fleet.example.org=spec.pools[].runners[][].at", "Fleet.example.org=spec.containers[].image"}); err != nil {
		t.Fatal(err)
	}
	objects := decode(t, text)
	result := tab.Objects(objects, strict)
	to := "reg:5000/team/api:" + hash + "@" + digest("1")
	if diff := cmp.Diff(handoffPins("api:YES", to, 5), result.Pinned); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i, o := range decode(t, strings.ReplaceAll(text, "api:YES", to)) {
		if diff := cmp.Diff(o.Object, objects[i].Object); diff != "" {
			t.Errorf("%s (-want +got):\n%s", o.ID(), diff)
		}
	}
	for _, bad := range []string{"Fleet", "=a", "Fleet=", "Fleet=a..b", "Fleet=a[0]", "Fleet=a[]", "Fleet=*"} {
		if err := tab.Declare([]string{bad}); err == nil {
			t.Errorf("Declare(%q) was taken", bad)
		}
	}
}

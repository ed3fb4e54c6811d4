package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/flakeship/flakeship/internal/apply"
)

func TestURLs(t *testing.T) {
	const objects = `
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a}, spec: {
  tls: [{hosts: [shop.example.org]}],
  rules: [{host: shop.example.org, http: {paths: [{path: /, pathType: Prefix}, {path: /api, pathType: Prefix}]}},
          {host: plain.example.org, http: {paths: [{path: /x, pathType: Exact}, {path: "/.*", pathType: ImplementationSpecific}]}},
          {host: "*.example.org"}, {http: {paths: []}}]},
  status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: gate, namespace: infra}, spec: {listeners: [
  {name: web, protocol: HTTP, port: 8080, hostname: gate.example.org}, {name: tls, protocol: HTTPS, port: 443, hostname: "*.secure.test"}, {name: db, protocol: TCP, port: 5432}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop}, spec: {hostnames: [a.secure.test, b.other.test],
  parentRefs: [{name: gate, namespace: infra, sectionName: tls}, {name: unknown}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: s}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: odd}, spec: {rules: [7, {host: []}], tls: none}}
`
	changes := []apply.Change{{}}
	for text := range strings.SplitSeq(objects, "---\n") {
		data, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		o := &unstructured.Unstructured{}
		if err := utiljson.Unmarshal(data, &o.Object); err != nil {
			t.Fatal(err)
		}
		changes = append(changes, apply.Change{Live: o})
	}
	want := []string{"http://192.0.2.1/", "http://gate.example.org:8080/", "http://plain.example.org/x", "https://a.secure.test/", "https://shop.example.org/"}
	if diff := cmp.Diff(want, urls(changes)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := urls(nil); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

package apply

import (
	"encoding/base64"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// normalise brings an object into the form in which applying it again means the same: without what only a server may set,
// and without the shorthands server-side apply stumbles over.
func normalise(o *unstructured.Unstructured) {
	delete(o.Object, "status")
	meta, _ := o.Object["metadata"].(map[string]any)
	for _, field := range []string{"managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink"} {
		delete(meta, field)
	}
	if annotations, ok := meta["annotations"].(map[string]any); ok { // of an object that was read from a cluster
		delete(annotations, MarkAnnotation)
	}
	for _, field := range []string{"annotations", "labels"} { // the server does not keep it either
		if pairs, ok := meta[field].(map[string]any); ok && len(pairs) == 0 {
			delete(meta, field)
		}
	}
	kind := o.GroupVersionKind().GroupKind()
	switch kind {
	case schema.GroupKind{Kind: "Secret"}:
		secretData(o.Object)
	case schema.GroupKind{Kind: "Service"}:
		defaultProtocol(o.Object, "spec", "ports")
	}
	if path, ok := podSpecs[kind]; ok {
		podSpec, _, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
		for _, list := range []string{"containers", "initContainers"} {
			m, _ := podSpec.(map[string]any)
			containers, _ := m[list].([]any)
			for _, c := range containers {
				if c, ok := c.(map[string]any); ok {
					defaultProtocol(c, "ports")
				}
			}
		}
		if len(path) > 1 { // generators write creationTimestamp: null into templates
			template, _, _ := unstructured.NestedFieldNoCopy(o.Object, path[:len(path)-1]...)
			m, _ := template.(map[string]any)
			if meta, ok := m["metadata"].(map[string]any); ok && meta["creationTimestamp"] == nil {
				delete(meta, "creationTimestamp")
			}
		}
	}
}

// podSpecs says where a kind has its pods' specification.
var podSpecs = map[schema.GroupKind][]string{
	{Kind: "Pod"}:                        {"spec"},
	{Kind: "ReplicationController"}:      {"spec", "template", "spec"},
	{Group: "apps", Kind: "Deployment"}:  {"spec", "template", "spec"},
	{Group: "apps", Kind: "ReplicaSet"}:  {"spec", "template", "spec"},
	{Group: "apps", Kind: "StatefulSet"}: {"spec", "template", "spec"},
	{Group: "apps", Kind: "DaemonSet"}:   {"spec", "template", "spec"},
	{Group: "batch", Kind: "Job"}:        {"spec", "template", "spec"},
	{Group: "batch", Kind: "CronJob"}:    {"spec", "jobTemplate", "spec", "template", "spec"},
}

// secretData moves stringData to data. The server does so too, but keeps no record that stringData was the source: a key
// removed from it would stay in the Secret for ever (kubernetes/kubernetes#108008).
func secretData(secret map[string]any) {
	plain, ok := secret["stringData"].(map[string]any)
	if !ok {
		return
	}
	data, _ := secret["data"].(map[string]any)
	if data == nil {
		data = map[string]any{}
	}
	for _, v := range plain {
		if _, ok := v.(string); !ok {
			return // the server says what is wrong with it
		}
	}
	for key, v := range plain {
		data[key] = base64.StdEncoding.EncodeToString([]byte(v.(string)))
	}
	delete(secret, "stringData")
	if len(data) > 0 {
		secret["data"] = data
	}
}

// notText names a value of a Secret that YAML takes for a number or the like; empty: there is none.
func notText(o *unstructured.Unstructured) string {
	if !secretKind(o) {
		return ""
	}
	for _, field := range []string{"data", "stringData"} {
		values, _ := o.Object[field].(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(values)) {
			if _, ok := values[key].(string); !ok && values[key] != nil {
				return field + "." + key
			}
		}
	}
	return ""
}

// defaultProtocol fills in the protocol of ports. It is part of their key, and older servers take two ports apart by the
// keys as they are written (kubernetes/kubernetes#113482).
func defaultProtocol(o map[string]any, path ...string) {
	ports, _, _ := unstructured.NestedFieldNoCopy(o, path...)
	list, _ := ports.([]any)
	for _, port := range list {
		if port, ok := port.(map[string]any); ok && port["protocol"] == nil {
			port["protocol"] = "TCP"
		}
	}
}

package main

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flakeship/flakeship/internal/manifest"
)

func TestMasker(t *testing.T) {
	object := func(kind, field string, data map[string]any) manifest.Object {
		return manifest.Object{Unstructured: &unstructured.Unstructured{Object: map[string]any{"kind": kind, field: data}}}
	}
	mask := masker([]manifest.Object{
		object("Secret", "data", map[string]any{"a": "aHVudGVyMjI=", "b": "bGluZSBvbmUKbGluZSB0d28="}), // hunter22; line one, line two
		object("Secret", "stringData", map[string]any{"c": "hunter22-and-more", "port": "5432"}),
		object("ConfigMap", "data", map[string]any{"d": "in the open"}),
	}, []string{"DB_PASSWORD=env-secret", "MY_TOKEN=", "HOME=/home/ci", "CI=true", "AUTHOR=somebody-x"})
	for text, want := range map[string]string{
		"login hunter22-and-more failed":     "login *** failed",
		"hunter22, aHVudGVyMjI=":             "***, ***",
		"then line two":                      "then ***",
		"aHVudGVyMjItYW5kLW1vcmU= is data":   "*** is data",
		"port 5432, in the open, /home/ci":   "port 5432, in the open, /home/ci",
		"env-secret is what the variable is": "*** is what the variable is",
		"by somebody-x":                      "by somebody-x",
		"":                                   "",
	} {
		if got := mask(text); got != want {
			t.Errorf("mask(%q) = %q, want %q", text, got, want)
		}
	}
}
